"""Deliveries as callers see them."""

from datetime import date
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AwareDatetime, Field, StringConstraints

from chatserver.kernel.wire import Answer, Id, Request, Timestamp, left_out

State: TypeAlias = Literal[
    "scheduled",
    "queued",
    "sending",
    "accepted",
    "delivered",
    "retry_wait",
    "bounced",
    "failed",
    "suppressed",
    "expired",
    "cancelled",
]
# `webhook`: events for endpoints; `forward`: notifications posted to an address.
Channel: TypeAlias = Literal["socket", "email", "webhook", "forward", "push", "sms"]
Waiting: TypeAlias = Literal["scheduled", "queued", "retry_wait"]
Settled: TypeAlias = Literal[
    "accepted", "delivered", "bounced", "failed", "suppressed", "expired", "cancelled"
]
MOST_DAYS = 31


class DeliveryRef(Request):
    id: Id


class GetLedger(Request):
    """Whole days (UTC), both included; left out: today, and 30 days up to then."""

    from_: Annotated[date | None, Field(alias="from", strict=False)] = None
    to: Annotated[date | None, Field(strict=False)] = None


class DeliveryFilter(Request):
    """Which deliveries: everything that is given must fit. Times are those when they were made."""

    from_: Annotated[AwareDatetime | None, Field(alias="from", strict=False)] = None
    to: Annotated[AwareDatetime | None, Field(strict=False)] = None
    channel: Channel | None = None
    reason: Annotated[str, StringConstraints(max_length=64)] | None = None
    provider_id: Id | None = Field(default=None, description="A provider, or a webhook endpoint.")
    notification_id: Id | None = None

    @property
    def states(self) -> list[str] | None:
        """Which states; None: any."""
        return None


class _InState(DeliveryFilter):
    state: State | None = None

    @property
    def states(self) -> list[str] | None:
        return None if self.state is None else [self.state]


class ListAllDeliveries(_InState):
    cursor: Id | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class ExportDeliveries(_InState):
    format: Literal["ndjson", "csv"] = "ndjson"


class CancelDeliveries(DeliveryFilter):
    """At most 1,000 at a time: send it again while `more` is true."""

    state: Waiting | None = None

    @property
    def states(self) -> list[str] | None:
        return None if self.state is None else [self.state]


class ReplayDeliveries(DeliveryFilter):
    """At most 1,000 at a time: while `more` is true, send it again with `before` of the answer.

    Left out, `state` is what was lost: `failed`, `expired` and `bounced`. Nothing that settled
    after `before` is touched, so that nothing is sent twice.
    """

    state: Settled | None = None
    before: Annotated[AwareDatetime | None, Field(strict=False)] = None

    @property
    def states(self) -> list[str]:
        return ["failed", "expired", "bounced"] if self.state is None else [self.state]


class GetAnalytics(Request):
    """Whole days (UTC), both included, at most 31; left out: today, and 6 days up to then."""

    from_: Annotated[date | None, Field(alias="from", strict=False)] = None
    to: Annotated[date | None, Field(strict=False)] = None
    channel: Channel | None = None
    provider_id: Id | None = None


class AttemptOut(Answer):
    """One try. `request` says what was sent; its body is the event as it was at that time.

    A push is tried at each of a person's devices: `device_id` says at which; `no` is the same.
    """

    no: int
    device_id: Id | None = left_out()
    generation: int
    trigger: Literal["auto", "manual", "probe"]
    started_at: Timestamp
    latency_ms: int | None
    outcome: str
    error: str | None
    status: int | None
    retry_after_s: int | None
    peer: str | None
    request: dict[str, Any] | None
    response: str | None


class DeliveryOut(Answer):
    """One event for one endpoint, or one notification for one recipient on one channel."""

    id: Id
    channel: str
    endpoint_id: Id | None = left_out()
    event_id: Id | None = left_out()
    event_seq: int | None = left_out()
    state: State
    reason: str | None
    generation: int
    tries: int
    next_at: Timestamp | None
    expires_at: Timestamp
    created_at: Timestamp
    settled_at: Timestamp | None
    replayed_by: str | None = left_out()
    attempts: list[AttemptOut] | None = left_out()


class DeliveryPage(Answer):
    """The newest first. `next_cursor` goes on with the older ones; null: there are none."""

    items: list[DeliveryOut]
    next_cursor: str | None


class Moment(Answer):
    at: Timestamp
    what: str


class Explained(Answer):
    """How a delivery stands, in words. `fault`: who can mend it (null: nothing is wrong).

    `receiver` is a webhook's, `recipient` the person or the mailbox, `caller` the client itself.
    """

    id: Id
    state: State
    sentence: str
    fault: Literal["ours", "provider", "receiver", "recipient", "caller"] | None
    next_at: Timestamp | None
    timeline: list[Moment]


class LedgerLine(Answer):
    """A channel's deliveries: `accepted` is counted when they are promised, the rest from rows."""

    channel: str
    accepted: int
    states: dict[str, int]
    in_flight: int
    balanced: bool


class Ledger(Answer):
    """What was promised, against what became of it."""

    first_day: date
    last_day: date
    channels: list[LedgerLine]
    balanced: bool


class ManyDone(Answer):
    """How many it were. `more`: there are others that fit."""

    count: int
    more: bool
    before: Timestamp | None = left_out()


class Percentiles(Answer):
    """Milliseconds."""

    p50: int
    p95: int
    p99: int


class AnalyticsLine(Answer):
    """One day of one channel and provider (null: what goes to addresses of their own, or nowhere).

    `success_rate` and `failure_rate` are parts of what was settled; `settle_ms` is from when it was
    to go out until it was accepted or delivered, `try_ms` how long single tries took.
    """

    day: date
    channel: str
    provider_id: Id | None
    count: int
    states: dict[str, int]
    in_flight: int
    success_rate: float | None
    failure_rate: float | None
    tries: int
    try_success_rate: float | None
    settle_ms: Percentiles | None
    try_ms: Percentiles | None


class Analytics(Answer):
    first_day: date
    last_day: date
    items: list[AnalyticsLine]
