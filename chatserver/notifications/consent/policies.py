"""Pure decisions: which texts are the same address, what may be shown of one, what is wanted."""

import re
from collections.abc import Mapping
from typing import Final

ALL: Final = "*"
# An urgent message reaches whoever complained of another, but nobody whose address is dead.
ALWAYS_BLOCK: Final = frozenset({"hard_bounce", "invalid"})


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


def blocks(*, scope: str, reason: str, category: str, priority: str) -> bool:
    """Tell whether a suppression of an address concerns a notification."""
    if scope != "all":
        return scope == f"category:{category}" and priority != "critical"
    return priority != "critical" or reason in ALWAYS_BLOCK
