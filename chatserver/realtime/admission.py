"""How many handshakes a node does at once: a storm waits its turn or is sent away for a while."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chatserver.kernel.errors import UnavailableError

HANDSHAKES: Final = 64
QUEUE_S: Final = 2.0
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

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place for one handshake.

        Raises:
            UnavailableError: none was free in time; `retry_after_ms` spreads those who come again.
        """
        try:
            async with asyncio.timeout(self._queue_s):
                await self._places.acquire()
        except TimeoutError as error:
            self.refused += 1
            raise UnavailableError(
                "Too many connect at once.", retry_after_ms=retry_after_ms()
            ) from error
        try:
            yield
        finally:
            self._places.release()
