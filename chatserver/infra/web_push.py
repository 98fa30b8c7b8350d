"""Web push: contents that one browser alone can read (RFC 8291), in requests signed by us (8292).

A push service (RFC 8030) takes what it is given and keeps it until the browser is there or its time
is up. It sees whom, when and how much, never what.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chatserver.infra.expiring import Expiring
from chatserver.kernel.clock import Clock

Urgency: TypeAlias = Literal["high", "normal", "low"]
Kind: TypeAlias = Literal["accepted", "gone", "throttled", "retryable", "rejected"]

# A push service must take 4,096 bytes (RFC 8030); sealing needs 103 of them.
MOST_PAYLOAD: Final = 4096 - 86 - 17
LONGEST_TTL_S: Final = 28 * 86_400
_RECORD: Final = 4096
_SALT: Final = 16
_SCALAR: Final = 32
# A token may hold for a day; we make a new one long before that.
TOKEN_S: Final = 12 * 3600
TOKEN_KEPT_S: Final = 6 * 3600
ORIGINS: Final = 1000
_CURVE: Final = ec.SECP256R1()


@dataclass(frozen=True, slots=True)
class Subscription:
    """Where a browser is reached, its public key, and the secret that it shares with us."""

    endpoint: str
    p256dh: bytes
    auth: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PushMessage:
    """What is pushed. One with the same `topic` takes the place of one that still waits."""

    payload: bytes
    ttl_s: int
    urgency: Urgency
    topic: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PushOutcome:
    """What became of one try at one subscription; `gone`: it will never be good for anything."""

    kind: Kind
    error: str | None = None
    status: int | None = None
    retry_after_s: float | None = None
    peer: str | None = None


class VapidKey:
    """The key by which push services know us; browsers subscribe to its public half."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self.private = private
        self.public = text_of(point_of(private.public_key()))

    @classmethod
    def new(cls) -> Self:
        return cls(ec.generate_private_key(_CURVE))

    @classmethod
    def from_bytes(cls, scalar: bytes) -> Self:
        return cls(ec.derive_private_key(int.from_bytes(scalar), _CURVE))

    def to_bytes(self) -> bytes:
        return self.private.private_numbers().private_value.to_bytes(_SCALAR)

    def __repr__(self) -> str:
        return f"VapidKey({self.public})"


class Vapid:
    """Signs requests: one token for each push service, used again for hours.

    `contact` is where its operator finds us: `mailto:` or `https:`.
    """

    def __init__(self, key: VapidKey, contact: str, *, clock: Clock) -> None:
        self._key = key
        self._contact = contact
        self._clock = clock
        self._headers: Expiring[str, str] = Expiring(size=ORIGINS, ttl_s=TOKEN_KEPT_S)

    def authorization(self, endpoint: str) -> str:
        """Give the `Authorization` for whoever serves an endpoint."""
        parts = urlsplit(endpoint)
        origin = f"{parts.scheme}://{parts.netloc}"
        header = self._headers.get(origin)
        if header is None:
            ends_at = int(self._clock().timestamp()) + TOKEN_S
            claims = {"aud": origin, "exp": ends_at, "sub": self._contact}
            token = jwt.encode(claims, self._key.private, algorithm="ES256")
            header = f"vapid t={token}, k={self._key.public}"
            self._headers.put(origin, header)
        return header


def encrypt(
    content: bytes,
    *,
    p256dh: bytes,
    auth: bytes,
    salt: bytes | None = None,
    own: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """Seal a content for one browser, as a single record of `aes128gcm`.

    `salt` and `own` are fresh unless a test vector has them.

    Raises:
        ValueError: `p256dh` is no point of P-256.
    """
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, p256dh)
    own = own or ec.generate_private_key(_CURVE)
    salt = salt or secrets.token_bytes(_SALT)
    point = point_of(own.public_key())
    shared = own.exchange(ec.ECDH(), theirs)
    both = _derived(auth, shared, b"WebPush: info\0" + p256dh + point, 32)
    key = _derived(salt, both, b"Content-Encoding: aes128gcm\0", 16)
    nonce = _derived(salt, both, b"Content-Encoding: nonce\0", 12)
    sealed = AESGCM(key).encrypt(nonce, content + b"\x02", None)
    return salt + _RECORD.to_bytes(4) + bytes([len(point)]) + point + sealed


def topic_of(name: str) -> str:
    """Make a `Topic` (at most 32 characters of base64url) that tells nothing of the name."""
    return text_of(hashlib.sha256(b"push topic|" + name.encode()).digest()[:24])


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def text_of(raw: bytes) -> str:
    """Write bytes as base64url without padding."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def bytes_of(text: str) -> bytes:
    """Read base64url, padded or not.

    Raises:
        ValueError: it is none.
    """
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def check_point(raw: bytes) -> None:
    """Check a public key.

    Raises:
        ValueError: it is no point of P-256.
    """
    ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, raw)


def _derived(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 (RFC 5869) of at most one block."""
    return hmac.digest(hmac.digest(salt, secret, "sha256"), info + b"\x01", "sha256")[:length]
