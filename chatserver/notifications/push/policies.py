"""Pure decisions: what a push says, and what the tries at a person's devices come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from chatserver.deliveries.models import Claim, Sent
from chatserver.infra.web_push import PushMessage, PushOutcome, Urgency, text_of, topic_of

URGENCIES: Final[tuple[Urgency, ...]] = ("high", "normal", "low")
# What is worth another try.
PASSING: Final = frozenset({"throttled", "retryable"})
RESTING: Final = "push_service_resting"
REST_S: Final = 30.0
LONGEST_REST_S: Final = 900.0
STRIKES: Final = 5
ORIGINS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One try at one device. `is_tried`: it was asked at all."""

    device_id: UUID
    outcome: PushOutcome
    latency_ms: int = 0
    is_tried: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A subscription, sealed. `last_seen_at` says which registration of it this is."""

    id: UUID
    client_id: UUID
    sealed: bytes
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class Reached:
    """The devices that a delivery still goes to, and whether it has reached another."""

    devices: Sequence[Device]
    is_partly_done: bool


NOBODY_REACHED: Final = Reached((), is_partly_done=False)


@dataclass(frozen=True, slots=True)
class Tried:
    """What a try of a delivery did at some devices."""

    claim: Claim
    parts: Sequence[Part]
    gone: Sequence[Device]


def payload_of(delivery_id: UUID, content: Mapping[str, Any], category: str | None) -> bytes:
    """Write what the service worker of the application gets, as JSON."""
    said = {
        "id": str(delivery_id),
        "title": content["title"],
        "body": content["body"],
        "data": content["data"] or None,
        "category": category,
    }
    return orjson.dumps({name: value for name, value in said.items() if value is not None})


def message_of(
    delivery_id: UUID,
    content: Mapping[str, Any],
    *,
    category: str | None,
    priority: int,
    left_s: float,
) -> PushMessage:
    """Make the message of a delivery. It is of no use any more in `left_s` seconds.

    A repeat takes the place of the first where that still waits, and so does whatever has the same
    `collapse_key`.
    """
    key = content.get("collapse_key")
    return PushMessage(
        payload=payload_of(delivery_id, content, category),
        ttl_s=max(1, int(left_s)),
        urgency=URGENCIES[priority],
        topic=topic_of(key) if key is not None else text_of(delivery_id.bytes),
    )


def summed_up(parts: Sequence[Part], *, is_partly_done: bool) -> Sent:
    """Say how a try went at all devices; `is_partly_done`: an earlier one reached some."""
    latency_ms = max((part.latency_ms for part in parts), default=0)
    reached = is_partly_done or any(part.outcome.kind == "accepted" for part in parts)
    passing = [part for part in parts if part.outcome.kind in PASSING]
    if passing:
        again_s = min(part.outcome.retry_after_s or 0.0 for part in passing)
        tried = [part for part in passing if part.is_tried]
        last = (tried or passing)[-1].outcome
        return Sent(
            outcome=last.kind if any(part.is_tried for part in parts) else "waiting",
            error=last.error,
            status=last.status,
            retry_after_s=again_s or None,
            latency_ms=latency_ms,
            peer=last.peer,
            is_partly_done=reached,
        )
    if reached:
        return Sent(outcome="accepted", status=_status(parts, "accepted"), latency_ms=latency_ms)
    for part in parts:
        if part.outcome.kind == "rejected":
            return Sent(
                outcome="rejected",
                error=part.outcome.error,
                status=part.outcome.status,
                latency_ms=latency_ms,
                peer=part.outcome.peer,
            )
    if parts:
        return Sent(
            outcome="bounced",
            error="subscription_gone",
            status=_status(parts, "gone"),
            latency_ms=latency_ms,
        )
    return Sent(outcome="unreachable", error="no_address")


def _status(parts: Sequence[Part], kind: str) -> int | None:
    return next((part.outcome.status for part in parts if part.outcome.kind == kind), None)


@dataclass(slots=True)
class _Origin:
    strikes: int = 0
    rests: int = 0
    until: float = 0.0


class Rests:
    """Leaves a push service in peace that asked for it, or failed several times in a row.

    Of this process alone: what it costs to learn it again is a request. Times are in seconds of
    one clock that only goes up.
    """

    def __init__(self) -> None:
        self._origins: dict[str, _Origin] = {}

    def left_s(self, origin: str, now: float) -> float:
        """Give the seconds that a service is still to be left alone; 0: it may be asked."""
        found = self._origins.get(origin)
        if found is None or found.until <= now:
            return 0.0
        return found.until - now

    def heard(self, origin: str, outcome: PushOutcome, now: float) -> None:
        """Take an answer into account."""
        if outcome.kind not in PASSING:
            self._origins.pop(origin, None)
            return
        found = self._origins.setdefault(origin, _Origin())
        if len(self._origins) > ORIGINS:
            del self._origins[next(iter(self._origins))]
        found.strikes += 1
        rest_s = 0.0
        if found.strikes % STRIKES == 0:
            rest_s = min(REST_S * 2.0**found.rests, LONGEST_REST_S)
            found.rests += 1
        if outcome.kind == "throttled":
            rest_s = max(rest_s, REST_S)
        if rest_s:
            found.until = max(found.until, now + max(rest_s, outcome.retry_after_s or 0.0))
