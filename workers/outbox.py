"""Lets durable reactions follow facts: whatever dies meanwhile, each row is dispatched once."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias
from uuid import UUID

import structlog

from chatserver.infra import outbox, tracing
from chatserver.infra.outbox import OutboxRow
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.opening import Open
from workers.condition import Condition
from workers.outcome import describe

BATCH: Final = 100

Reaction: TypeAlias = Callable[[UnitOfWork, OutboxRow], Awaitable[None]]
Later: TypeAlias = Mapping[str, Sequence[Reaction]]
# Reacts to all facts of a batch at once, those that do not concern it included.
Together: TypeAlias = Callable[[UnitOfWork, Sequence[OutboxRow]], Awaitable[None]]

log = structlog.get_logger()


class Dispatcher:
    """Takes rows and runs their reactions in one transaction; on every worker at once."""

    def __init__(
        self,
        open_work: Open[UnitOfWork],
        later: Later,
        *,
        poll_s: float,
        together: Sequence[Together] = (),
    ) -> None:
        self._open_work = open_work
        self._later = later
        self._together = together
        self._poll_s = poll_s
        self._condition = Condition("outbox")
        self._look = asyncio.Event()
        self._is_stopping = False
        self._loop = asyncio.get_running_loop()
        # For metrics.
        self.dispatched = 0
        self.put_off = 0

    def wake(self) -> None:
        """Look now. Callable from any thread, and at any time."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._look.set)

    def stop(self) -> None:
        """Let `run` return after the batch that is under way."""
        self._is_stopping = True
        self._look.set()

    async def run(self) -> None:
        """Dispatch whenever woken, and once a second besides, until `stop`."""
        while not self._is_stopping:
            self._look.clear()
            try:
                await self.dispatch_all()
                self._condition.works()
            except Exception as error:  # noqa: BLE001 - told once, with its trace; tried again
                self._condition.fails(error)
            await self._pause()

    async def dispatch_all(self) -> int:
        """Dispatch what is due; the number of rows that were dispatched or put off.

        Raises:
            UnavailableError: PostgreSQL is away; every row is still there.
        """
        dispatched = 0
        while not self._is_stopping:
            count = await self._batch()
            dispatched += count
            if count < BATCH:
                break
        return dispatched

    async def _batch(self) -> int:
        taken: list[int] = []
        try:
            async with self._open_work() as work:
                rows = await outbox.take(work.session, limit=BATCH)
                taken = [row.id for row in rows]
                await self._react(work, rows)
            self.dispatched += len(taken)
        except Exception:
            if not taken:
                raise
            # All of them are back. One is at fault: alone, each fails or succeeds for itself.
            for row_id in taken:
                await self._one(row_id)
        return len(taken)

    async def _one(self, row_id: int) -> None:
        try:
            async with self._open_work() as work:
                await self._react(work, await outbox.take(work.session, limit=1, only=row_id))
            self.dispatched += 1
        except Exception as error:  # noqa: BLE001 - whatever it was, it is the row's own fault
            self.put_off += 1
            await self._put_off(row_id, error)

    async def _put_off(self, row_id: int, error: Exception) -> None:
        async with self._open_work() as work:
            is_set_aside = await outbox.put_off(work.session, row_id, error=describe(error))
        if is_set_aside:
            log.error("outbox_row_set_aside", outbox_id=row_id, exc_info=error)
        else:
            log.warning("outbox_row_put_off", outbox_id=row_id, error=describe(error))

    async def _react(self, work: UnitOfWork, rows: Sequence[OutboxRow]) -> None:
        traces: dict[UUID, str] = {}
        for row in rows:
            parent = tracing.taken_from(row.data)
            if parent is not None:
                traces[row.fact_id] = parent
            # A type that is not in the table comes from a newer server: its workers will know it.
            with tracing.span(f"outbox {row.type}", parent=parent, kind="consumer"):
                for reaction in self._later[row.type]:
                    await reaction(work, row)
        tracing.remember(traces)
        if rows:
            for react in self._together:
                await react(work, rows)

    async def _pause(self) -> None:
        jittered = self._poll_s * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
        try:
            async with asyncio.timeout(jittered):
                await self._look.wait()
        except TimeoutError:
            return
