"""Commands of one connection: in order within a room, side by side across rooms, bounded in all."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

MAX_PENDING: Final = 1024
MAX_BYTES: Final = 1 << 20

Work: TypeAlias = Callable[[], Awaitable[None]]


class Lanes:
    """One queue and at most one running task per key. `work` never raises."""

    __slots__ = (
        "_freed", "_max_bytes", "_max_pending", "_tasks", "_waiting", "bytes", "pending",
    )  # fmt: skip

    def __init__(self, *, max_pending: int = MAX_PENDING, max_bytes: int = MAX_BYTES) -> None:
        self._max_pending = max_pending
        self._max_bytes = max_bytes
        self._waiting: dict[str, deque[tuple[int, Work]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.pending = 0
        self.bytes = 0
        self._freed: asyncio.Event | None = None

    @property
    def is_full(self) -> bool:
        return self.pending >= self._max_pending or self.bytes > self._max_bytes

    async def room(self) -> None:
        """Wait until not too much waits: whoever would rather not read on than refuse."""
        while self.is_full:
            self._freed = self._freed or asyncio.Event()
            await self._freed.wait()

    def submit(self, key: str, size: int, work: Work, *, always: bool = False) -> bool:
        """Queue work behind what its key has already; False when too much waits."""
        is_full = self.pending >= self._max_pending or self.bytes + size > self._max_bytes
        if is_full and not always:
            return False
        self.pending += 1
        self.bytes += size
        lane = self._waiting.get(key)
        if lane is not None:
            lane.append((size, work))
            return True
        lane = self._waiting[key] = deque([(size, work)])
        self._tasks[key] = asyncio.create_task(self._run(key, lane))
        return True

    async def finish(self) -> None:
        """Wait for all that was taken in."""
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def cancel(self) -> None:
        """Give up what still runs; callers retry with the same id."""
        for task in self._tasks.values():
            task.cancel()

    async def _run(self, key: str, lane: deque[tuple[int, Work]]) -> None:
        try:
            while lane:
                size, work = lane[0]
                try:
                    await work()
                finally:
                    lane.popleft()
                    self.pending -= 1
                    self.bytes -= size
                    if self._freed is not None and not self.is_full:
                        self._freed.set()
                        self._freed = None
        finally:
            del self._waiting[key], self._tasks[key]
