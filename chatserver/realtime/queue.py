"""What waits for one socket, bounded in bytes: who doesn't read costs nobody else."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

MAX_BYTES: Final = 1 << 20
_LEAST = 256


def cost(item: Any) -> int:
    """Count a packet in bytes; even an empty one takes room."""
    if item is None:
        return 0
    known: int | None = getattr(item, "cost", None)
    if known is not None:
        return known
    return max(_LEAST, len(item.data) if isinstance(item.data, str | bytes) else 0)


class OutQueue(asyncio.Queue[Any]):
    """The queue under one engine socket. Nothing ever waits to put something in.

    When it is full, ephemeral packets go first; if that isn't enough, everything goes, the queue
    takes nothing more, and `on_full` is told to end the socket.
    """

    _queue: deque[Any]

    def __init__(self, limit: int = MAX_BYTES) -> None:
        super().__init__()
        self.limit = limit
        self.bytes = 0
        self.dropped = 0
        self.finished = False
        self.on_full: Callable[[], None] | None = None

    async def put(self, item: Any) -> None:
        self.put_nowait(item)

    def put_nowait(self, item: Any) -> None:
        if self.finished:
            return
        size = cost(item)
        if self.bytes + size > self.limit:
            if getattr(item, "ephemeral", False):
                self.dropped += 1
                return
            self._shed()
            if self.bytes + size > self.limit:
                self._overflow()
                return
        super().put_nowait(item)

    def last(self, *items: Any) -> None:
        """Add packets whatever waits already: what a peer must be told before it is left."""
        for item in items:
            if not self.finished:
                super().put_nowait(item)

    def finish(self, *items: Any) -> None:
        """Add the last packets and the mark that ends the writer; nothing comes after it."""
        self.last(*items, None)
        self.finished = True

    def task_done(self) -> None:
        """Do nothing: nobody may wait for a stranger to read."""

    async def join(self) -> None:
        """Return at once, for the same reason."""

    def _put(self, item: Any) -> None:
        self.bytes += cost(item)
        self._queue.append(item)

    def _get(self) -> Any:
        item = self._queue.popleft()
        self.bytes -= cost(item)
        return item

    def _shed(self) -> None:
        kept = [item for item in self._queue if not getattr(item, "ephemeral", False)]
        self.dropped += len(self._queue) - len(kept)
        self._queue.clear()
        self._queue.extend(kept)
        self.bytes = sum(map(cost, kept))

    def _overflow(self) -> None:
        self.dropped += len(self._queue) + 1
        self._queue.clear()
        self.bytes = 0
        if self.on_full is None:
            self.finish()
        else:
            self.on_full()
