"""How many may come in at once, and what a peer may do wrong before it has to go."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chatserver.kernel.errors import UnavailableError

HANDSHAKES: Final = 64
QUEUE_S: Final = 2.0
MINUTE_S: Final = 60.0
# Whoever is sent away comes back at a moment of his own within these.
EARLIEST_MS: Final = 1_000
LATEST_MS: Final = 30_000


def retry_after_ms() -> int:
    """Choose when somebody who was sent away should try again."""
    return random.randint(EARLIEST_MS, LATEST_MS)  # noqa: S311 - jitter


class Admission:
    """A bound on handshakes in progress. It limits what runs at once, not how many come a second.

    `refused` counts whom it sent away, for metrics.
    """

    def __init__(self, *, at_once: int = HANDSHAKES, queue_s: float = QUEUE_S) -> None:
        self.refused = 0
        self._places = asyncio.Semaphore(at_once)
        self._queue_s = queue_s

    @property
    def is_full(self) -> bool:
        """Whether whoever comes now has to wait."""
        return self._places.locked()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place for one handshake.

        Raises:
            UnavailableError: none was free in time; `retry_after_ms` spreads those who come again.
        """
        await self._acquire()
        try:
            yield
        finally:
            self._places.release()

    async def look(self) -> None:
        """Wait until there is a place, without keeping it: a silent peer must hold nobody up.

        Raises:
            UnavailableError: as `place`.
        """
        if self.is_full:
            await self._acquire()
            self._places.release()

    async def _acquire(self) -> None:
        if not self._places.locked():
            await self._places.acquire()  # there is one: no clock is needed to get it
            return
        try:
            async with asyncio.timeout(self._queue_s):
                await self._places.acquire()
        except TimeoutError as error:
            self.refused += 1
            raise UnavailableError(
                "Too many connect at once.", retry_after_ms=retry_after_ms()
            ) from error


class Offences:
    """Counts what no working client sends: so many a minute are forgiven."""

    __slots__ = ("_count", "_since")

    def __init__(self) -> None:
        self._count = 0
        self._since = 0.0

    def add(self, per_minute: int) -> bool:
        """Count one; True: that was one too many."""
        now = time.monotonic()
        if now - self._since >= MINUTE_S:
            self._since, self._count = now, 0
        self._count += 1
        return self._count > per_minute
