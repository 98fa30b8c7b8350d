"""Starts the parts in order, starts again what crashes, and stops everything in order."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from chatserver.dev.child import Watchdog
from chatserver.dev.errors import DevError, ServerStartError
from chatserver.dev.parts import POLL_SECONDS, Part, describe, ended
from chatserver.dev.reporting import Reporter

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 10.0
# A part that ran this long had started well, so its next crash is a new trouble.
STEADY_SECONDS: Final = 30.0
# Before everything is ready, this many crashes of one part end the attempt.
STARTING_CRASHES: Final = 3


@dataclass(frozen=True)
class StopPhase:
    """Parts that are stopped together, and the time they have before they are killed."""

    names: frozenset[str]
    seconds: float


# The truth last; together under ten seconds. A worker lets running jobs end for 4 s and gives the
# others back (`environment.COMFORT`): killed in between, they would wait for their lease to end.
STOPPING: Final = (
    StopPhase(frozenset({"migrate", "serve", "scheduler", "worker"}), 6.5),
    StopPhase(frozenset({"valkey"}), 0.5),
    StopPhase(frozenset({"postgres"}), 2.5),
)


class Supervisor:
    """Runs once: `run` returns after a signal, when no process is left.

    `servers` start first and together, then `migrate` runs to its end, then, after
    `before_programs`, the `programs` start; `announce` runs as soon as they do, and returns when
    everything is ready. `abort` cuts short what threads are doing for a server that starts.
    """

    def __init__(
        self,
        *,
        servers: Sequence[Part],
        migrate: Part,
        programs: Sequence[Part],
        before_programs: Callable[[], None],
        announce: Callable[[], Awaitable[None]],
        abort: Callable[[], None],
        reporter: Reporter,
        watchdog: Watchdog,
    ) -> None:
        self._servers = servers
        self._migrate = migrate
        self._programs = programs
        self._before_programs = before_programs
        self._announce = announce
        self._abort = abort
        self._reporter = reporter
        self._asked_to_stop = asyncio.Event()
        self._in_a_hurry = False
        self._ready = False
        self._guarded: dict[str, int] = {}
        self._watchdog = watchdog

    async def run(self) -> None:
        """Raises DevError when the start fails; everything has been stopped then, too."""
        with self._listening_to_signals():
            work = asyncio.create_task(self._start_and_keep())
            asked = asyncio.create_task(self._asked_to_stop.wait())
            try:
                await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
                work.cancel()
                if not self._ready:
                    self._abort()
                (outcome,) = await asyncio.gather(work, return_exceptions=True)
                await self._stop_everything()
        if isinstance(outcome, Exception):
            raise _only(outcome)

    @contextmanager
    def _listening_to_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self.ask_to_stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def ask_to_stop(self) -> None:
        """The first time in good order, the second time at once."""
        if self._asked_to_stop.is_set():
            self._in_a_hurry = True
        self._asked_to_stop.set()

    async def _start_and_keep(self) -> None:
        async with asyncio.TaskGroup() as keepers:
            self._reporter.step("starting PostgreSQL and Redis")
            await asyncio.gather(*(self._start(part) for part in self._servers))
            for part in self._servers:
                keepers.create_task(self._keep(part))
            self._reporter.step("bringing the database up to date")
            await self._run_migration()
            self._reporter.step("starting the server")
            self._before_programs()
            for part in self._programs:
                await self._start(part)
                keepers.create_task(self._keep(part))
            await self._announce()
            self._ready = True

    async def _start(self, part: Part) -> None:
        try:
            await part.start()
        finally:
            self._guard(part)

    async def _run_migration(self) -> None:
        await self._start(self._migrate)
        code = await ended(self._migrate)
        self._release(self._migrate)
        if code != 0:
            raise ServerStartError(
                f"The database could not be brought up to date (migrate ended {describe(code)}); "
                f"its last words: {self._migrate.last_words()}"
            )

    async def _keep(self, part: Part) -> None:
        pause = FIRST_PAUSE_SECONDS
        crashes = 0
        while True:
            started = time.monotonic()
            code = await ended(part)
            self._release(part)
            if time.monotonic() - started > STEADY_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            crashes += 1
            if not self._ready and crashes >= STARTING_CRASHES:
                raise ServerStartError(
                    f"{part.name} does not stay up (it ended {describe(code)}, {crashes} times); "
                    f"its last words: {part.last_words()}"
                )
            while True:
                self._reporter.problem(
                    f"{part.name} ended unexpectedly ({describe(code)}) and is started again "
                    f"in {pause:g} s; its last words: {part.last_words()}"
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                try:
                    await self._start(part)
                    break
                except (DevError, OSError) as error:
                    self._reporter.problem(f"{part.name} could not be started again: {error}")

    def _guard(self, part: Part) -> None:
        if part.pid is not None and part.return_code is None:
            self._guarded[part.name] = part.pid
            self._watchdog.guard(part.pid)

    def _release(self, part: Part) -> None:
        self._watchdog.release(self._guarded.pop(part.name, None))

    async def _stop_everything(self) -> None:
        self._reporter.step("stopping")
        parts = (*self._servers, self._migrate, *self._programs)
        for phase in STOPPING:
            await self._stop([part for part in parts if part.name in phase.names], phase.seconds)

    async def _stop(self, parts: Sequence[Part], seconds: float) -> None:
        started = [part for part in parts if part.pid is not None]
        running = [part for part in started if part.return_code is None]
        for part in running:
            part.ask_to_stop()
        deadline = time.monotonic() + seconds
        # A process has no event that could be awaited.
        while (  # noqa: ASYNC110
            any(part.return_code is None for part in running)
            and time.monotonic() < deadline
            and not self._in_a_hurry
        ):
            await asyncio.sleep(POLL_SECONDS)
        for part in running:
            if part.return_code is None:
                self._reporter.problem(f"{part.name} did not stop in time and is ended by force")
                part.kill()
        for part in running:
            await ended(part)
            self._release(part)


def _only(error: Exception) -> Exception:
    """The one error that people should see of a group of them."""
    while isinstance(error, ExceptionGroup):
        inner: list[Exception] = list(error.exceptions)
        error = next((one for one in inner if isinstance(one, DevError)), inner[0])
    return error
