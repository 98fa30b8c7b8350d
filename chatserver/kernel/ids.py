"""Identifiers: UUIDv7 (RFC 9562, section 5.7) for everything that has one."""

import os
import time
from uuid import UUID

_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62


def uuid7() -> UUID:
    """Return a new UUIDv7: 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    high = (milliseconds & (1 << 48) - 1) << 80 | _VERSION | (random >> 68) << 64
    return UUID(int=high | _VARIANT | random & (1 << 62) - 1)
