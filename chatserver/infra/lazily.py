"""Writes that nobody waits for and that may be lost: when a key was last used, and the like."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from chatserver.infra.expiring import Expiring

log = structlog.get_logger()

FLUSH_S: Final = 5.0
AGAIN_S: Final = 60.0
REMEMBERED: Final = 100_000
BATCH: Final = 1_000


class LazyNotes:
    """Collects names in memory and writes them together, each at most once a minute."""

    def __init__(
        self,
        write: Callable[[Sequence[str]], Awaitable[None]],
        *,
        again_s: float = AGAIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._lately: Expiring[str, bool] = Expiring(size=REMEMBERED, ttl_s=again_s, clock=clock)
        self._waiting: set[str] = set()

    def note(self, name: str) -> None:
        """Remember a name for the next write, unless it was written within the minute."""
        if self._lately.get(name) is None:
            self._lately.put(name, value=True)
            self._waiting.add(name)

    async def flush(self) -> None:
        """Write what waits. What can't be written is dropped: the next use brings it again."""
        names, self._waiting = list(self._waiting), set()
        for start in range(0, len(names), BATCH):
            try:
                await self._write(names[start : start + BATCH])
            except Exception as error:  # noqa: BLE001 - harmless to lose, whatever the reason
                log.warning("lazy_write_failed", count=len(names) - start, error=repr(error))
                return

    async def run(self) -> None:
        """Flush every 5 s, until cancelled; then once more."""
        await flush_often(self.flush)


async def flush_often(flush: Callable[[], Awaitable[None]]) -> None:
    """Call `flush` every 5 s, until cancelled; then once more."""
    try:
        while True:
            await asyncio.sleep(FLUSH_S)
            await flush()
    finally:
        await flush()
