"""What becomes of a request: a delivery per recipient and channel; and what follows a try."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

from chatserver.deliveries.models import Claim, Sent
from chatserver.deliveries.policies import LONGEST_RETRY_AFTER, Verdict, jittered
from chatserver.deliveries.queue import AGAIN_S
from chatserver.files.errors import FileNotFoundInStoreError, FileNotReadyError
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import NOBODY
from chatserver.notifications.requests.ports import KeptFile
from chatserver.notifications.requests.schemas import (
    MOST_ATTACHED_BYTES,
    EmailAttachment,
    LimitOut,
    NotificationDeliveryOut,
    Planned,
    Recipient,
    SendNotification,
    SentNotification,
    span_s,
)

# The rows' channels: a notification's webhooks go to any address, an endpoint's to its own.
SOCKET, EMAIL, FORWARD, PUSH, SMS = "socket", "email", "forward", "push", "sms"
# What goes by providers, of which one may stand in for another.
ROUTED: Final = frozenset({EMAIL, SMS})
# Kinds of devices that have an adapter.
PUSHED: Final = frozenset({"web_push"})
SHOWN: Final = {FORWARD: "webhook"}
# What has no category of its own.
GENERAL: Final = "general"
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
# Whose address is the person's own name.
BY_NAME: Final = frozenset({SOCKET, PUSH})
# Channels without providers: how much of a client's goes out at once, for each worker process.
AT_ONCE: Final = {SOCKET: 4, FORWARD: 4, PUSH: 32}
ADDRESSES: Final = {EMAIL: "email", FORWARD: "url", "sms": "phone"}
# Why a mail waits or has failed that may have arrived.
UNKNOWN: Final = "unknown_outcome"
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
    devices: Mapping[str, Collection[str]],
) -> list[Draft]:
    """Plan a request's deliveries.

    `routes`: the providers of each channel, in their order; `devices`: what kinds of them people
    have, by external id.
    """
    starts_at = max(now, command.scheduled_at or now)
    drafts: list[Draft] = []
    seen: set[tuple[str, str]] = set()
    for position, recipient in enumerate(command.recipients):
        own = [
            _draft(
                channel,
                position,
                recipient,
                _address(channel, recipient, devices),
                client_id=client_id,
                next_at=starts_at,
                route=routes.get(channel, ()),
                has_adapter=not PUSHED.isdisjoint(devices.get(recipient.user_id or "", ())),
            )
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


def _address(
    channel: str, recipient: Recipient, devices: Mapping[str, Collection[str]]
) -> str | None:
    if channel == PUSH:
        return recipient.user_id if devices.get(recipient.user_id or "") else None
    return {
        "socket": recipient.user_id,
        "email": recipient.email,
        "webhook": recipient.url,
        "sms": recipient.phone,
    }.get(channel)


def _draft(
    channel: str,
    position: int,
    recipient: Recipient,
    address: str | None,
    *,
    client_id: UUID,
    next_at: datetime,
    route: Sequence[UUID],
    has_adapter: bool,
) -> Draft:
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
    elif channel == PUSH and has_adapter:
        draft.target_id = own_target(client_id, PUSH)
    elif route:
        draft.route = list(route)
        draft.target_id = draft.route[0]
    else:
        draft.state, draft.reason = "failed", "no_provider"
    return draft


def let_wait(drafts: Sequence[Draft], instead_of: UUID) -> None:
    """Let deliveries go out only if what stands in somebody's inbox is not read by then."""
    for draft in drafts:
        if not draft.is_settled:
            draft.unless, draft.instead_of = "read", instead_of


def deadline_of(command: SendNotification, now: datetime) -> datetime:
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


def check_attachments(asked: Sequence[EmailAttachment], found: Mapping[UUID, KeptFile]) -> None:
    """Refuse what can't be attached to a mail: files that are not there, not ready, too much.

    Raises:
        FileNotFoundInStoreError, FileNotReadyError, PayloadInvalidError: they name the place.
    """
    size = 0
    for place, each in enumerate(asked):
        field_name = f"channels.email.attachments.{place}.file_id"
        file = found.get(each.file_id)
        if file is None:
            raise FileNotFoundInStoreError(
                issues=({"field": field_name, "issue": "is no file of yours"},)
            )
        if file.state != "ready":
            raise FileNotReadyError(
                issues=({"field": field_name, "issue": f"is {file.state}"},), state=file.state
            )
        size += file.size
        if size > MOST_ATTACHED_BYTES:
            limit = f"{MOST_ATTACHED_BYTES // 2**20} MiB"
            raise PayloadInvalidError.of(field_name, f"makes it more than {limit} in all")


def own_target(client_id: UUID, name: str) -> UUID:
    """Name what keeps the health of a thing that is no provider: an address, the own sockets."""
    return uuid5(_NAMESPACE, f"{client_id}:{name}")


def judge(claim: Claim, sent: Sent, *, spread: float) -> Verdict:
    """Decide what follows a try of a notification's delivery; `spread` (0 to 1) is the jitter."""
    verdict = _judge(claim, sent, spread=spread)
    if sent.is_partly_done and verdict.state in ("failed", "expired"):
        # It has reached one of several devices.
        return Verdict("accepted")
    return verdict


def _judge(claim: Claim, sent: Sent, *, spread: float) -> Verdict:
    if sent.outcome == "waiting":
        # Nobody was asked: whoever would be wants to be left alone.
        delay_s = jittered(sent.retry_after_s or MAIL_SCHEDULE[1], spread)
        if delay_s >= claim.left_s:
            return Verdict("expired", "deadline")
        return Verdict("retry_wait", sent.error, delay_s, counts=False)
    ended = _ended(sent)
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


def cut_short(_: Claim, __: object) -> Verdict:
    """Decide the same of a text: it may have been taken, and a second one would cost."""
    return Verdict("failed", "unknown_outcome")


_ENDS: Final = {
    "bounced": "bounced",
    "unreachable": "suppressed",
    "rejected": "failed",
    "gone": "failed",
}


def _ended(sent: Sent) -> Verdict | None:
    if sent.outcome == "accepted":
        # `delivered` where the answer itself is the proof; mail servers only promise.
        return Verdict("delivered" if sent.error == "delivered" else "accepted")
    if sent.outcome == "skipped":
        return Verdict("cancelled", sent.error, counts=False)
    if sent.outcome in _ENDS:
        return Verdict(_ENDS[sent.outcome], sent.error)
    if sent.outcome != "unknown":
        return None
    return Verdict("retry_wait", UNKNOWN, AGAIN_S)


def planned(shown: NotificationDeliveryOut) -> Planned:
    """Show a delivery as the answer to its request does."""
    return Planned(
        id=shown.id,
        channel=shown.channel,
        recipient=shown.recipient,
        state=shown.state,
        reason=shown.reason,
    )


def sent_of(
    notification_id: UUID,
    drafts: Sequence[Draft],
    limits: Sequence[LimitOut],
    *,
    expires_at: datetime,
    dry_run: bool | None = None,
) -> SentNotification:
    """Write the answer to a request."""
    return SentNotification(
        id=notification_id,
        deliveries=[
            Planned(
                id=draft.id,
                channel=SHOWN.get(draft.channel, draft.channel),
                recipient={
                    name: value
                    for name, value in (
                        ("user_id", draft.person),
                        (ADDRESSES.get(draft.channel, ""), draft.address),
                    )
                    if name and value is not None
                },
                state=draft.state,
                reason=draft.reason,
            )
            for draft in drafts
        ],
        limits=list(limits),
        expires_at=expires_at,
        dry_run=dry_run,
    )
