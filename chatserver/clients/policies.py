"""Slugs from names. Pure."""

import re
import secrets
import unicodedata
from collections.abc import Iterator
from typing import Final

_ROOM: Final = 48  # leaves room for what is appended when the slug is taken
_OTHERS: Final = re.compile(r"[^a-z0-9]+")
_NAMELESS: Final = "client"


def slug_candidates(name: str) -> Iterator[str]:
    """Give slugs for a name: the plain one first, then ones that are less and less likely taken."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    base = _OTHERS.sub("-", plain).strip("-")[:_ROOM].strip("-") or _NAMELESS
    yield base
    for number in range(2, 10):
        yield f"{base}-{number}"
    while True:
        yield f"{base}-{secrets.token_hex(4)}"
