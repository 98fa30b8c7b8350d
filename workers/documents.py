"""Jobs about documents: reading them, and removing what is left of them."""

from typing import Protocol
from uuid import UUID

from chatserver.infra.job_kinds import (
    PROCESS_DOCUMENT,
    PURGE_DOCUMENTS,
    REEMBED_BOT,
    SETTLE_DOCUMENTS,
)
from chatserver.infra.jobs import Claim
from workers.holding import Handling


class Trains(Protocol):
    async def process(self, client_id: UUID, job_id: UUID) -> None:
        """Do one training job, whatever of it was done before."""
        ...


class Purges(Protocol):
    async def purge_document(self, client_id: UUID, document_id: UUID) -> None: ...

    async def purge_bot(self, client_id: UUID, bot_id: UUID) -> None: ...


class Reembeds(Protocol):
    async def process(self, client_id: UUID, job_id: UUID) -> None:
        """Embed a bot anew, whatever of it was done before."""
        ...


class Settles(Protocol):
    async def settle(self) -> None: ...


class DocumentJobs:
    def __init__(
        self, *, trainer: Trains, purger: Purges, reembedder: Reembeds, settler: Settles
    ) -> None:
        self._trainer = trainer
        self._purger = purger
        self._reembedder = reembedder
        self._settler = settler

    def handlings(self) -> tuple[Handling, ...]:
        return (
            # Two at a time: while one embeds, the next is read.
            Handling(PROCESS_DOCUMENT, self.process, concurrency=2),
            Handling(PURGE_DOCUMENTS, self.purge),
            Handling(REEMBED_BOT, self.reembed),
            Handling(SETTLE_DOCUMENTS, self.settle),
        )

    async def process(self, claim: Claim) -> None:
        await self._trainer.process(_client_of(claim), UUID(claim.payload["job_id"]))

    async def purge(self, claim: Claim) -> None:
        if "bot_id" in claim.payload:
            await self._purger.purge_bot(_client_of(claim), UUID(claim.payload["bot_id"]))
        else:
            await self._purger.purge_document(_client_of(claim), UUID(claim.payload["document_id"]))

    async def reembed(self, claim: Claim) -> None:
        await self._reembedder.process(_client_of(claim), UUID(claim.payload["job_id"]))

    async def settle(self, _: Claim) -> None:
        await self._settler.settle()


def _client_of(claim: Claim) -> UUID:
    if claim.client_id is None:
        raise ValueError("a document belongs to a client")
    return claim.client_id
