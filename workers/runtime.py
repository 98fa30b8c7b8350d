"""The life of a worker process: its parts, its signals, its end."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import structlog

from chatserver.infra.database import Database
from chatserver.infra.job_kinds import DISPATCH_OUTBOX
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.opening import Open
from workers.claimer import POLL_S, Claimer
from workers.deliveries import Lane
from workers.holding import Handling, Measured, unmeasured
from workers.listener import Listener
from workers.outbox import Dispatcher, Later, Together

try:
    import uvloop
except ImportError:  # there is none for Windows
    _new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    _new_loop = uvloop.new_event_loop

# Running jobs may end by themselves for so long; what is cut off then goes back to the queue.
GRACE_S: Final = 10.0
# Everything else together: giving back, threads, connections. After that the process just ends.
OVERDUE_S: Final = 14.5

log = structlog.get_logger()


class Worker:
    """A claimer, an outbox dispatcher, lanes of deliveries, and the doorbells that wake them."""

    def __init__(  # noqa: PLR0913 - the parts of a process
        self,
        *,
        database: Database,
        handlings: Sequence[Handling],
        open_work: Open[UnitOfWork],
        later: Later,
        together: Sequence[Together] = (),
        lanes: Mapping[str, Lane] | None = None,
        bells: Mapping[str, Callable[[], None]] | None = None,
        queue_url: str,
        poll_s: float = POLL_S,
        grace_s: float = GRACE_S,
        measured: Measured = unmeasured,
    ) -> None:
        self.claimer = Claimer(database, handlings, poll_s=poll_s, measured=measured)
        self.dispatcher = Dispatcher(open_work, later, poll_s=poll_s, together=together)
        self._lanes = dict(lanes or {})
        own = {name: _bell(self.claimer, name) for name in self.claimer.names}
        self._listener = Listener(
            queue_url,
            {
                **own,
                **(bells or {}),
                **{name: lane.wake for name, lane in self._lanes.items()},
                DISPATCH_OUTBOX: self.dispatcher.wake,
            },
        )
        self._grace_s = grace_s

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set; then end within `grace_s` and a few seconds.

        Raises whatever ended one of the parts, which none of them should let happen.
        """
        self._listener.start()
        parts = [
            asyncio.create_task(self.claimer.run()),
            asyncio.create_task(self.dispatcher.run()),
            *(asyncio.create_task(lane.run()) for lane in self._lanes.values()),
        ]
        asked = asyncio.create_task(stopping.wait())
        announcing = asyncio.create_task(self._announce())
        waited: list[asyncio.Future[Any]] = [asked, *parts]
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            announcing.cancel()
            asked.cancel()
            await self._stop(parts)
        for part in parts:
            if part.done() and not part.cancelled():
                part.result()

    async def _announce(self) -> None:
        await self.claimer.ready.wait()
        log.info("worker_ready", kinds=self.claimer.names)

    async def _stop(self, parts: Sequence[asyncio.Task[None]]) -> None:
        log.info("worker_stopping")
        self.dispatcher.stop()
        # Its threads may hang on a dead Redis for some seconds: meanwhile the jobs may end.
        await asyncio.gather(
            asyncio.to_thread(self._listener.stop),
            self.claimer.stop(grace_s=self._grace_s),
            *(lane.stop(grace_s=self._grace_s) for lane in self._lanes.values()),
        )
        await asyncio.wait(parts, timeout=1.0)
        for part in parts:
            part.cancel()


def run(process: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run a process until SIGTERM or SIGINT sets its event; a second signal ends it at once."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(_with_signals(process))


async def _with_signals(process: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stopping = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()
        # A thread: a loop that hangs would not call it.
        overdue = threading.Timer(OVERDUE_S, os._exit, args=(1,))
        overdue.daemon = True
        overdue.start()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    await process(stopping)


def _bell(claimer: Claimer, name: str) -> Callable[[], None]:
    return lambda: claimer.wake(name)
