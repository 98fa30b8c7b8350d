"""What a provider's event means for its delivery, and for the address."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chatserver.infra.mailgun_events import MailEvent

# Mailgun goes on for 8 hours with the signature of the first try.
OLDEST_S: Final = 10 * 3600.0
NEWEST_S: Final = 300.0

_TAKEN: Final = ("accepted", "delivered")
# What was not known to have been taken, was given up, or waits to be repeated.
_UNKNOWN: Final = ("queued", "retry_wait", "failed", "expired")


@dataclass(frozen=True, slots=True)
class Effect:
    """`state` None: nothing changes; else what is in one of `over`, for events come late."""

    state: str | None = None
    reason: str | None = None
    over: Sequence[str] = ()
    # Why the address gets nothing more, if that follows: of soft bounces, from several.
    suppress: str | None = None


def effect_of(event: MailEvent) -> Effect:
    """Rank: complained, bounced, delivered, accepted; the rest is only written down."""
    if event.kind == "delivered":
        return Effect("delivered", None, ("accepted", *_UNKNOWN))
    if event.kind == "bounced":
        reason = f"bounced_{event.code}" if event.code else "bounced"
        suppress = "hard_bounce" if event.is_hard else "soft_bounce" if event.is_soft else None
        return Effect("bounced", reason, (*_TAKEN, *_UNKNOWN), suppress)
    if event.kind == "complained":
        # Whoever complains has got it; the contract has no state of its own for that.
        return Effect("delivered", "complained", (*_TAKEN, *_UNKNOWN), "complaint")
    if event.kind == "unsubscribed":
        return Effect(suppress="unsubscribe")
    return Effect()
