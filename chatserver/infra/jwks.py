"""Key sets of token issuers, kept for a while: an issuer that is away locks nobody out at once."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import structlog

from chatserver.infra.public_keys import PublicKey, algorithm_of, read_jwk
from chatserver.kernel.errors import UnavailableError

log = structlog.get_logger()

FRESH_S: Final = 600.0
STALE_OK_S: Final = 86_400.0
# An unknown key asks for the set again at most so often, whoever invents names of keys.
UNKNOWN_AGAIN_S: Final = 60.0
FAILED_AGAIN_S: Final = 10.0
WAIT_S: Final = 3.0
MOST_SETS: Final = 1_000
MOST_KEYS: Final = 100


@dataclass(slots=True)
class _Set:
    keys: list[tuple[str | None, PublicKey]] = field(default_factory=list)
    fetched_at: float | None = None
    tried_at: float | None = None
    has_failed: bool = False
    fetching: asyncio.Task[None] | None = None


class Jwks:
    """`fetch` gives the body at a URL, or raises."""

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[bytes]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._sets: OrderedDict[str, _Set] = OrderedDict()

    async def find(self, url: str, kid: str | None, algorithm: str) -> PublicKey | None:
        """Find the key that a token names; without a name, the only one of its kind.

        Raises:
            UnavailableError: the set was never read, or too long ago, and can't be read now.
        """
        known = self._set(url)
        if self._is_due(known):
            await self._refresh(url, known)
        if known.fetched_at is None or self._clock() - known.fetched_at > STALE_OK_S:
            raise UnavailableError("The issuer's keys can't be read right now.")
        found = _pick(known, kid, algorithm)
        if found is None and self._may_ask_again(known, UNKNOWN_AGAIN_S):
            await self._refresh(url, known)
            found = _pick(known, kid, algorithm)
        return found

    def _set(self, url: str) -> _Set:
        known = self._sets.setdefault(url, _Set())
        self._sets.move_to_end(url)
        while len(self._sets) > MOST_SETS:
            self._sets.popitem(last=False)
        return known

    def _is_due(self, known: _Set) -> bool:
        if known.fetched_at is not None and self._clock() - known.fetched_at < FRESH_S:
            return False
        return not known.has_failed or self._may_ask_again(known, FAILED_AGAIN_S)

    def _may_ask_again(self, known: _Set, after_s: float) -> bool:
        return known.tried_at is None or self._clock() - known.tried_at >= after_s

    async def _refresh(self, url: str, known: _Set) -> None:
        # Many tokens share one request; whoever gives up waiting doesn't end it.
        if known.fetching is None:
            known.tried_at = self._clock()
            known.fetching = asyncio.create_task(self._read(url, known))
        await asyncio.wait([known.fetching], timeout=WAIT_S)

    async def _read(self, url: str, known: _Set) -> None:
        try:
            known.keys = _keys_of(await self._fetch(url))
            known.fetched_at = self._clock()
            known.has_failed = False
        except Exception as error:  # noqa: BLE001 - whatever an issuer does, the old keys stay
            known.has_failed = True
            log.warning("jwks_unreadable", error=repr(error)[:200])
        finally:
            known.fetching = None


def _pick(known: _Set, kid: str | None, algorithm: str) -> PublicKey | None:
    fitting = [
        key
        for name, key in known.keys
        if algorithm_of(key) == algorithm and (kid is None or name == kid)
    ]
    return fitting[0] if len(fitting) == 1 else None


def _keys_of(body: bytes) -> list[tuple[str | None, PublicKey]]:
    found: Any = orjson.loads(body)
    listed = found.get("keys") if isinstance(found, Mapping) else None
    if not isinstance(listed, list):
        raise TypeError("is no key set")
    keys: list[tuple[str | None, PublicKey]] = []
    for jwk in listed[:MOST_KEYS]:
        if not isinstance(jwk, dict):
            continue
        kid = jwk.get("kid")
        try:
            keys.append((kid if isinstance(kid, str) else None, read_jwk(jwk)))
        except ValueError:
            continue  # a key for something else doesn't spoil the set
    if not keys:
        raise ValueError("has no key that tokens may be signed with")
    return keys
