"""Signatures that others can check: Ed25519 under keys that follow from the ring of secrets."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature and the public key that it is checked with, both raw."""

    value: bytes
    public_key: bytes


class ReportSigner:
    """Signs with the newest key; knows the public keys of the whole ring."""

    def __init__(self, keys: Sequence[str]) -> None:
        pairs = [Ed25519PrivateKey.from_private_bytes(_seed(key)) for key in keys]
        self._newest = pairs[0]
        self.public_keys = [pair.public_key().public_bytes_raw() for pair in pairs]

    def sign(self, content: bytes) -> Signed:
        return Signed(self._newest.sign(content), self.public_keys[0])

    def __repr__(self) -> str:
        return f"ReportSigner({len(self.public_keys)} keys)"


def is_signed(content: bytes, signed: Signed) -> bool:
    """Tell whether a signature is right. Whose key it is, the caller must know."""
    try:
        key = Ed25519PublicKey.from_public_bytes(signed.public_key)
        key.verify(signed.value, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _seed(key: str) -> bytes:
    return hashlib.sha256(b"erasure report|" + key.encode()).digest()
