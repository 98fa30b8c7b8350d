"""Mailgun's events: what happened to mails after it took them, and whether it says so."""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

SHOWN: Final = 500

EventKind: TypeAlias = Literal[
    "delivered", "deferred", "bounced", "complained", "opened", "clicked", "unsubscribed"
]
# `accepted` says what the answer said already; `rejected` comes for what Mailgun itself refuses.
_EVENTS: Final[Mapping[str, EventKind]] = {
    "delivered": "delivered",
    "complained": "complained",
    "opened": "opened",
    "clicked": "clicked",
    "unsubscribed": "unsubscribed",
    "rejected": "bounced",
}
# What Mailgun calls an address that does not exist, or that it has learnt is none.
_HARD: Final = frozenset({"bounce", "suppress-bounce"})
# What says more of the sender, or of the text, than of the address.
_NOT_THE_ADDRESS: Final = frozenset(
    {"espblock", "blacklisted", "greylisted", "suppress-complaint", "suppress-unsubscribe"}
)
_ENHANCED: Final = re.compile(r"\b[245]\.\d{1,3}\.\d{1,3}\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class MailEvent:
    """What happened to a mail after it was handed over.

    `id` is Mailgun's own: an event may come more than once. `delivery_id` is what we gave it along.
    """

    id: str
    kind: EventKind
    at: datetime
    recipient: str
    message_id: str | None
    delivery_id: str | None
    reason: str = ""
    # The enhanced status code, where there is one; `is_hard`: the address itself is dead;
    # `is_soft`: it lives, as far as is known, and did not take this mail.
    code: str | None = None
    is_hard: bool = False
    is_soft: bool = False


def read_event(data: Any, *, accepted: bool = False) -> MailEvent | None:  # noqa: ANN401 - a stranger's JSON
    """Read one event, as webhooks have it in `event-data` and the API in `items`.

    None: it is malformed, or of a kind that tells us nothing. `accepted`: that kind tells something
    to whoever asks whether a mail arrived at all, and is read as `deferred`.
    """
    if not isinstance(data, dict):
        return None
    kind = _kind(data, accepted=accepted)
    event_id, recipient, stamp = data.get("id"), data.get("recipient"), data.get("timestamp")
    if kind is None or not isinstance(event_id, str) or not isinstance(recipient, str):
        return None
    if isinstance(stamp, bool) or not isinstance(stamp, int | float) or not 0 < stamp < 1e11:  # noqa: PLR2004
        return None
    message, variables = data.get("message"), data.get("user-variables")
    headers = message.get("headers") if isinstance(message, dict) else None
    status = data.get("delivery-status")
    word = data.get("reason")
    reason, code = word or "", None
    if isinstance(status, dict):
        reason = status.get("message") or status.get("description") or reason
        code = _text(status, "enhanced-code")
    found = _ENHANCED.search(code or str(reason))
    code = None if found is None else found.group()
    is_hard = kind == "bounced" and (word in _HARD or (code or "").startswith("5.1."))
    return MailEvent(
        id=event_id[:200],
        kind=kind,
        at=datetime.fromtimestamp(stamp, UTC),
        recipient=recipient[:320],
        message_id=_text(headers, "message-id"),
        delivery_id=_text(variables, "delivery_id"),
        reason=str(reason)[:SHOWN],
        code=code,
        is_hard=is_hard,
        is_soft=kind == "bounced"
        and not is_hard
        and data.get("event") != "rejected"
        and word not in _NOT_THE_ADDRESS
        and not (code or "").startswith(("4.7.", "5.7.")),
    )


def is_signed(signature: Any, key: str) -> bool:  # noqa: ANN401 - a stranger's JSON
    """Tell whether the block `signature` of a webhook was made with the domain's signing key.

    It covers a time and a token, and nothing of the event itself: a token is good for one event.
    """
    given = [_text(signature, name) for name in ("timestamp", "token", "signature")]
    stamp, token, mac = ((each or "").encode() for each in given)
    expected = hmac.new(key.encode(), stamp + token, "sha256").hexdigest()
    return bool(stamp and token) and hmac.compare_digest(expected.encode(), mac)


def _kind(data: dict[str, Any], *, accepted: bool) -> EventKind | None:
    name = data.get("event")
    if name == "failed":
        return "bounced" if data.get("severity") == "permanent" else "deferred"
    if name == "accepted" and accepted:
        return "deferred"
    return _EVENTS.get(name) if isinstance(name, str) else None


def _text(members: object, name: str) -> str | None:
    value = members.get(name) if isinstance(members, dict) else None
    return value[:SHOWN] if isinstance(value, str) else None
