"""Claims due jobs up to the free places of their kind and holds them; one per worker process."""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Final

import structlog

from chatserver.infra import jobs
from chatserver.infra.database import Database
from chatserver.infra.jobs import Claim
from chatserver.kernel.principal import NOBODY
from workers.condition import Condition
from workers.holding import Handling, Holding, Measured, unmeasured

POLL_S: Final = 1.0
# What is left for giving back what had to be cut off: cancelling, and one write.
GIVE_BACK_S: Final = 2.5

log = structlog.get_logger()


class Claimer:
    """Looks when a doorbell rings and once a second besides, so that Redis is never needed."""

    def __init__(
        self,
        database: Database,
        handlings: Sequence[Handling],
        *,
        poll_s: float = POLL_S,
        measured: Measured = unmeasured,
    ) -> None:
        self._database = database
        self._lanes = {
            handling.kind.name: _Lane(database, handling, measured) for handling in handlings
        }
        self._poll_s = poll_s
        self._condition = Condition("postgresql")
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # Set once PostgreSQL answered for the first time.
        self.ready = asyncio.Event()

    @property
    def names(self) -> list[str]:
        return list(self._lanes)

    @property
    def held(self) -> dict[str, int]:
        """How many jobs of each kind are being done here."""
        return {name: len(lane.held) for name, lane in self._lanes.items()}

    def wake(self, name: str) -> None:
        """Look for jobs of a kind now. Callable from any thread, and at any time."""
        lane = self._lanes.get(name)
        if lane is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lane.look.set)

    async def run(self) -> None:
        """Claim and hold jobs until `stop`."""
        lanes = [asyncio.create_task(lane.run()) for lane in self._lanes.values()]
        try:
            while not self._stopping.is_set():
                await self._poll()
                await self._pause()
            await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()

    async def stop(self, *, grace_s: float) -> None:
        """Claim nothing more, let running jobs end for `grace_s`, and give the rest back."""
        self._stopping.set()
        for lane in self._lanes.values():
            lane.close()
        await self._await_held(grace_s)
        for lane in self._lanes.values():
            for holding in lane.held.values():
                holding.give_back()
        await self._await_held(GIVE_BACK_S)
        for lane in self._lanes.values():
            for task in lane.held:
                task.cancel()

    async def _await_held(self, timeout_s: float) -> None:
        ends_at = time.monotonic() + timeout_s
        while tasks := [task for lane in self._lanes.values() for task in lane.tasks()]:
            left = ends_at - time.monotonic()
            if left <= 0:
                return
            await asyncio.wait(tasks, timeout=left)

    async def _poll(self) -> None:
        try:
            async with self._database.transaction() as session:
                due = await jobs.due(session, self.names)
        except Exception as error:  # noqa: BLE001 - told once, with its trace; the next poll tries again
            self._condition.fails(error)
            return
        self._condition.works()
        self.ready.set()
        for name in due:
            self._lanes[name].look.set()

    async def _pause(self) -> None:
        # Uneven, so that many workers don't ask in step.
        jittered = self._poll_s * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
        try:
            async with asyncio.timeout(jittered):
                await self._stopping.wait()
        except TimeoutError:
            return


class _Lane:
    """The jobs of one kind in this process."""

    def __init__(self, database: Database, handling: Handling, measured: Measured) -> None:
        self._database = database
        self._handling = handling
        self._measured = measured
        self._condition = Condition(f"claims of {handling.kind.name}")
        self._is_closed = False
        # The client that had its turn last, where very many wait.
        self._after = NOBODY
        self._claiming: asyncio.Task[list[Claim]] | None = None
        self.look = asyncio.Event()
        self.held: dict[asyncio.Task[None], Holding] = {}

    def close(self) -> None:
        self._is_closed = True
        self.look.set()

    def tasks(self) -> list[asyncio.Task[None] | asyncio.Task[list[Claim]]]:
        """Whatever must end before this lane has."""
        claiming = [self._claiming] if self._claiming is not None else []
        return [*self.held, *claiming]

    async def run(self) -> None:
        while True:
            await self.look.wait()
            self.look.clear()
            if self._is_closed:
                return
            free = self._handling.concurrency - len(self.held)
            if free > 0:
                await self._claim(free)

    async def _claim(self, free: int) -> None:
        asked_at = time.monotonic()
        self._claiming = asyncio.create_task(self._ask(free))
        try:
            claims = await self._claiming
        except Exception as error:  # noqa: BLE001 - told once, with its trace; the next poll tries again
            self._condition.fails(error)
            return
        finally:
            self._claiming = None
        self._condition.works()
        for claim in claims:
            holding = Holding(
                self._database,
                self._handling,
                claim,
                asked_at=asked_at,
                measured=self._measured,
            )
            task = asyncio.create_task(holding.run())
            self.held[task] = holding
            task.add_done_callback(self._let_go)

    async def _ask(self, free: int) -> list[Claim]:
        async with self._database.transaction() as session:
            claims = await jobs.claim(session, self._handling.kind, limit=free, after=self._after)
        served = [claim.client_id for claim in claims if claim.client_id is not None]
        self._after = max((it for it in served if it > self._after), default=NOBODY)
        return claims

    def _let_go(self, task: asyncio.Task[None]) -> None:
        del self.held[task]
        # There may be more than there was room for.
        self.look.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("holding_crashed", exc_info=error)
