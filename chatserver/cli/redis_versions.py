"""Which Redis and Valkey may be trusted with scripts."""

import re
from typing import Final

# The first version of each branch in which CVE-2025-49844 and its neighbours are mended.
_MENDED: Final = {
    "redis": ((6, 2, 20), (7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)),
    "valkey": ((7, 2, 11), (8, 0, 6), (8, 1, 4)),
}
# What we need at least; 7.2 is what Valkey calls itself to clients of Redis.
_OLDEST: Final = {"redis": (7, 0), "valkey": (7, 2)}


def is_patched(product: str, version: str) -> bool:
    """Tell whether a Redis or Valkey has the mends of October 2025 to its Lua.

    Whoever may run scripts in one that hasn't can run anything on its machine (CVE-2025-49844), and
    the limits are scripts. Of a branch that is not listed, newer ones have them, older ones not.
    """
    numbers = _numbers(version)
    fixed = next((it for it in _MENDED[product] if it[:2] == numbers[:2]), None)
    return numbers >= fixed if fixed is not None else numbers > max(_MENDED[product])


def is_new_enough(product: str, version: str) -> bool:
    """Tell whether it has all the commands that we use."""
    return _numbers(version)[:2] >= _OLDEST[product]


def mended(product: str) -> str:
    """Name the versions that have the mends."""
    return ", ".join(".".join(map(str, it)) for it in _MENDED[product])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
