"""Pure decisions: which texts are the same address, what may be shown of one, what is wanted."""

import re
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Final

ALL: Final = "*"
# An urgent message reaches whoever complained of another, but nobody whose address is dead.
ALWAYS_BLOCK: Final = frozenset({"hard_bounce", "invalid"})
# So many mails that an address did not take within so many days rest it for a week.
SOFT_BOUNCES: Final = 5
SOFT_DAYS: Final = 14
SOFT_REST: Final = timedelta(days=7)
# What is found out by itself takes the place of what says less, never of what somebody wrote down.
_WEAKER: Final[Mapping[str, Collection[str]]] = {
    "soft_bounce": ("soft_bounce",),
    "complaint": ("soft_bounce", "complaint"),
    "hard_bounce": ("soft_bounce", "complaint", "unsubscribe", "manual", "hard_bounce"),
}


def canonical(channel: str, address: str) -> str:
    """Write an address the one way by which it is compared."""
    if channel == "email":
        # Nobody has two mailboxes that differ in case only; some have one written both ways.
        return address.lower()
    if channel == "sms":
        return re.sub(r"[^0-9+]", "", address)
    return address


def hint(address: str) -> str:
    """Give what may be shown of an address: its first letter, and its domain."""
    local, at, domain = address.rpartition("@")
    if at:
        return f"{local[:1]}…@{domain}"[:64]
    return f"{address[:2]}…{address[-2:]}" if len(address) > 8 else "…"  # noqa: PLR2004 - else it is all


def wants(preferences: Mapping[str, Mapping[str, bool]], *, category: str, channel: str) -> bool:
    """Tell whether a person wants a category on a channel."""
    for name in (category, ALL):
        found = preferences.get(name, {}).get(channel)
        if found is not None:
            return found
    return True


def replaced_by(reason: str) -> Collection[str]:
    """Give the reasons for which an address may be suppressed already, and this one counts more."""
    return _WEAKER.get(reason, (reason,))


def blocks(*, scope: str, reason: str, category: str, priority: str) -> bool:
    """Tell whether a suppression of an address concerns a notification."""
    if scope != "all":
        return scope == f"category:{category}" and priority != "critical"
    return priority != "critical" or reason in ALWAYS_BLOCK
