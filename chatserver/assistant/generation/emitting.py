"""From text to deltas: the first at once, then at most one in a while."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from chatserver.kernel.tasks import end

PACE_S: Final = 0.03
# For rooms with many sockets, and while Redis is slow to answer.
SLOW_PACE_S: Final = 0.1
# More than this is more than one delta.
LARGEST: Final = 8_000


class Emitter:
    """Gathers text and sends it, piece by piece. When `send` raises, so does `drain`."""

    def __init__(self, send: Callable[[str], Awaitable[None]], *, pace_s: float = PACE_S) -> None:
        self._send = send
        self._pace_s = pace_s
        self._waiting: list[str] = []
        self._wake = asyncio.Event()
        self._next_at = 0.0
        self._is_ending = False
        # Set when sending failed, and never else.
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._done)

    def put(self, text: str) -> None:
        """Send a text soon, with whatever else comes until then."""
        self._waiting.append(text)
        self._wake.set()

    async def drain(self) -> None:
        """Send all that waits, at its pace, and end."""
        self._is_ending = True
        self._wake.set()
        await self._task

    async def stop(self) -> None:
        """End now; what waits is not sent."""
        await end(self._task)

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.broken.set_exception(error)
            self.broken.exception()  # whoever waits for it is told; nobody else need be

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._waiting:
                if self._is_ending:
                    return
                await self._wake.wait()
                self._wake.clear()
                continue
            pause = self._next_at - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            text = "".join(self._waiting)
            self._waiting = [text[LARGEST:]] if len(text) > LARGEST else []
            began = loop.time()
            await self._send(text[:LARGEST])
            took = loop.time() - began
            # Where sending takes so long, fewer and larger pieces get more through.
            pace = SLOW_PACE_S if took > 2 * self._pace_s else self._pace_s
            self._next_at = began + max(self._pace_s, pace)
