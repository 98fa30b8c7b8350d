"""What is to be delivered, where to, and every try: PostgreSQL owns what is due."""

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    Float,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    SmallInteger,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column, uuid_column

STOPPED = "state in ('paused', 'disabled', 'deleted') or open_until is not null"
WAITING = "state in ('scheduled', 'queued', 'retry_wait')"


class Target(SQLModel, table=True):
    """Where deliveries of a client go: a webhook endpoint, or a provider of another channel.

    Its health is kept here, for all its deliveries: `failures` in a row, and until when it is left
    in peace. While it is `paused`, one delivery at a time probes it, and nothing is lost.
    """

    __tablename__ = "delivery_target"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        UniqueConstraint("client_id", "id"),
        Index("ix_delivery_target_stopped", "channel", postgresql_where=text(STOPPED)),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    channel: str = Field(max_length=16)
    # active, degraded, paused, disabled, deleted
    state: str = Field(default="active", max_length=16)
    reason: str | None = Field(default=None, max_length=64)
    since: datetime = Field(default=None, sa_column=time_column(default_now=True))
    # So many at once for each worker process; `rate_per_s`: no more than that, by all together.
    concurrency: int = 4
    rate_per_s: float | None = Field(default=None, sa_column=Column(Float, nullable=True))
    # Whether it ever took anything: until then it gets one request at a time.
    is_proven: bool = False
    failures: int = 0
    first_failure_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    # How often it was opened without a success in between, and until when it is left alone.
    opened: int = 0
    open_until: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    # After a pause what has gathered goes out at a limited rate.
    is_draining: bool = False
    tokens: float = Field(default=0.0, sa_column=Column(Float, nullable=False, server_default="0"))
    tokens_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    # When its owner was last told of its troubles, and that it will be disabled.
    told_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    warned_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


class Delivery(SQLModel, table=True):
    """One thing for one recipient on one channel. The row is its own task.

    `source_id` is what is delivered: an event of the client, a notification. What it says is read
    when it is sent, and not kept here.
    """

    __tablename__ = "delivery"
    __table_args__ = (
        # Ids hold their time, so this is also the order and the days of a client's deliveries.
        UniqueConstraint("client_id", "id"),
        Index(
            "ix_delivery_due",
            "channel",
            "target_id",
            "priority",
            "next_at",
            postgresql_where=text(WAITING),
        ),
        Index(
            "ix_delivery_lost",
            "client_id",
            "settled_at",
            postgresql_where=text(
                "state in ('failed', 'expired', 'bounced') and channel <> 'webhook'"
            ),
        ),
        Index("ix_delivery_sending", "target_id", postgresql_where=text("state = 'sending'")),
        Index("ix_delivery_expires_at", "expires_at", postgresql_where=text(WAITING)),
        # Once per event and endpoint; also the order in which an endpoint's are listed.
        Index("uq_delivery_target_id_source_seq", "target_id", "source_seq", unique=True),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    channel: str = Field(max_length=16)
    target_id: UUID = Field(sa_column=uuid_column())
    source_id: UUID = Field(sa_column=uuid_column())
    # The source's number, where it has one: null makes two rows for one target possible.
    source_seq: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    # 0 critical, 1 transactional, 2 bulk
    priority: int = Field(
        default=1, sa_column=Column(SmallInteger, nullable=False, server_default="1")
    )
    state: str = Field(default="queued", max_length=16)
    reason: str | None = Field(default=None, max_length=64)
    next_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    expires_at: datetime = Field(sa_column=time_column())
    # Tries that count for the schedule; probes of a paused target don't.
    attempts: int = 0
    # All tries of this generation; raised before each of them.
    tries: int = 0
    # Raised by each replay.
    generation: int = 1
    fence: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    lease_until: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    replayed_by: str | None = Field(default=None, max_length=160)
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    settled_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


class Attempt(SQLModel, table=True):
    """One try, as it went. Written once, in the transaction of the delivery's new state."""

    __tablename__ = "delivery_attempt"
    __table_args__ = (
        # Only ever added to, and aged out: the smallest of indexes will do.
        Index("ix_delivery_attempt_started_at", "started_at", postgresql_using="brin"),
    )

    delivery_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    generation: int = Field(primary_key=True)
    no: int = Field(primary_key=True)
    client_id: UUID = Field(sa_column=uuid_column())
    target_id: UUID = Field(sa_column=uuid_column())
    # auto, manual, probe
    trigger: str = Field(default="auto", max_length=16)
    started_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    latency_ms: int | None = None
    outcome: str = Field(max_length=16)
    error: str | None = Field(default=None, max_length=64)
    status: int | None = Field(default=None, sa_column=Column(SmallInteger, nullable=True))
    retry_after_s: int | None = None
    peer: str | None = Field(default=None, max_length=64)
    url: str | None = Field(default=None, max_length=2048)
    signed_at: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    signature: str | None = Field(default=None, max_length=1024)
    body_bytes: int | None = None
    body_sha256: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    # What came back, at most 4 KB: sealed, for it may quote what was sent.
    response: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))


class AttemptPart(SQLModel, table=True):
    """What one try did at one of several addresses: a push goes to all of a person's devices.

    Written as soon as it is known, before the try itself is: whoever tries again knows who has it.
    """

    __tablename__ = "delivery_attempt_part"
    __table_args__ = (
        Index("ix_delivery_attempt_part_started_at", "started_at", postgresql_using="brin"),
    )

    delivery_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    generation: int = Field(primary_key=True)
    no: int = Field(primary_key=True)
    part_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    started_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    latency_ms: int | None = None
    outcome: str = Field(max_length=16)
    error: str | None = Field(default=None, max_length=64)
    status: int | None = Field(default=None, sa_column=Column(SmallInteger, nullable=True))
    retry_after_s: int | None = None
    peer: str | None = Field(default=None, max_length=64)


class DeliveryEvent(SQLModel, table=True):
    """What a provider told of a delivery after it had taken it. Each is kept once.

    `token`: what was signed with it, good for one event only.
    """

    __tablename__ = "delivery_event"
    __table_args__ = (
        UniqueConstraint("provider_id", "provider_event_id"),
        UniqueConstraint("provider_id", "token"),
        Index("ix_delivery_event_delivery_id", "delivery_id"),
        Index("ix_delivery_event_received_at", "received_at", postgresql_using="brin"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    delivery_id: UUID = Field(sa_column=uuid_column())
    provider_id: UUID = Field(sa_column=uuid_column())
    provider_event_id: str = Field(max_length=200)
    token: str | None = Field(default=None, max_length=128)
    # delivered, deferred, bounced, complained, opened, clicked, unsubscribed
    kind: str = Field(max_length=16)
    # An enhanced status code (RFC 3463), or another short word; never the other side's own text.
    code: str | None = Field(default=None, max_length=32)
    occurred_at: datetime = Field(sa_column=time_column())
    received_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class DayCount(SQLModel, table=True):
    """How many deliveries were promised on a day (UTC), counted when they were made.

    The rows themselves are counted against it: what was promised and is not there shows.
    """

    __tablename__ = "delivery_day"
    __table_args__ = (ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),)

    client_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    channel: str = Field(primary_key=True, max_length=16)
    day: date = Field(sa_column=Column(Date, primary_key=True))
    promised: int = Field(
        default=0, sa_column=Column(BigInteger, nullable=False, server_default="0")
    )


class FailureTold(SQLModel, table=True):
    """Up to when a client was told of lost deliveries."""

    __tablename__ = "delivery_failure_told"
    __table_args__ = (ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),)

    client_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    upto: datetime = Field(default=None, sa_column=time_column(default_now=True))


@dataclass(frozen=True, slots=True)
class Planned:
    """A delivery that is to be made."""

    id: UUID
    client_id: UUID
    target_id: UUID
    source_id: UUID
    source_seq: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A delivery that this process holds until its lease ends."""

    id: UUID
    client_id: UUID
    target_id: UUID
    source_id: UUID
    source_seq: int | None
    generation: int
    fence: int
    attempts: int
    tries: int
    # Seconds since the delivery was made, and until it is of no use any more.
    age_s: float
    left_s: float
    concurrency: int
    # The target is well as far as was known: a success changes nothing about it.
    is_plain: bool
    is_probe: bool

    @property
    def trigger(self) -> str:
        if self.is_probe:
            return "probe"
        return "auto" if self.generation == 1 else "manual"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """How one try went, before it is decided what follows from that.

    `outcome`: `accepted`, `retryable`, `throttled`, `configuration` (the receiver's, likely to
    stay), `rejected` (this one delivery will never be taken), `gone` (nothing will ever be).
    `is_partly_done`: one of several addresses took it; the try is about the rest.
    """

    outcome: str
    error: str | None = None
    status: int | None = None
    retry_after_s: float | None = None
    latency_ms: int = 0
    peer: str | None = None
    url: str | None = None
    signed_at: int | None = None
    signature: str | None = None
    body_bytes: int | None = None
    body_sha256: bytes | None = None
    response: bytes | None = None
    is_partly_done: bool = False
