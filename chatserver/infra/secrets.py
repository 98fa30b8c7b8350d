"""Keys that callers present, and credentials that we keep: their format, their MAC, their seal.

A scoped key is `csu_<kid16>_<gen>_<secret43><crc6>`, a master key `csm_<kid16>_<secret43><crc6>`,
both in base62. The `kid` is public and is what a key is looked up by; the CRC rejects typing errors
before any query and authenticates nothing; the secret is 256 random bits.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MASTER: Final = "csm_"
SCOPED: Final = "csu_"
MAX_LENGTH: Final = 128

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
_KID_LENGTH: Final = 16
_SECRET_LENGTH: Final = 43
_SECRET_BYTES: Final = 32
_CRC_LENGTH: Final = 6
_BARE_MAC: Final = 32
_SHAPE: Final = re.compile(
    r"(?:csm_([0-9A-Za-z]{16})|csu_([0-9A-Za-z]{16})_([1-9][0-9]{0,8}))"
    r"_([0-9A-Za-z]{43})([0-9A-Za-z]{6})"
)

# A sealed value: version, name of the key, nonce, ciphertext with its tag.
_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_NAME_BYTES: Final = 4
_HEAD: Final = len(_VERSION) + _NAME_BYTES
_BODY: Final = _HEAD + _NONCE_BYTES


@dataclass(frozen=True, slots=True)
class Key:
    """A key, taken apart. A master key has generation 0."""

    kid: str
    gen: int
    secret: str = field(repr=False)

    @property
    def is_master(self) -> bool:
        return self.gen == 0

    @property
    def text(self) -> str:
        """The key as callers present it: shown once, never kept."""
        if self.is_master:
            body = f"{MASTER}{self.kid}_{self.secret}"
        else:
            body = f"{SCOPED}{self.kid}_{self.gen}_{self.secret}"
        return body + _crc(body)


def new_master_key() -> Key:
    return Key(_kid(), 0, _secret())


def new_scoped_key(*, kid: str | None = None, gen: int = 1) -> Key:
    """Mint a scoped key: the first of a new family, or the generation `gen` of family `kid`."""
    return Key(kid or _kid(), gen, _secret())


def parse_key(text: str) -> Key | None:
    """Take a key apart; None when it can't be one. Touches nothing but the text."""
    if len(text) > MAX_LENGTH or not text.isascii():
        return None
    found = _SHAPE.fullmatch(text)
    if found is None or _crc(text[:-_CRC_LENGTH]) != text[-_CRC_LENGTH:]:
        return None
    master_kid, scoped_kid, gen, secret, _ = found.groups()
    return Key(master_kid or scoped_kid, int(gen or 0), secret)


class Mac(bytes):
    """A key's MAC under the newest pepper; `older` are those under the others, by their names."""

    kid: str
    older: dict[bytes, bytes]

    @classmethod
    def of(cls, kid: str, newest: bytes, older: dict[bytes, bytes]) -> "Mac":
        made = cls(newest)
        made.kid = kid
        made.older = older
        return made


class KeyHasher:
    """The MAC that keys are checked by: HMAC-SHA256 under a pepper that no database holds.

    There may be several peppers, the newest first: a MAC begins with the name of its own, and one
    of an older pepper still matches; `outdated` is then told (kid, old MAC, new MAC), so that the
    row can be given the new one, and must return at once.
    """

    def __init__(self, pepper: str | Sequence[str]) -> None:
        peppers = [pepper] if isinstance(pepper, str) else list(pepper)
        if not peppers:
            raise ValueError("There is no pepper.")
        self._peppers = {pepper_name(each): each.encode() for each in peppers}
        self._newest = pepper_name(peppers[0])
        self._nobody = self._mac(self._newest, b"v1|nobody")
        self.outdated: Callable[[str, bytes, bytes], None] | None = None

    @property
    def pepper_id(self) -> int:
        """The newest pepper's name as a number that fits a column."""
        return int.from_bytes(self._newest) >> 1

    @property
    def names(self) -> list[bytes]:
        """The names of all peppers, the newest first."""
        return [self._newest, *(name for name in self._peppers if name != self._newest)]

    def mac(self, key: Key) -> Mac:
        text = f"v1|{key.kid}|{key.gen}|{key.secret}".encode()
        macs = {name: self._mac(name, text) for name in self._peppers}
        newest = macs.pop(self._newest)
        return Mac.of(key.kid, newest, macs)

    def matches(self, mac: bytes, stored: bytes | None) -> bool:
        """Compare in constant time; nothing stored costs the same and never matches."""
        if stored is not None and isinstance(mac, Mac):
            if len(stored) == _BARE_MAC:
                # From before MACs named their pepper.
                return self._is_older(mac, stored, [mac[_NAME_BYTES:], *_bare(mac.older.values())])
            older = mac.older.get(stored[:_NAME_BYTES])
            if older is not None:
                return self._is_older(mac, stored, [older])
        return hmac.compare_digest(mac, stored or self._nobody) and stored is not None

    def _is_older(self, mac: Mac, stored: bytes, candidates: Sequence[bytes]) -> bool:
        is_same = any(hmac.compare_digest(each, stored) for each in candidates)
        if is_same and self.outdated is not None:
            self.outdated(mac.kid, stored, bytes(mac))
        return is_same

    def _mac(self, name: bytes, text: bytes) -> bytes:
        return name + hmac.digest(self._peppers[name], text, hashlib.sha256)

    def __repr__(self) -> str:
        return f"KeyHasher({len(self._peppers)} peppers)"


def _bare(macs: Iterable[bytes]) -> list[bytes]:
    return [mac[_NAME_BYTES:] for mac in macs]


def pepper_name(pepper: str) -> bytes:
    """Name a pepper without telling anything of it."""
    return hashlib.sha256(b"pepper name|" + pepper.encode()).digest()[:_NAME_BYTES]


class UnreadableSecretError(Exception):
    """A sealed value can't be opened: its key is not in the ring, or it was moved or altered."""


class SecretBox:
    """Seals what must be kept but not read: AES-256-GCM under a ring of keys, the newest first.

    Sealed values name their key, so that older ones stay readable while a new key seals. The
    associated data binds a value to its place (tenant, purpose): moved elsewhere it doesn't open.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("The key ring is empty.")
        if any(len(key) != _SECRET_BYTES for key in keys):
            raise ValueError(f"A key of the ring must have {_SECRET_BYTES} bytes.")
        self._ciphers = {_name(key): AESGCM(key) for key in reversed(keys)}
        self._newest = _name(keys[0])

    @classmethod
    def from_text(cls, keys: Sequence[str]) -> "SecretBox":
        """Take keys as settings hold them: random texts of any length, the newest first."""
        return cls([hashlib.sha256(b"secret box|" + key.encode()).digest() for key in keys])

    def seal(self, plain: bytes, *, bound_to: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = _VERSION + self._newest
        cipher = self._ciphers[self._newest]
        return head + nonce + cipher.encrypt(nonce, plain, _aad(head, bound_to))

    def open(self, sealed: bytes, *, bound_to: str) -> bytes:
        """Give back what was sealed.

        Raises:
            UnreadableSecretError: unknown key, other place, or altered; the value is not quoted.
        """
        head, nonce, rest = sealed[:_HEAD], sealed[_HEAD:_BODY], sealed[_BODY:]
        cipher = self._ciphers.get(head[len(_VERSION) :])
        if cipher is None or not head.startswith(_VERSION):
            raise UnreadableSecretError("It was sealed with a key that is not in the ring.")
        try:
            return cipher.decrypt(nonce, rest, _aad(head, bound_to))
        except (InvalidTag, ValueError) as error:
            raise UnreadableSecretError("It was altered, or belongs elsewhere.") from error

    def is_current(self, sealed: bytes) -> bool:
        """Tell whether a value was sealed with the newest key; opens nothing."""
        return sealed[:_HEAD] == _VERSION + self._newest

    @property
    def heads(self) -> list[bytes]:
        """What values begin with that a key of the ring sealed, the newest first."""
        names = [self._newest, *(name for name in self._ciphers if name != self._newest)]
        return [_VERSION + name for name in names]

    def __repr__(self) -> str:
        return f"SecretBox({len(self._ciphers)} keys)"


def same_secret(given: str, expected: str) -> bool:
    """Compare two texts of any length in constant time."""
    return hmac.compare_digest(fingerprint(given), fingerprint(expected))


def fingerprint(text: str) -> bytes:
    """Give a name for a key in this process's memory, so that caches hold no keys."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _aad(head: bytes, bound_to: str) -> bytes:
    return head + bound_to.encode()


def _name(key: bytes) -> bytes:
    return hashlib.sha256(b"name|" + key).digest()[:_NAME_BYTES]


def _kid() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_KID_LENGTH))


def _secret() -> str:
    return _base62(int.from_bytes(secrets.token_bytes(_SECRET_BYTES)), _SECRET_LENGTH)


def _crc(text: str) -> str:
    # Two digits at a time: it is asked for several times by everyone who connects.
    number, last = divmod(zlib.crc32(text.encode("ascii")), len(_PAIRS))
    first, middle = divmod(number, len(_PAIRS))
    return _PAIRS[first] + _PAIRS[middle] + _PAIRS[last]


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
