"""Jobs about what is stored of people, and for how long."""

from typing import Protocol
from uuid import UUID

from chatserver.infra.job_kinds import ERASE_USER, RETAIN
from chatserver.infra.jobs import Claim
from workers.holding import Handling


class Erases(Protocol):
    async def erase(self, erasure_id: UUID) -> None:
        """Do what is left of an erasure."""
        ...


class Retains(Protocol):
    async def apply(self) -> int:
        """Remove what is older than its client keeps it."""
        ...


class PrivacyJobs:
    def __init__(self, *, eraser: Erases, keeper: Retains) -> None:
        self._eraser = eraser
        self._keeper = keeper

    def handlings(self) -> tuple[Handling, ...]:
        return (Handling(ERASE_USER, self.erase, concurrency=2), Handling(RETAIN, self.retain))

    async def erase(self, claim: Claim) -> None:
        await self._eraser.erase(UUID(claim.payload["erasure_id"]))

    async def retain(self, _: Claim) -> None:
        await self._keeper.apply()
