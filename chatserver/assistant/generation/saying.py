"""Messages that the assistant writes: questions, pending answers, and what others answered."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from chatserver.assistant.generation.events import message_fact
from chatserver.assistant.generation.repository import GenerationRepository
from chatserver.chat.models import Message
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.events import SYSTEM, Actor
from chatserver.kernel.ids import uuid7
from chatserver.rooms.models import Room


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message to be written into a locked room."""

    sender: str
    sender_id: str | None
    sender_key: str
    client_msg_id: str
    content: str
    status: str = "complete"
    body_hash: bytes = b""
    reply_to: UUID | None = None
    metadata: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    created_at: datetime | None = None
    # Who is named in the log, where it is not the sender.
    actor_type: str = ""

    @property
    def actor(self) -> Actor:
        if self.actor_type == "system":
            return SYSTEM
        if self.sender == "ai":
            return Actor("bot", self.sender_id)
        return Actor("user", self.sender_id) if self.sender == "user" else SYSTEM


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A message that is only stored: nobody answers it. `ai`: made elsewhere, as the bot's."""

    sender: str
    bot_id: UUID | None
    content: str
    client_msg_id: str
    context: dict[str, Any] | None = None
    created_at: datetime | None = None
    is_import: bool = False


class Speaker:
    """Writes messages in a transaction that has the room locked."""

    def __init__(self, answers: GenerationRepository, recorder: Recorder) -> None:
        self._answers = answers
        self._recorder = recorder

    async def write(self, room: Room, said: Said, *, user_id: UUID | None) -> dict[str, Any]:
        """Write a message into a locked, active room, and announce it; as it is on the wire."""
        message_id = uuid7()
        seq = self._recorder.next_seq(room.id, room.last_seq)
        room.msg_no += 1
        message = Message(
            id=message_id,
            client_id=room.client_id,
            room_id=room.id,
            seq=seq,
            msg_no=room.msg_no,
            sender=said.sender,
            sender_id=said.sender_id,
            sender_key=said.sender_key,
            client_msg_id=said.client_msg_id,
            body_hash=said.body_hash,
            content=said.content,
            status=said.status,
            reply_to=said.reply_to,
            details=said.metadata or {},
            context=said.context,
        )
        if said.created_at is not None:
            message.created_at = said.created_at
        self._answers.add(message)
        await self._answers.flush()
        await self._answers.spoken(room.id, seq=seq, msg_no=room.msg_no, user_id=user_id)
        members = await self._answers.members_of(message_id)
        self._recorder.record(
            message_fact("message.created", room.client_id, members, said.actor, is_created=True)
        )
        return members
