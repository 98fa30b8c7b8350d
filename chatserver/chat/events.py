"""The facts of a conversation, live and replayed: the same shape from the same code."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import orjson

from chatserver.chat.models import Message
from chatserver.chat.schemas import MessageOut
from chatserver.kernel.clock import rfc3339
from chatserver.kernel.events import Actor, Committed, Effect, Fact, encode
from chatserver.kernel.ids import uuid7
from chatserver.kernel.wire import Answer, Id, left_out
from chatserver.rooms.models import Room


class ThreadOf(Answer):
    id: Id
    reply_count: int


class MessageData(Answer):
    """What `message.*` facts carry; `thread` with a reply: how many its thread has by now."""

    message: MessageOut
    thread: ThreadOf | None = left_out()


class ReactionData(Answer):
    """What `reaction.changed` carries; `counts` is of all emoji of the message, as it is read."""

    message_id: Id
    emoji: str
    user_id: str | None
    op: Literal["add", "remove"]
    counts: dict[str, int]


class PinData(Answer):
    message_id: Id
    pinned: bool


class ReadData(Answer):
    """What `read.updated` carries; all but the first two only to one's own devices."""

    user_id: str
    read_seq: int
    unread: int | None = left_out()
    mentions: int | None = left_out()
    marked_unread: bool | None = left_out()
    total_unread: int | None = left_out()


class TypingData(Answer):
    """Everyone else who types now, at most 10 of them by name: all of it, each time."""

    users: list[str]
    count: int


class Tip(Answer):
    last_seq: int


class Tips(Answer):
    """Where rooms' logs end; a client that is behind asks with `room.replay`."""

    rooms: dict[str, Tip]


# The random bits of an id behind its version and variant.
_LAST: Final = (1 << 62) - 1


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
    silent: bool = False
    message_id: UUID = field(default_factory=uuid7)
    event_id: UUID = field(default_factory=uuid7)

    @property
    def wake_id(self) -> UUID:
        """Name the fact of the waking, if the room sleeps: of its own, made of the other two."""
        return UUID(int=self.event_id.int ^ self.message_id.int & _LAST)

    @property
    def identity(self) -> tuple[UUID, str, str]:
        """What makes two drafts the same send."""
        return (self.room_id, self.sender_key, self.client_msg_id)

    @property
    def actor(self) -> Actor:
        if self.sender == "user":
            return Actor("user", self.sender_id)
        return Actor("system")


@dataclass(slots=True)
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
    thread_id: UUID | None = None
    # How many replies the thread has with this one.
    reply_count: int | None = None
    # When whoever must wait may try again.
    wait_ms: int | None = None
    # A stored message as it stands on the wire; see `written`.
    message: bytes | None = None


def written(draft: Draft, outcome: Outcome) -> bytes:
    """Give a message that was just stored as it stands on the wire: written once for all."""
    if outcome.message is None:
        outcome.message = orjson.dumps(_members(draft, outcome))
    return outcome.message


def _members(draft: Draft, outcome: Outcome) -> dict[str, Any]:
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
        "version": 1,
        "silent": draft.silent,
        "thread_id": None if outcome.thread_id is None else str(outcome.thread_id),
        "reply_count": 0,
        "edited_at": None,
        "deleted_at": None,
        "created_at": rfc3339(outcome.ts),
        "client_msg_id": draft.client_msg_id,
    }


def message_data(members: dict[str, Any], replies: int | None) -> dict[str, Any]:
    """Give the data of a `message.*` fact; `replies`: how many its thread has, if it is in one."""
    data: dict[str, Any] = {"message": members}
    if members["thread_id"] is not None and replies is not None:
        data["thread"] = {"id": members["thread_id"], "reply_count": replies}
    return data


def created(draft: Draft, outcome: Outcome, generation: int) -> Committed:
    """Announce a message that was just stored."""
    data: dict[str, Any] = {"message": orjson.Fragment(written(draft, outcome))}
    if outcome.thread_id is not None and outcome.reply_count is not None:
        data["thread"] = {"id": str(outcome.thread_id), "reply_count": outcome.reply_count}
    body = encode(
        type="message.created",
        id=draft.event_id,
        room_id=draft.room_id,
        epoch=f"{generation}.{outcome.epoch}",
        seq=outcome.seq,
        ts=outcome.ts,
        actor=draft.actor,
        data=data,
        client_msg_id=draft.client_msg_id,
    )
    return Committed(
        client_id=draft.client_id,
        room_id=draft.room_id,
        seq=outcome.seq,
        type="message.created",
        body=body,
    )


def message_fact(name: str, room: Room, actor: Actor, members: dict[str, Any]) -> Fact:
    """Announce that a message changed; the log refers to it, as it is when it is read."""
    return Fact(
        type=name,
        client_id=room.client_id,
        room_id=room.id,
        actor=actor,
        data={"message": members},
        message_id=UUID(members["id"]),
    )


def reaction_fact(
    room: Room, actor: Actor, message: Message, emoji: str, op: Literal["add", "remove"]
) -> Fact:
    return Fact(
        type="reaction.changed",
        client_id=room.client_id,
        room_id=room.id,
        actor=actor,
        data={
            "message_id": str(message.id),
            "emoji": emoji,
            "user_id": actor.id,
            "op": op,
            "counts": {each["emoji"]: each["count"] for each in message.reactions},
        },
        unlogged=frozenset({"counts"}),
    )


def pin_fact(room: Room, actor: Actor, message: Message) -> Fact:
    return Fact(
        type="pin.changed",
        client_id=room.client_id,
        room_id=room.id,
        actor=actor,
        data={"message_id": str(message.id), "pinned": message.pinned},
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
