"""Jobs that promise the deliveries of batches, part by part: whoever takes over goes on there."""

from typing import Protocol
from uuid import UUID

from chatserver.infra.job_kinds import SEND_BATCH
from chatserver.infra.jobs import Claim
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.opening import Open
from chatserver.realtime.errors import QuotaExceededError
from workers.holding import Handling


class Batches(Protocol):
    async def go_on(self, client_id: UUID, batch_id: UUID) -> bool:
        """Do the next part. False: there is none."""
        ...

    async def stall(self, batch_id: UUID, error: str) -> None:
        """Say why it does not go on."""
        ...


class BatchJobs:
    def __init__(self, open_batches: Open[Batches]) -> None:
        self._open_batches = open_batches

    def handlings(self) -> tuple[Handling, ...]:
        return (Handling(SEND_BATCH, self.send, concurrency=2),)

    async def send(self, claim: Claim) -> None:
        if claim.client_id is None:
            raise ValueError("a batch belongs to a client")
        batch_id = UUID(claim.payload["batch_id"])
        try:
            await self.send_all(claim.client_id, batch_id)
        except QuotaExceededError as error:
            # The job is tried again, later and later: the next hour has a quota of its own.
            async with self._open_batches() as batches:
                await batches.stall(batch_id, "quota")
            raise UnavailableError("the quota is used up") from error

    async def send_all(self, client_id: UUID, batch_id: UUID) -> None:
        """Promise what is left, each part in a transaction of its own."""
        goes_on = True
        while goes_on:
            async with self._open_batches() as batches:
                goes_on = await batches.go_on(client_id, batch_id)
