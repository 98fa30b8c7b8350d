"""Jobs of the assistant: writing answers, and looking whether a message wants one."""

from typing import Protocol
from uuid import UUID

from chatserver.infra.job_kinds import CONSIDER_ANSWER, WRITE_ANSWER
from chatserver.infra.jobs import Claim
from chatserver.kernel.opening import Open
from workers.holding import Handling


class Writes(Protocol):
    async def answer(self, client_id: UUID, message_id: UUID, *, job: UUID, fence: int) -> None:
        """Write an answer to its end."""
        ...


class Considers(Protocol):
    async def consider(self, client_id: UUID, room_id: UUID, message_id: UUID) -> None:
        """Let the bots of a room answer a message if it is for them to answer."""
        ...


class AnswerJobs:
    """`at_once`: answers that one process writes at a time, all in one loop."""

    def __init__(self, *, handler: Writes, open_answers: Open[Considers], at_once: int) -> None:
        self._handler = handler
        self._open_answers = open_answers
        self._at_once = at_once

    def handlings(self) -> tuple[Handling, ...]:
        return (
            Handling(WRITE_ANSWER, self.write, concurrency=self._at_once),
            Handling(CONSIDER_ANSWER, self.consider, concurrency=8),
        )

    async def write(self, claim: Claim) -> None:
        if claim.client_id is None:
            raise ValueError("an answer belongs to a client")
        await self._handler.answer(
            claim.client_id, UUID(claim.payload["message_id"]), job=claim.id, fence=claim.fence
        )

    async def consider(self, claim: Claim) -> None:
        if claim.client_id is None:
            raise ValueError("a message belongs to a client")
        room_id, message_id = claim.payload["room_id"], claim.payload["message_id"]
        async with self._open_answers() as answers:
            await answers.consider(claim.client_id, UUID(room_id), UUID(message_id))
