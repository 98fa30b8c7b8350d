"""Plans what is due and sweeps after dead workers: one process at a time, others stand by."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from chatserver.infra import jobs
from chatserver.infra.cluster import AdvisoryLeader, Role
from chatserver.infra.database import Database, outages
from chatserver.infra.job_kinds import KINDS, JobKind
from chatserver.infra.jobs import Doorbell
from chatserver.kernel.errors import UnavailableError
from workers.condition import Condition
from workers.schedule import PERIODIC, Periodic, Timetable

STANDBY_S: Final = 2.0

log = structlog.get_logger()


class Scheduler:
    """Holds the role by an advisory lock on one connection and does all its work through that one.

    So whoever has lost the connection, and with it the role, can't plan any more.
    """

    def __init__(
        self,
        database: Database,
        doorbell: Doorbell,
        *,
        periodic: Sequence[Periodic] = PERIODIC,
        kinds: Sequence[JobKind] = tuple(KINDS.values()),
        sweep_every_s: float | None = None,
        standby_s: float = STANDBY_S,
    ) -> None:
        self._role = AdvisoryLeader(database, Role.SCHEDULER)
        self._doorbell = doorbell
        self._periodic = periodic
        # The kinds by how often dead workers of theirs are looked for.
        self._sweeps: dict[float, list[JobKind]] = {}
        for kind in kinds:
            self._sweeps.setdefault(sweep_every_s or kind.sweep_s, []).append(kind)
        self._standby_s = standby_s
        self._condition = Condition("postgresql")
        self._stopping = asyncio.Event()
        # Set once PostgreSQL answered for the first time; the role may be somebody else's.
        self.ready = asyncio.Event()
        self.is_active = False
        # For metrics: jobs that were planned by kind; those of dead workers by kind and state.
        self.planned: Counter[str] = Counter()
        self.swept: Counter[tuple[str, str]] = Counter()

    def stop(self) -> None:
        """Let `run` return after the statement that is under way."""
        self._stopping.set()

    async def run(self) -> None:
        """Wait for the role, do its work, and begin again when it is lost, until `stop`."""
        while not self._stopping.is_set():
            try:
                with outages():
                    await self._try_role()
            except Exception as error:  # noqa: BLE001 - told once, with its trace; tried again
                self._condition.fails(error)
            if self.is_active:
                self.is_active = False
                if not self._stopping.is_set():
                    log.warning("scheduler_lost_role")
            await self._pause(self._standby_s * random.uniform(0.75, 1.25))  # noqa: S311

    async def _try_role(self) -> None:
        try:
            leads = await self._role.leads()
            self._condition.works()
            self.ready.set()
            if leads and self._role.connection is not None:
                log.info("scheduler_active")
                self.is_active = True
                await self._serve(self._role.connection)
        finally:
            # Closed, not kept: the lock must not outlive the role.
            await self._role.resign()

    async def _serve(self, connection: AsyncConnection) -> None:
        every_s = [*self._sweeps, *(periodic.every_s for periodic in self._periodic)]
        timetable = Timetable(every_s, now=time.monotonic())
        while not self._stopping.is_set():
            for place in timetable.due(time.monotonic()):
                await self._do(connection, place)
            await self._pause(timetable.wait_s(time.monotonic()))

    async def _do(self, connection: AsyncConnection, place: int) -> None:
        sweeps = list(self._sweeps.values())
        duty = self._periodic[place - len(sweeps)].kind if place >= len(sweeps) else None
        try:
            with outages():
                if duty is None:
                    await self._sweep(connection, sweeps[place])
                else:
                    await self._plan(connection, duty)
        except UnavailableError:
            raise
        except Exception:
            # A bug in one duty is no reason to leave the others undone.
            log.exception("duty_failed", job=None if duty is None else duty.name)

    async def _plan(self, connection: AsyncConnection, kind: JobKind) -> None:
        async with AsyncSession(connection) as session, session.begin():
            is_new = await jobs.plan(session, kind, dedupe="periodic")
        if is_new:
            self.planned[kind.name] += 1
            self._doorbell.ring([kind.name])

    async def _sweep(self, connection: AsyncConnection, kinds: Sequence[JobKind]) -> None:
        for kind in kinds:
            async with AsyncSession(connection) as session, session.begin():
                swept = await jobs.sweep(session, kind)
            for state, count in swept.items():
                self.swept[kind.name, state] += count
            if swept.get("failed"):
                log.error("jobs_failed", job=kind.name, count=swept["failed"], error="worker died")
            if swept.get("queued"):
                log.warning("jobs_taken_back", job=kind.name, count=swept["queued"])
                self._doorbell.ring([kind.name])

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
