"""Deliveries as callers see them."""

from datetime import date
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

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
MOST_DAYS = 31


class DeliveryRef(Request):
    id: Id


class GetLedger(Request):
    """Whole days (UTC), both included; left out: today, and 30 days up to then."""

    from_: Annotated[date | None, Field(alias="from", strict=False)] = None
    to: Annotated[date | None, Field(strict=False)] = None


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
    """How a delivery stands, in words. `fault`: who can mend it (null: nothing is wrong)."""

    id: Id
    state: State
    sentence: str
    fault: Literal["ours", "receiver"] | None
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
