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

    def __init__(self, *, max_pending: int = MAX_PENDING, max_bytes: int = MAX_BYTES) -> None:
        self._max_pending = max_pending
        self._max_bytes = max_bytes
        self._waiting: dict[str, deque[tuple[int, Work]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.pending = 0
        self.bytes = 0

    def submit(self, key: str, size: int, work: Work) -> bool:
        """Queue work behind what its key has already; False when too much waits."""
        if self.pending >= self._max_pending or self.bytes + size > self._max_bytes:
            return False
        self.pending += 1
        self.bytes += size
        lane = self._waiting.get(key)
        if lane is not None:
            lane.append((size, work))
            return True
        lane = self._waiting[key] = deque([(size, work)])
        task = asyncio.create_task(self._run(key, lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def finish(self) -> None:
        """Wait for all that was taken in."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cancel(self) -> None:
        """Give up what still runs; callers retry with the same id."""
        for task in self._tasks:
            task.cancel()

    async def _run(self, key: str, lane: deque[tuple[int, Work]]) -> None:
        while lane:
            size, work = lane[0]
            try:
                await work()
            finally:
                lane.popleft()
                self.pending -= 1
                self.bytes -= size
        del self._waiting[key]
