"""Jobs about searching. Following the log is no job: `chatserver/search/indexing.py` runs it."""

from typing import Protocol
from uuid import UUID

from chatserver.infra.job_kinds import REINDEX
from chatserver.infra.jobs import Claim
from workers.holding import Handling


class Indexes(Protocol):
    async def again(self, client_id: UUID) -> int:
        """Index all messages of a client anew."""
        ...


class SearchJobs:
    def __init__(self, *, indexer: Indexes) -> None:
        self._indexer = indexer

    def handlings(self) -> tuple[Handling, ...]:
        return (Handling(REINDEX, self.again),)

    async def again(self, claim: Claim) -> None:
        if claim.client_id is None:
            raise ValueError("a client's messages are indexed anew")
        await self._indexer.again(claim.client_id)
