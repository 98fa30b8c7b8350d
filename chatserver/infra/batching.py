"""Many small calls that share few large ones: whoever comes while a call runs joins the next."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Given = TypeVar("Given")


class Batcher(Generic[Asked, Given]):
    """Calls `work` with up to `size` things at once, `in_flight` calls at a time.

    `work` gives one answer for each thing, in their order. When it raises, all of that call do.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Asked]], Awaitable[Sequence[Given]]],
        *,
        size: int,
        in_flight: int = 1,
    ) -> None:
        self._work = work
        self._size = size
        self._in_flight = in_flight
        self._waiting: deque[tuple[Asked, asyncio.Future[Given]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        # For figures and tests.
        self.calls = 0
        self.things = 0

    async def ask(self, thing: Asked, *, within_s: float | None = None) -> Given:
        """Have one thing done, together with others; `within_s` is how long to wait for it.

        Raises:
            TimeoutError: it took longer. Whether it was done is unknown.
            Exception: whatever the shared call raised.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Given] = loop.create_future()
        self._waiting.append((thing, done))
        self._fill()
        if within_s is None:
            return await done
        # Not `asyncio.timeout`, which costs several times as much and could cancel more than this.
        deadline = loop.call_later(within_s, _expire, done)
        try:
            return await done
        finally:
            deadline.cancel()

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._in_flight:
            # The task takes its things when it begins: what comes in this turn of the loop joins.
            task = asyncio.create_task(self._call())
            self._running.add(task)
            task.add_done_callback(self._ended)
            if len(self._running) * self._size >= len(self._waiting):
                return

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._fill()

    async def _call(self) -> None:
        taken = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
        # Whoever was cancelled meanwhile is not worked for.
        taken = [each for each in taken if not each[1].done()]
        if not taken:
            return
        self.calls += 1
        self.things += len(taken)
        try:
            given = await self._work([thing for thing, _ in taken])
        except asyncio.CancelledError:
            for _, done in taken:
                done.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - told to everyone who waits for it
            for _, done in taken:
                if not done.done():
                    done.set_exception(error)
            return
        for (_, done), answer in zip(taken, given, strict=True):
            if not done.done():
                done.set_result(answer)


def _expire(done: "asyncio.Future[Given]") -> None:
    if not done.done():
        done.set_exception(TimeoutError())
