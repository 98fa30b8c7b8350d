"""Messages, the log and recovery, as callers send and see them."""

import unicodedata
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema, model_validator

from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import (
    EXTERNAL_ID,
    Answer,
    ExternalId,
    Id,
    Metadata,
    Request,
    Timestamp,
    defaulting,
    is_external_id,
    left_out,
)
from chatserver.rooms.schemas import MemberOut, RoomOut

ClientMsgId: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Seq: TypeAlias = Annotated[int, Field(ge=0, le=2**53 - 1)]
Attachment: TypeAlias = Annotated[dict[str, Any], Field(max_length=32)]
# No external id has a `!`: what begins with one means many people.
MENTIONED: Final = ("!here", "!everyone")
ROLE: Final = "!role:"
_ROLES: Final = ("owner", "admin", "moderator", "member", "guest")
_WITHOUT_SIGHT: Final = {"Cc", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"}


def _mention(name: str) -> str:
    if name in MENTIONED or (name.removeprefix(ROLE) in _ROLES and name.startswith(ROLE)):
        return name
    if not is_external_id(name):
        msg = "must be an external id, !here, !everyone or !role:moderator"
        raise ValueError(msg)
    return name


def _emoji(text: str) -> str:
    normal = unicodedata.normalize("NFC", text)
    kinds = [unicodedata.category(character) for character in normal]
    if _WITHOUT_SIGHT & set(kinds) or all(kind in {"Cf", "Mn"} for kind in kinds):
        msg = "must be an emoji or a short name, without spaces"
        raise ValueError(msg)
    return normal


Mention: TypeAlias = Annotated[
    str,
    AfterValidator(_mention),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"{EXTERNAL_ID}|^!(here|everyone|role:({'|'.join(_ROLES)}))$",
        }
    ),
]
Emoji: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=64), AfterValidator(_emoji)
]


class SendMessage(Request):
    """`client_msg_id` makes a retry safe for ever: it returns the first message."""

    room_id: Id
    content: str = Field(description="May be empty where there are attachments.")
    client_msg_id: ClientMsgId
    reply_to: Id | None = None
    # Not `= []`: a default like that is copied deeply for every message.
    attachments: Annotated[list[Attachment], Field(max_length=30)] = defaulting(list)
    mentions: Annotated[list[Mention], Field(max_length=100)] = defaulting(list)
    metadata: Metadata = defaulting(dict)
    silent: bool = Field(
        default=False, description="It counts for nobody as unread, and disturbs nobody."
    )


class PostMessage(SendMessage):
    """In REST `client_msg_id` may be left out, and a master key may name the sender."""

    client_msg_id: ClientMsgId | None = None  # type: ignore[assignment]  # optional here on purpose
    sender_id: ExternalId | None = None


class MessageRef(Request):
    message_id: Id


class EditMessage(Request):
    """What is left out stays as it is; `if_version` refuses to overwrite another edit."""

    message_id: Id
    content: Annotated[str, Field(min_length=1)] | None = None
    mentions: Annotated[list[Mention], Field(max_length=100)] | None = None
    metadata: Metadata | None = None
    if_version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None

    @model_validator(mode="after")
    def _something(self) -> "EditMessage":
        if self.content is None and self.mentions is None and self.metadata is None:
            msg = "name at least one of content, mentions, metadata"
            raise ValueError(msg)
        return self


class React(Request):
    message_id: Id
    emoji: Emoji


class ListReactions(PageRequest):
    message_id: Id
    emoji: Emoji | None = None


class ListThread(Request):
    """The replies to a message, and to its replies: `after_seq` forward, `before_seq` backward."""

    message_id: Id
    after_seq: Seq | None = None
    before_seq: Seq | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class MarkRead(Request):
    """Without `seq`: everything there is."""

    room_id: Id
    seq: Seq | None = None


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
    rooms: Annotated[dict[Id, Position], Field(max_length=500)] = defaulting(dict)


class Replay(Request):
    room_id: Id
    epoch: Annotated[str, StringConstraints(max_length=64)] | None = None
    after_seq: Seq
    limit: Annotated[int, Field(ge=1, le=300)] = 300


class ReactionCount(Answer):
    """How often an emoji was given; `me`: by the caller, too. Facts have no `me`."""

    emoji: str
    count: int
    me: bool | None = left_out()


class MessageOut(Answer):
    """A message. `seq` is its place in the room's log, `msg_no` counts messages alone.

    `version` rises with every change of it, `thread_id` is the message that began its thread.
    """

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
    reactions: list[ReactionCount]
    pinned: bool
    version: int
    silent: bool
    thread_id: Id | None
    reply_count: int
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


class Changed(Answer):
    """A message as it is after the change."""

    message: MessageOut


class PastVersion(Answer):
    version: int
    content: str
    replaced_at: Timestamp


class Edits(Answer):
    """What a message said before, the oldest first; `version` is what it is now."""

    message_id: Id
    version: int
    items: list[PastVersion]


class Reacted(Answer):
    """What a message's reactions are now; `mine`: the caller gave this one."""

    message_id: Id
    emoji: str
    mine: bool
    counts: dict[str, int]


class Reaction(Answer):
    user_id: str
    emoji: str
    at: Timestamp


class Reactions(Answer):
    counts: dict[str, int]
    items: list[Reaction]
    has_more: bool


class Pinned(Answer):
    message_id: Id
    pinned: bool


class Thread(Answer):
    """A message and what was said about it; `count` is of all replies, deleted ones too."""

    message: MessageOut
    items: list[MessageOut]
    has_more: bool
    count: int


class ReadState(Answer):
    """How far the caller has read. `unread` counts messages, `mentions` those that name him."""

    room_id: Id
    user_id: str
    read_seq: int
    unread: int
    mentions: int
    marked_unread: bool
    total_unread: int


class ReadSummary(Answer):
    """Over all rooms: messages, those in muted rooms among them, mentions, and rooms with any."""

    total_unread: int
    muted_unread: int
    total_mentions: int
    unread_rooms: int


class TypingStarted(Answer):
    """`throttled`: it was said a moment ago and needn't be said again so soon."""

    throttled: bool


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
    marked_unread: bool | None = left_out()
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
