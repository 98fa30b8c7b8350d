"""Slugs from names, and handles of tokens. Pure."""

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Iterator
from typing import Final
from uuid import UUID

_ROOM: Final = 48  # leaves room for what is appended when the slug is taken
_OTHERS: Final = re.compile(r"[^a-z0-9]+")
_NAMELESS: Final = "client"
_HEX: Final = 32  # characters of an id


def slug_candidates(name: str) -> Iterator[str]:
    """Give slugs for a name: the plain one first, then ones that are less and less likely taken."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    base = _OTHERS.sub("-", plain).strip("-")[:_ROOM].strip("-") or _NAMELESS
    yield base
    for number in range(2, 10):
        yield f"{base}-{number}"
    while True:
        yield f"{base}-{secrets.token_hex(4)}"


def token_handle(issuer: str, jti: str) -> bytes:
    """Name one token of an issuer: whoever has the token can tell it, and no other has the same."""
    named = issuer.encode()
    return hashlib.sha256(b"%d|%b|%b" % (len(named), named, jti.encode())).digest()


def token_name(client_id: UUID, handle: bytes) -> str:
    """Name a token among all clients': what an open connection and a closing know it by."""
    return client_id.hex + handle.hex()


def token_of(name: str) -> tuple[UUID, bytes]:
    """Take a token's name apart."""
    return UUID(name[:_HEX]), bytes.fromhex(name[_HEX:])
