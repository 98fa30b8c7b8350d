"""Commands of one connection: in order within a room, side by side across rooms, bounded in all.

A command that has its place in the room's order, and now only waits, may pass its lane on: the next
one begins, if it is of the kind that need not see what this one does. Answers keep their order.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeAlias

MAX_PENDING: Final = 1024
MAX_BYTES: Final = 1 << 20
# A command that takes so long met a part that hangs. Whoever waited behind one for so long is told
# so instead of meeting it, too: a thousand sends in a row would each wait for their own deadline.
SLOW_S: Final = 1.0
PATIENCE_S: Final = 4.0
# Commands that are refused wait for nothing: a lane of a thousand of them would hold the whole node
# for as long as they take (850 ms on a busy machine, measured), so others have their turn between.
TURN_S: Final = 0.002

Work: TypeAlias = Callable[[], Awaitable[None]]
GiveUp: TypeAlias = Callable[[], None]


@dataclass(slots=True)
class _Waiting:
    size: int
    work: Work
    overdue: GiveUp | None
    joins: bool
    since: float


class _Lane:
    __slots__ = ("hung_until", "is_led", "key", "last", "running", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.waiting: deque[_Waiting] = deque()
        self.last: Place | None = None
        self.is_led = False  # whether a task runs that will begin with the next
        self.running = 0
        self.hung_until = float("-inf")


class Place:
    """The place of a running command in its lane. `before` is one that was passed on and runs."""

    __slots__ = ("_lane", "_lanes", "_waiter", "before", "is_done", "is_passed_on")

    def __init__(self, lanes: "Lanes", lane: _Lane, before: "Place | None") -> None:
        self.before = before
        self.is_done = False
        self.is_passed_on = False
        self._lanes = lanes
        self._lane = lane
        self._waiter: asyncio.Future[None] | None = None

    def pass_on(self) -> None:
        if not self.is_passed_on:
            self.is_passed_on = True
            self._lanes.go_on(self._lane)

    def finish(self) -> None:
        self.is_done = True
        self.before = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def finished(self) -> None:
        if not self.is_done:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


PLACE: Final[ContextVar[Place | None]] = ContextVar("place", default=None)


def pass_on() -> None:
    """Let the lane of the running command, if there is one, go on: it has its place already."""
    place = PLACE.get()
    if place is not None:
        place.pass_on()


def turn() -> Awaitable[None] | None:
    """Give what the running command has to wait for before it answers, if there is anything."""
    place = PLACE.get()
    if place is None or place.before is None or place.before.is_done:
        return None
    return place.before.finished()


class Lanes:
    """Per key one queue, and one command at a time that has not passed on. `work` never raises."""

    __slots__ = (
        "_freed", "_lanes", "_max_bytes", "_max_pending", "_patience_s", "_slow_s", "_tasks",
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
        self._lanes: dict[str, _Lane] = {}
        # A dictionary for a set: see `Connection.watched`.
        self._tasks: dict[asyncio.Task[None], None] = {}
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
        joins: bool = False,
        always: bool = False,
    ) -> bool:
        """Queue work behind what its key has already; False when too much waits.

        `overdue` is called in place of `work` when that waited too long behind one that hung.
        `joins`: it need not wait for whoever passed on before it, but for its turn to answer.
        """
        is_full = self.pending >= self._max_pending or self.bytes + size > self._max_bytes
        if is_full and not always:
            return False
        self.pending += 1
        self.bytes += size
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key)
        lane.waiting.append(_Waiting(size, work, overdue, joins, time.monotonic()))
        if not lane.is_led:
            self.go_on(lane)
        return True

    def go_on(self, lane: _Lane) -> None:
        """Begin with the next of a lane whose last one doesn't hold it any more."""
        lane.is_led = bool(lane.waiting)
        if lane.is_led:
            lane.running += 1
            self._tasks[asyncio.create_task(self._run(lane))] = None

    async def finish(self) -> None:
        """Wait for all that was taken in."""
        while running := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(running)

    def cancel(self) -> None:
        """Give up what still runs; callers retry with the same id."""
        tasks = list(self._tasks)
        self._lanes.clear()
        self._tasks.clear()
        for task in tasks:
            task.cancel()

    async def _run(self, lane: _Lane) -> None:
        is_led = True
        # Not the loop's own clock: uvloop's stands still for as long as a turn takes.
        turned = time.monotonic()
        try:
            while is_led and lane.waiting:
                if time.monotonic() - turned >= TURN_S:
                    await asyncio.sleep(0)
                    turned = time.monotonic()
                is_led = await self._run_next(lane)
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._tasks.pop(task, None)
            lane.running -= 1
            if is_led:
                lane.is_led = False
            if not lane.running:
                self._lanes.pop(lane.key, None)

    async def _run_next(self, lane: _Lane) -> bool:
        """Run the next of a lane; False when it has passed it on."""
        item = lane.waiting.popleft()
        before = lane.last
        if before is not None and (before.is_done or not item.joins):
            await before.finished()
            before = None
        place = lane.last = Place(self, lane, before)
        PLACE.set(place)
        started = time.monotonic()
        is_overdue = item.since < lane.hung_until and started - item.since > self._patience_s
        try:
            if is_overdue and item.overdue is not None:
                item.overdue()
            else:
                await item.work()
        finally:
            ended = time.monotonic()
            if ended - started >= self._slow_s:
                lane.hung_until = ended
            place.finish()
            self.pending -= 1
            self.bytes -= item.size
            if self._freed is not None and not self.is_full:
                self._freed.set()
                self._freed = None
        return not place.is_passed_on
