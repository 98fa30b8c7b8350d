"""The facts of a conversation, live and replayed: the same shape from the same code."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from chatserver.kernel.clock import rfc3339
from chatserver.kernel.events import Actor, Committed, Effect, encode
from chatserver.kernel.ids import uuid7


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message that was checked and waits to be stored."""

    client_id: UUID
    room_id: UUID
    user_id: UUID | None
    sender: str
    sender_id: str | None
    sender_key: str
    client_msg_id: str
    body_hash: bytes
    content: str
    reply_to: UUID | None
    attachments: list[Any]
    mentions: list[str]
    metadata: dict[str, Any]
    message_id: UUID = field(default_factory=uuid7)
    event_id: UUID = field(default_factory=uuid7)
    wake_id: UUID = field(default_factory=uuid7)

    @property
    def identity(self) -> tuple[UUID, str, str]:
        """What makes two drafts the same send."""
        return (self.room_id, self.sender_key, self.client_msg_id)

    @property
    def actor(self) -> Actor:
        if self.sender == "user":
            return Actor("user", self.sender_id)
        return Actor("system")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `chat_store` did with a draft."""

    outcome: str
    message_id: UUID | None
    seq: int | None
    msg_no: int | None
    ts: datetime
    epoch: int | None
    woke_seq: int | None
    # Whether something follows later: its outbox row is committed.
    later: bool = False


def message_members(draft: Draft, outcome: Outcome) -> dict[str, Any]:
    """Give a message that was just stored as it stands on the wire."""
    return {
        "id": str(draft.message_id),
        "room_id": str(draft.room_id),
        "seq": outcome.seq,
        "msg_no": outcome.msg_no,
        "sender": draft.sender,
        "sender_id": draft.sender_id,
        "content": draft.content,
        "status": "complete",
        "partial_content": None,
        "error_message": None,
        "context": None,
        "reply_to": None if draft.reply_to is None else str(draft.reply_to),
        "attachments": draft.attachments,
        "mentions": draft.mentions,
        "metadata": draft.metadata,
        "reactions": [],
        "pinned": False,
        "edited_at": None,
        "deleted_at": None,
        "created_at": rfc3339(outcome.ts),
        "client_msg_id": draft.client_msg_id,
    }


def created(draft: Draft, outcome: Outcome, members: dict[str, Any], generation: int) -> Committed:
    """Announce a message that was just stored."""
    body = encode(
        type="message.created",
        id=draft.event_id,
        room_id=draft.room_id,
        epoch=f"{generation}.{outcome.epoch}",
        seq=outcome.seq,
        ts=outcome.ts,
        actor=draft.actor,
        data={"message": members},
        client_msg_id=draft.client_msg_id,
    )
    return Committed(
        client_id=draft.client_id,
        room_id=draft.room_id,
        seq=outcome.seq,
        type="message.created",
        body=body,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """A row of the log with what it refers to, read back."""

    client_id: UUID
    room_id: UUID
    epoch: str
    seq: int
    id: UUID
    type: str
    ts: datetime
    actor: Actor
    data: dict[str, Any]
    effect: Effect
    client_msg_id: str | None
    superseded: bool

    def members(self) -> dict[str, Any]:
        """Give the fact as a caller sees it, replayed."""
        members: dict[str, Any] = {
            "v": 1,
            "type": self.type,
            "id": str(self.id),
            "room_id": str(self.room_id),
            "epoch": self.epoch,
            "seq": self.seq,
            "ts": rfc3339(self.ts),
            "actor": {"type": self.actor.type, "id": self.actor.id},
            "data": self.data,
        }
        if self.client_msg_id is not None:
            members["client_msg_id"] = self.client_msg_id
        if self.superseded:
            members["superseded"] = True
        return members

    def committed(self) -> Committed:
        """Give the fact as the engine shows it, to repair what a live push lost."""
        body = encode(
            type=self.type,
            id=self.id,
            room_id=self.room_id,
            epoch=self.epoch,
            seq=self.seq,
            ts=self.ts,
            actor=self.actor,
            data=self.data,
            client_msg_id=self.client_msg_id,
            extra={"superseded": True} if self.superseded else None,
        )
        return Committed(
            client_id=self.client_id,
            room_id=self.room_id,
            seq=self.seq,
            type=self.type,
            body=body,
            effect=self.effect,
        )
