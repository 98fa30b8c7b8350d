"""Looks once a minute whether somebody lost something, and whether what was promised is there."""

import time
from datetime import UTC, timedelta
from typing import Final, Protocol
from uuid import UUID

import structlog

from chatserver.deliveries.selection import first_id, whole_days
from chatserver.deliveries.watching import WatchRepository
from chatserver.infra.database import Database
from chatserver.infra.job_kinds import WATCH_DELIVERIES
from chatserver.infra.jobs import Claim
from chatserver.kernel.clock import utc_now
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.opening import Open
from workers.holding import Handling

# Counting the rows of two days is dearer than the rest.
BALANCE_EVERY_S: Final = 600.0

log = structlog.get_logger()


class Failures(Protocol):
    async def following(self) -> list[UUID]:
        """Give the clients that want to know."""
        ...

    async def tell(self, client_id: UUID) -> int:
        """Tell one what it lost since the last time."""
        ...


class DeliveryWatch:
    def __init__(self, database: Database, open_failures: Open[Failures]) -> None:
        self._database = database
        self._open_failures = open_failures
        self._balanced_at = -BALANCE_EVERY_S

    def handlings(self) -> tuple[Handling, ...]:
        return (Handling(WATCH_DELIVERIES, self.watch),)

    async def watch(self, _: Claim) -> None:
        await self.tell_failures()
        if time.monotonic() - self._balanced_at >= BALANCE_EVERY_S:
            self._balanced_at = time.monotonic()
            await self.balance()

    async def tell_failures(self) -> None:
        """Tell each client that follows it what it lost."""
        async with self._open_failures() as failures:
            following = await failures.following()
        for client_id in following:
            async with self._open_failures() as failures:
                await failures.tell(client_id)

    async def balance(self) -> int:
        """Hold what was promised since yesterday against what is there; how many books differ."""
        today = utc_now().astimezone(UTC).date()
        first = today - timedelta(days=1)
        start, _ = whole_days(first, today)
        try:
            async with self._database.transaction() as session:
                found = await WatchRepository(session).unbalanced(first, first_id(start))
        except UnavailableError:
            # Too many for one look.
            log.warning("ledger_not_counted")
            return 0
        for client_id, channel, promised, made in found:
            log.error(
                "ledger_unbalanced",
                client_id=str(client_id),
                channel=channel,
                promised=promised,
                there=made,
            )
        return len(found)
