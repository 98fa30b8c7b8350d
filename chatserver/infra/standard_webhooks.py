"""Standard Webhooks, scheme `v1`: HMAC-SHA256 over `id.timestamp.body`, under one or more secrets.

Our own sixty lines: the public library takes one secret, text bodies only, and the wall clock.
Tests hold it against that library.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

PREFIX: Final = "whsec_"
# What the specification asks of a secret, in bytes.
SHORTEST: Final = 24
LONGEST: Final = 64
_NEW: Final = 32
_SCHEME: Final = "v1,"
# More than any sender has in rotation; whoever sends more only wants us to compute.
MOST_SIGNATURES: Final = 16


def new_secret() -> str:
    """Mint a secret as receivers' libraries take it: `whsec_` and 32 random bytes in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_NEW)).decode()


def key_of(secret: str) -> bytes:
    """Give the bytes of a secret.

    Raises:
        ValueError: it is not base64, or not 24 to 64 bytes long. The secret is not quoted.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("must be whsec_ and base64") from None
    if not SHORTEST <= len(key) <= LONGEST:
        raise ValueError(f"must hold {SHORTEST} to {LONGEST} bytes")
    return key


def sign(
    keys: Sequence[bytes],
    *,
    id: str,  # noqa: A002 - the header's own name
    timestamp: int,
    body: bytes,
) -> str:
    """Give the value of `webhook-signature`: one signature per key, separated by spaces."""
    return " ".join(_SCHEME + _of(key, id, timestamp, body) for key in keys)


def verify(
    keys: Sequence[bytes],
    *,
    id: str,  # noqa: A002 - the header's own name
    timestamp: int,
    body: bytes,
    signatures: str,
) -> bool:
    """Tell whether one of the signatures is by one of the keys; whether it is fresh is not asked.

    Takes the same time wherever they differ. Signatures of other schemes are passed over.
    """
    given = [
        each.removeprefix(_SCHEME).encode("utf-8", "replace")
        for each in signatures.split(" ")[:MOST_SIGNATURES]
        if each.startswith(_SCHEME)
    ]
    expected = [_of(key, id, timestamp, body).encode() for key in keys]
    # All of them are compared: which key it was must not show either.
    same = [hmac.compare_digest(one, other) for one in expected for other in given]
    return any(same)


def _of(key: bytes, id: str, timestamp: int, body: bytes) -> str:  # noqa: A002
    signed = b"%s.%d.%s" % (id.encode("utf-8", "replace"), timestamp, body)
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
