"""Commands of one connection: in order within a room, side by side across rooms, bounded in all."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

MAX_PENDING: Final = 1024
MAX_BYTES: Final = 1 << 20
# A command that takes so long met a part that hangs. Whoever waited behind one for so long is told
# so instead of meeting it, too: a thousand sends in a row would each wait for their own deadline.
SLOW_S: Final = 1.0
PATIENCE_S: Final = 4.0

Work: TypeAlias = Callable[[], Awaitable[None]]
GiveUp: TypeAlias = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Waiting:
    size: int
    work: Work
    overdue: GiveUp | None
    since: float


class Lanes:
    """One queue and at most one running task per key. `work` never raises."""

    __slots__ = (
        "_freed", "_max_bytes", "_max_pending", "_patience_s", "_slow_s", "_tasks", "_waiting",
        "bytes", "pending",
    )  # fmt: skip

    def __init__(
        self,
        *,
        max_pending: int = MAX_PENDING,
        max_bytes: int = MAX_BYTES,
        slow_s: float = SLOW_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._max_pending = max_pending
        self._max_bytes = max_bytes
        self._slow_s = slow_s
        self._patience_s = patience_s
        self._waiting: dict[str, deque[_Waiting]] = {}
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

    def submit(
        self,
        key: str,
        size: int,
        work: Work,
        *,
        overdue: GiveUp | None = None,
        always: bool = False,
    ) -> bool:
        """Queue work behind what its key has already; False when too much waits.

        `overdue` is called in place of `work` when that waited too long behind one that hung.
        """
        is_full = self.pending >= self._max_pending or self.bytes + size > self._max_bytes
        if is_full and not always:
            return False
        self.pending += 1
        self.bytes += size
        waiting = _Waiting(size, work, overdue, asyncio.get_running_loop().time())
        lane = self._waiting.get(key)
        if lane is not None:
            lane.append(waiting)
            return True
        lane = self._waiting[key] = deque([waiting])
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

    async def _run(self, key: str, lane: deque[_Waiting]) -> None:
        now = asyncio.get_running_loop().time
        hung_until = float("-inf")
        try:
            while lane:
                first = lane[0]
                started = now()
                is_overdue = first.since < hung_until and started - first.since > self._patience_s
                try:
                    if is_overdue and first.overdue is not None:
                        first.overdue()
                    else:
                        await first.work()
                finally:
                    if now() - started >= self._slow_s:
                        hung_until = now()
                    lane.popleft()
                    self.pending -= 1
                    self.bytes -= first.size
                    if self._freed is not None and not self.is_full:
                        self._freed.set()
                        self._freed = None
        finally:
            del self._waiting[key], self._tasks[key]
