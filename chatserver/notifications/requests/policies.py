"""What becomes of a request: a delivery per recipient and channel; and what follows a try."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

from chatserver.deliveries.models import Claim, Sent
from chatserver.deliveries.policies import LONGEST_RETRY_AFTER, Verdict, jittered
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import NOBODY
from chatserver.notifications.requests.schemas import (
    Recipient,
    SendNotification,
    span_s,
)

# The rows' channels: a notification's webhooks go to any address, an endpoint's to its own.
SOCKET, EMAIL, FORWARD = "socket", "email", "forward"
SHOWN: Final = {FORWARD: "webhook"}
PRIORITIES: Final = {"critical": 0, "transactional": 1, "bulk": 2}
LIFETIMES: Final = {
    "critical": timedelta(minutes=10),
    "transactional": timedelta(hours=48),
    "bulk": timedelta(hours=48),
}
LONGEST_LIFE: Final = timedelta(days=30)
LONGEST_WAIT: Final = timedelta(days=365)
# Seconds before each try. Whoever waits for a code does not wait for half an hour.
MAIL_SCHEDULE: Final = (0.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 10_800.0, 28_800.0, 86_400.0)
CRITICAL_SCHEDULE: Final = (0.0, 2.0, 5.0, 15.0, 45.0, 90.0, 120.0, 120.0, 120.0)
CRITICAL_LIFE_S: Final = 900.0
# A mail that may have arrived is sent once more, under the same Message-ID.
AGAIN_S: Final = 120.0
_NAMESPACE: Final = UUID("6f1d3a52-5c0e-5b0e-9b57-2f0c6d9a1c11")


@dataclass(slots=True, kw_only=True)
class Draft:
    """A delivery that is to be made."""

    id: UUID = field(default_factory=uuid7)
    channel: str
    position: int
    recipient: Recipient
    address: str | None = None
    state: str = "queued"
    reason: str | None = None
    target_id: UUID = NOBODY
    route: list[UUID] = field(default_factory=list)
    next_at: datetime
    unless: str | None = None
    instead_of: UUID | None = None

    @property
    def person(self) -> str | None:
        return self.recipient.user_id

    @property
    def is_settled(self) -> bool:
        return self.state in ("accepted", "suppressed", "failed")


def plan(
    command: SendNotification,
    *,
    client_id: UUID,
    now: datetime,
    routes: Mapping[str, Sequence[UUID]],
) -> list[Draft]:
    """Plan a request's deliveries. `routes`: the providers of each channel, in their order."""
    starts_at = max(now, command.scheduled_at or now)
    drafts: list[Draft] = []
    seen: set[tuple[str, str]] = set()
    for position, recipient in enumerate(command.recipients):
        own = [
            _draft(channel, position, recipient, client_id, starts_at, routes)
            for channel in command.channels.said()
        ]
        # Who is named twice is told once.
        own = [each for each in own if (each.channel, each.address or str(position)) not in seen]
        seen.update((each.channel, each.address or str(position)) for each in own)
        _fall_back(command, own, starts_at)
        drafts += own
    for draft in drafts:
        if draft.state == "queued" and draft.next_at > now:
            draft.state = "scheduled"
    return drafts


def _fall_back(command: SendNotification, own: Sequence[Draft], starts_at: datetime) -> None:
    """Let the channels that are only a fallback wait for the others of the same recipient."""
    later = {FORWARD if it.channel == "webhook" else it.channel: it for it in command.fallback}
    first = [draft for draft in own if draft.channel not in later]
    can_be_reached = any(not draft.is_settled for draft in first)
    for draft in own:
        asked = later.get(draft.channel)
        if asked is None or draft.is_settled:
            continue
        draft.state, draft.unless = "scheduled", asked.unless
        draft.instead_of = first[0].id if first else None
        # Who can't be reached otherwise is reached this way at once.
        if can_be_reached:
            draft.next_at = starts_at + timedelta(seconds=span_s(asked.after))


def _draft(
    channel: str,
    position: int,
    recipient: Recipient,
    client_id: UUID,
    next_at: datetime,
    routes: Mapping[str, Sequence[UUID]],
) -> Draft:
    address = {
        "socket": recipient.user_id,
        "email": recipient.email,
        "webhook": recipient.url,
        "sms": recipient.phone,
    }.get(channel)
    row_channel = FORWARD if channel == "webhook" else channel
    draft = Draft(
        channel=row_channel,
        position=position,
        recipient=recipient,
        address=address,
        next_at=next_at,
    )
    if address is None:
        draft.state, draft.reason = "suppressed", "no_address"
    elif channel == "socket":
        draft.target_id = own_target(client_id, SOCKET)
    elif channel == "webhook":
        draft.target_id = own_target(client_id, address)
    elif routes.get(channel):
        draft.route = list(routes[channel])
        draft.target_id = draft.route[0]
    else:
        draft.state, draft.reason = "failed", "no_provider"
    return draft


def let_wait(drafts: Sequence[Draft], instead_of: UUID) -> None:
    """Let deliveries go out only if what stands in somebody's inbox is not read by then."""
    for draft in drafts:
        if not draft.is_settled:
            draft.unless, draft.instead_of = "read", instead_of


def deadline(command: SendNotification, now: datetime) -> datetime:
    """Give when a request's deliveries are of no use any more.

    Raises:
        PayloadInvalidError: the times don't fit.
    """
    starts_at = max(now, command.scheduled_at or now)
    if starts_at > now + LONGEST_WAIT:
        raise PayloadInvalidError.of("scheduled_at", "must be within a year")
    if command.expires_at is None:
        return starts_at + LIFETIMES[command.priority]
    if command.expires_at <= starts_at:
        raise PayloadInvalidError.of("expires_at", "must be later than now and scheduled_at")
    if command.expires_at > starts_at + LONGEST_LIFE:
        raise PayloadInvalidError.of("expires_at", "must be within 30 days of its start")
    return command.expires_at


def own_target(client_id: UUID, name: str) -> UUID:
    """Name what keeps the health of a thing that is no provider: an address, the own sockets."""
    return uuid5(_NAMESPACE, f"{client_id}:{name}")


def address_hash(client_id: UUID, address: str) -> bytes:
    """Name an address without saying it; each client's names are its own."""
    return hashlib.sha256(b"address|" + client_id.bytes + address.lower().encode()).digest()


def judge(claim: Claim, sent: Sent, *, spread: float) -> Verdict:
    """Decide what follows a try of a notification's delivery; `spread` (0 to 1) is the jitter."""
    ended = _ended(claim, sent)
    if ended is not None:
        return ended
    schedule = MAIL_SCHEDULE
    if claim.age_s + claim.left_s <= CRITICAL_LIFE_S:
        schedule = CRITICAL_SCHEDULE
    done = claim.attempts + 1
    if done >= len(schedule):
        return Verdict("failed", "exhausted")
    delay_s = jittered(schedule[done], spread)
    if sent.retry_after_s is not None:
        delay_s = max(delay_s, min(sent.retry_after_s, LONGEST_RETRY_AFTER))
    if delay_s >= claim.left_s:
        return Verdict("expired", "deadline")
    return Verdict("retry_wait", sent.error, delay_s)


def _ended(claim: Claim, sent: Sent) -> Verdict | None:
    if sent.outcome == "accepted":
        # `delivered` where the answer itself is the proof; mail servers only promise.
        return Verdict(sent.error or "accepted")
    if sent.outcome == "skipped":
        return Verdict("cancelled", sent.error, counts=False)
    if sent.outcome in ("bounced", "rejected", "gone"):
        return Verdict("bounced" if sent.outcome == "bounced" else "failed", sent.error)
    if sent.outcome != "unknown":
        return None
    if claim.attempts:
        return Verdict("failed", "unknown_outcome")
    return Verdict("retry_wait", "unknown_outcome", AGAIN_S)
