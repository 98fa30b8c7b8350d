"""Tables of inbound webhooks: who may send, what came, and what was done about it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    UniqueConstraint,
)
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column


class InboundSource(SQLModel, table=True):
    """Somebody whose webhooks a client takes. `slug` is `{event}` of the path.

    `signing`, `dedupe` and `rules` are what `schemas.py` describes, as JSON.
    """

    __tablename__ = "inbound_source"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        UniqueConstraint("client_id", "slug"),
        UniqueConstraint("client_id", "id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    slug: str = Field(max_length=64)
    description: str | None = Field(default=None, max_length=256)
    scheme: str = Field(max_length=16)
    signing: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    dedupe: dict[str, Any] | None = Field(
        default=None, sa_column=json_column(default=None, nullable=True)
    )
    url: str | None = Field(default=None, max_length=2048)
    tolerance_s: int
    rate_per_s: float
    rate_burst: int
    rules: list[dict[str, Any]] = Field(default_factory=list, sa_column=json_column("[]"))
    is_active: bool = True
    # When a request was good for the first time.
    verified_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    updated_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class InboundSecret(SQLModel, table=True):
    """One of the secrets that a source's requests may be signed by; sealed, and never shown."""

    __tablename__ = "inbound_secret"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "source_id"],
            ["inbound_source.client_id", "inbound_source.id"],
            ondelete="CASCADE",
        ),
        Index("ix_inbound_secret_source_id", "source_id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    source_id: UUID = Field(sa_column=uuid_column())
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    hint: str = Field(max_length=16)
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    expires_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


class InboundEvent(SQLModel, table=True):
    """A request that was good, as it came. The row is the proof that its id was seen."""

    __tablename__ = "inbound_event"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "source_id"],
            ["inbound_source.client_id", "inbound_source.id"],
            ondelete="CASCADE",
        ),
        UniqueConstraint("source_id", "external_id"),
        UniqueConstraint("client_id", "id"),
        Index("ix_inbound_event_source_id_id", "source_id", "id"),
        Index("ix_inbound_event_source_id_status_id", "source_id", "status", "id"),
        Index("ix_inbound_event_received_at", "received_at"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    source_id: UUID = Field(sa_column=uuid_column())
    external_id: str = Field(max_length=200)
    received_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    headers: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    # Empty once the person it spoke of was erased.
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    secret_hint: str | None = Field(default=None, max_length=16)
    hops: int = 0
    # received → running → done | ignored | dead; looped: it came round too often.
    status: str = Field(default="received", max_length=16)
    attempts: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    # Rises with each replay: its effects are planned anew, but for those that were done.
    replays: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    planned_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    ended_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    error: str | None = Field(default=None, max_length=1000)


class InboundEffect(SQLModel, table=True):
    """One action of one rule for one event: done exactly once, because the key stands once."""

    __tablename__ = "inbound_effect"
    __table_args__ = (
        PrimaryKeyConstraint("event_id", "rule", "place"),
        ForeignKeyConstraint(
            ["client_id", "event_id"],
            ["inbound_event.client_id", "inbound_event.id"],
            ondelete="CASCADE",
        ),
    )

    event_id: UUID = Field(sa_column=uuid_column())
    rule: str = Field(max_length=64)
    place: int
    client_id: UUID = Field(sa_column=uuid_column())
    action: str = Field(max_length=32)
    # In which order the effects of an event are done.
    turn: int
    # With all values filled in: a repeat after a crash does what the first try did.
    arguments: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    # Where a message goes, decided (and committed) before it is sent.
    room_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    state: str = Field(default="planned", max_length=16)
    result: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    error: str | None = Field(default=None, max_length=1000)
    done_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


class InboundRefusal(SQLModel, table=True):
    """Why requests to a source were refused, the last ones: a ring of few rows per source."""

    __tablename__ = "inbound_refusal"
    __table_args__ = (
        PrimaryKeyConstraint("source_id", "slot"),
        ForeignKeyConstraint(
            ["client_id", "source_id"],
            ["inbound_source.client_id", "inbound_source.id"],
            ondelete="CASCADE",
        ),
    )

    source_id: UUID = Field(sa_column=uuid_column())
    slot: int
    client_id: UUID = Field(sa_column=uuid_column())
    at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    reason: str = Field(max_length=32)
    explanation: str = Field(max_length=500)
    details: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    # How many were refused since the one before, this one included.
    count: int


def place_of_secret(client_id: UUID, secret_id: UUID) -> str:
    """Say what a sealed secret is bound to."""
    return f"inbound_secret:{client_id}:{secret_id}"
