"""Jobs about what came by inbound webhooks."""

from typing import Protocol
from uuid import UUID

from chatserver.infra.job_kinds import RUN_INBOUND
from chatserver.infra.jobs import Claim
from workers.holding import Handling


class Runs(Protocol):
    async def run(self, event_id: UUID) -> None:
        """Do what is left to do for an event."""
        ...


class SourceJobs:
    def __init__(self, runner: Runs) -> None:
        self._runner = runner

    def handlings(self) -> tuple[Handling, ...]:
        return (Handling(RUN_INBOUND, self.run, concurrency=8),)

    async def run(self, claim: Claim) -> None:
        await self._runner.run(UUID(claim.payload["event_id"]))
