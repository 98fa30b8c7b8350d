"""Jobs about files."""

from typing import Protocol
from uuid import UUID

from chatserver.infra.job_kinds import CHECK_FILE, SWEEP_FILES
from chatserver.infra.jobs import Claim
from workers.holding import Handling


class Files(Protocol):
    async def process(self, client_id: UUID, file_id: UUID) -> None:
        """Check an upload, draw its thumbnail."""
        ...


class Janitor(Protocol):
    async def sweep(self) -> int:
        """Remove what nobody needs any more."""
        ...


class FileJobs:
    def __init__(self, *, service: Files, janitor: Janitor) -> None:
        self._service = service
        self._janitor = janitor

    def handlings(self) -> tuple[Handling, ...]:
        return (
            Handling(CHECK_FILE, self.check, concurrency=2),
            Handling(SWEEP_FILES, self.sweep),
        )

    async def check(self, claim: Claim) -> None:
        if claim.client_id is None:
            raise ValueError("a file is a client's")
        await self._service.process(claim.client_id, UUID(claim.payload["file_id"]))

    async def sweep(self, _: Claim) -> None:
        await self._janitor.sweep()
