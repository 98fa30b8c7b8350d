"""Ends an answer: the last thing a run does, with the one fact that says how."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from chatserver.assistant.generation import policies
from chatserver.assistant.generation.events import message_fact
from chatserver.assistant.generation.models import Generation
from chatserver.assistant.generation.repository import GenerationRepository
from chatserver.assistant.generation.store import RUNNING
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.events import SYSTEM, Actor, Effect
from chatserver.rooms.events import room_fact
from chatserver.rooms.models import Room


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended. `usage`: the columns of `ai_usage`, None when nothing was used."""

    client_id: UUID
    message_id: UUID
    room_id: UUID
    generation: int
    status: str
    text: str
    index: int
    error_code: str | None = None
    error_message: str | None = None
    context: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None

    @property
    def stream(self) -> dict[str, Any]:
        """Say what whoever followed must have: so many deltas, which make this text."""
        return {
            "generation": self.generation,
            "deltas": self.index,
            "sha256": hashlib.sha256(self.text.encode()).hexdigest(),
        }


class EndingService:
    """Endings of one transaction."""

    def __init__(
        self,
        *,
        answers: GenerationRepository,
        recorder: Recorder,
        generation: Callable[[], int],
    ) -> None:
        self._answers = answers
        self._recorder = recorder
        self._generation = generation

    async def end(self, ending: Ending) -> bool:
        """Write how an answer ended. False: it is no longer the caller's to end."""
        room = await self._answers.lock_room(ending.client_id, ending.room_id)
        row = await self._answers.find(ending.client_id, ending.message_id, lock=True)
        message = await self._answers.find_message(ending.client_id, ending.message_id)
        if row is None or message is None:
            return False
        if row.generation != ending.generation or row.status not in RUNNING:
            return False
        await self._answers.end(
            row, status=ending.status, error_code=ending.error_code, index=ending.index
        )
        if message.deleted_at is None:
            is_complete = ending.status == "complete"
            message.content = ending.text if is_complete else ""
            message.partial_content = None if is_complete else ending.text
            message.error_message = ending.error_message
            message.context = ending.context
            message.details = {**message.details, "stream": ending.stream}
        message.status = ending.status
        await self._answers.flush()
        if ending.usage is not None:
            await self._answers.count_usage(
                {"client_id": row.client_id, "bot_id": row.bot_id, **ending.usage}
            )
        if room is None or message.deleted_at is not None:
            return True
        await self._entitle(room, row, ending)
        # The fact of the question's answer, replayed, shows the whole text: it says so.
        message.changed_seq = self._recorder.next_seq(room.id, room.last_seq)
        await self._answers.flush()
        members = await self._answers.members_of(row.message_id)
        if ending.context is not None:
            # Small, and what a reader of a finished answer needs; the passages are left out.
            members["context"] = {
                "omitted": True,
                **{
                    name: ending.context[name]
                    for name in ("citations", "model", "usage", "uncited")
                    if name in ending.context
                },
            }
        self._recorder.record(
            message_fact(
                "message.updated",
                row.client_id,
                members,
                Actor("bot", str(row.bot_id)),
                effect=Effect(ends=message.seq),
            )
        )
        return True

    async def _entitle(self, room: Room, row: Generation, ending: Ending) -> None:
        """Name a session after its first exchange, unless somebody has named it."""
        if room.type != "assistant" or room.title is not None or ending.status != "complete":
            return
        question = await self._answers.find_message(row.client_id, row.question_id)
        if question is None or not question.content.strip():
            return
        room.title = policies.title_of(question.content)
        await self._answers.flush()
        self._recorder.record(room_fact("room.updated", room, self._generation(), SYSTEM))
