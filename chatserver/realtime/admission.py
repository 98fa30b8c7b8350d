"""How many may come in at once, and what a peer may do wrong before it has to go."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chatserver.kernel.errors import UnavailableError

HANDSHAKES: Final = 64
QUEUE_S: Final = 2.0
MINUTE_S: Final = 60.0


class Places:
    """At most so many handshakes in progress; whoever would wait longer than 2 s is sent away."""

    def __init__(self, places: int = HANDSHAKES, queue_s: float = QUEUE_S) -> None:
        self._free = asyncio.Semaphore(places)
        self._queue_s = queue_s
        self.retry_after_s = queue_s

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Hold a place.

        Raises:
            UnavailableError: none got free in time.
        """
        await self._acquire()
        try:
            yield
        finally:
            self._free.release()

    async def look(self) -> bool:
        """Wait until there is a place, without keeping it: a silent peer must hold nobody up."""
        if not self._free.locked():
            return True
        try:
            await self._acquire()
        except UnavailableError:
            return False
        self._free.release()
        return True

    async def _acquire(self) -> None:
        try:
            async with asyncio.timeout(self._queue_s):
                await self._free.acquire()
        except TimeoutError as error:
            retry_after_ms = int(self.retry_after_s * 1000)
            raise UnavailableError(
                "Too many connect at once.", retry_after_ms=retry_after_ms
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
