"""Messages, the log and recovery, as callers send and see them."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, StringConstraints

from chatserver.kernel.wire import (
    Answer,
    ExternalId,
    Id,
    Metadata,
    Request,
    Timestamp,
    left_out,
)
from chatserver.rooms.schemas import MemberOut, RoomOut

ClientMsgId: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Seq: TypeAlias = Annotated[int, Field(ge=0, le=2**53 - 1)]
Attachment: TypeAlias = Annotated[dict[str, Any], Field(max_length=32)]


class SendMessage(Request):
    """`client_msg_id` makes a retry safe for ever: it returns the first message."""

    room_id: Id
    content: Annotated[str, Field(min_length=1)]
    client_msg_id: ClientMsgId
    reply_to: Id | None = None
    attachments: Annotated[list[Attachment], Field(max_length=30)] = []
    mentions: Annotated[list[ExternalId], Field(max_length=100)] = []
    metadata: Metadata = {}


class PostMessage(SendMessage):
    """In REST `client_msg_id` may be left out, and a master key may name the sender."""

    client_msg_id: ClientMsgId | None = None  # type: ignore[assignment]  # optional here on purpose
    sender_id: ExternalId | None = None


class MessageRef(Request):
    message_id: Id


class ListMessages(Request):
    """`after_seq` reads forward, `before_seq` backward; neither: the newest."""

    room_id: Id
    after_seq: Seq | None = None
    before_seq: Seq | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class ListEvents(Request):
    room_id: Id
    after_seq: Seq = 0
    limit: Annotated[int, Field(ge=1, le=300)] = 100


class RoomRequest(Request):
    room_id: Id


class Position(Request):
    """How much of a room's log a device has."""

    epoch: Annotated[str, StringConstraints(max_length=64)]
    seq: Seq


class Sync(Request):
    """With `cursor`, only what changed since comes back; `rooms` says what the device has."""

    cursor: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = None
    rooms: Annotated[dict[Id, Position], Field(max_length=500)] = {}


class Replay(Request):
    room_id: Id
    epoch: Annotated[str, StringConstraints(max_length=64)] | None = None
    after_seq: Seq
    limit: Annotated[int, Field(ge=1, le=300)] = 300


class MessageOut(Answer):
    """A message. `seq` is its place in the room's log, `msg_no` counts messages alone."""

    id: Id
    room_id: Id
    seq: int
    msg_no: int
    sender: Literal["user", "ai", "system"]
    sender_id: str | None
    content: str
    status: str
    partial_content: str | None
    error_message: str | None
    context: dict[str, Any] | None
    reply_to: Id | None
    attachments: list[Any]
    mentions: list[str]
    metadata: dict[str, Any]
    reactions: list[Any]
    pinned: bool
    edited_at: Timestamp | None
    deleted_at: Timestamp | None
    created_at: Timestamp
    client_msg_id: str


class Sent(Answer):
    """The stored message. `duplicate`: it was stored before, nothing happened now."""

    message: MessageOut
    duplicate: bool

    @property
    def is_repeat(self) -> bool:
        return self.duplicate


class Messages(Answer):
    """Messages in seq order; `has_more` in the direction of reading."""

    items: list[MessageOut]
    has_more: bool


class Events(Answer):
    """Facts of a room's log, in order. `complete`: there are no more up to `last_seq`."""

    events: list[dict[str, Any]]
    last_seq: int
    complete: bool


class Snapshot(Answer):
    """A room as it is at `as_of_seq`: apply facts after it, and nothing is missed."""

    room: RoomOut
    me: dict[str, Any] | None
    members: list[MemberOut]
    members_count: int
    messages: list[MessageOut]
    pins: list[MessageOut]
    reads: list[dict[str, Any]]
    epoch: str
    as_of_seq: int


class SyncedRoom(Answer):
    """Where a room stands for the caller; `events` when few are missing, else `behind`."""

    epoch: str | None = left_out()
    last_seq: int | None = left_out()
    min_seq: int | None = left_out()
    read_seq: int | None = left_out()
    unread: int | None = left_out()
    mentions: int | None = left_out()
    reads: list[dict[str, Any]] | None = left_out()
    events: list[dict[str, Any]] | None = left_out()
    behind: bool | None = left_out()
    error: dict[str, Any] | None = left_out()


class Removed(Answer):
    room_id: Id
    reason: str
    at: Timestamp


class JoinedRoom(Answer):
    room: RoomOut
    member: dict[str, Any]


class Synced(Answer):
    cursor: str
    rooms_version: int
    rooms: dict[str, SyncedRoom]
    joined: list[JoinedRoom]
    removed: list[Removed]
    more: bool | None = left_out()


class MessageData(Answer):
    """What `message.*` facts carry."""

    message: MessageOut


class Tip(Answer):
    last_seq: int


class Tips(Answer):
    """Where rooms' logs end; a client that is behind asks with `room.replay`."""

    rooms: dict[str, Tip]
