"""The lines of a file: what an export writes, and the little that an import needs."""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from chatserver.kernel.wire import ExternalId

VERSION = 1

Foreign: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Seq: TypeAlias = Annotated[int, Field(ge=1, le=2**53 - 1)]
Count: TypeAlias = Annotated[int, Field(ge=0, le=2**53 - 1)]
Name: TypeAlias = Annotated[str, StringConstraints(max_length=256)]
Object: TypeAlias = Annotated[dict[str, Any], Field(max_length=256)]


class LineIn(BaseModel):
    """Members that nobody knows are left alone: another system's export may have more of them."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class UserLine(LineIn):
    type: Literal["user"]
    user_id: ExternalId
    display_name: Name | None = None
    avatar_url: Annotated[str, StringConstraints(max_length=2048)] | None = None
    metadata: Object = {}
    created_at: AwareDatetime | None = None


class RoomLine(LineIn):
    """`id` may be another system's: then it becomes the `external_id`, unless there is one."""

    type: Literal["room"]
    id: Foreign
    room_type: Literal["direct", "group", "support", "channel", "assistant"] = "group"
    external_id: ExternalId | None = None
    title: Name | None = None
    history: Literal["all", "joined"] = "all"
    metadata: Object = {}
    is_active: bool = True
    created_by: ExternalId | None = None
    min_seq: Seq = 1
    created_at: AwareDatetime | None = None


class MemberLine(LineIn):
    type: Literal["member"]
    room_id: Foreign
    user_id: ExternalId
    role: Literal["owner", "admin", "moderator", "member", "guest"] = "member"
    joined_at: AwareDatetime | None = None
    joined_seq: Count = 0
    min_seq: Seq = 1
    read_seq: Count | None = None
    read_msg_no: Count | None = None
    is_muted: bool = False
    is_favorite: bool = False
    notification_level: Literal["all", "mentions", "none"] = "mentions"


class MessageLine(LineIn):
    """`id` may be another system's: then it becomes the `client_msg_id`, unless there is one."""

    type: Literal["message"]
    room_id: Foreign
    id: Foreign | None = None
    seq: Seq | None = None
    msg_no: Count | None = None
    event_id: Foreign | None = None
    sender: Literal["user", "ai", "system"] = "user"
    sender_id: Foreign | None = None
    origin: Annotated[str, StringConstraints(max_length=160)] | None = None
    client_msg_id: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    hash: Annotated[str, StringConstraints(max_length=128)] = ""
    content: Annotated[str, StringConstraints(max_length=60_000)] = ""
    status: Literal["pending", "in_progress", "complete", "failed", "cancelled"] = "complete"
    partial_content: str | None = None
    error_message: str | None = None
    context: dict[str, Any] | None = None
    reply_to: Foreign | None = None
    thread_id: Foreign | None = None
    reply_count: Count = 0
    attachments: Annotated[list[dict[str, Any]], Field(max_length=30)] = []
    mentions: Annotated[list[str], Field(max_length=100)] = []
    metadata: Object = {}
    silent: bool = False
    pinned: bool = False
    pinned_at: AwareDatetime | None = None
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1
    changed_seq: Count = 0
    edited_at: AwareDatetime | None = None
    deleted_at: AwareDatetime | None = None
    created_at: AwareDatetime


class EventLine(LineIn):
    """A fact of the log that is no new message."""

    type: Literal["event"]
    room_id: Foreign
    seq: Seq
    id: Foreign
    event: Annotated[str, StringConstraints(min_length=1, max_length=32)]
    actor_type: Annotated[str, StringConstraints(max_length=8)] = "system"
    actor_id: ExternalId | None = None
    message_id: Foreign | None = None
    data: dict[str, Any] | None = None
    created_at: AwareDatetime


class ReactionLine(LineIn):
    type: Literal["reaction"]
    room_id: Foreign
    message_id: Foreign
    user_id: ExternalId
    emoji: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    created_at: AwareDatetime | None = None


Line: TypeAlias = UserLine | RoomLine | MemberLine | MessageLine | EventLine | ReactionLine
LINES: dict[str, type[Line]] = {
    "user": UserLine,
    "room": RoomLine,
    "member": MemberLine,
    "message": MessageLine,
    "event": EventLine,
    "reaction": ReactionLine,
}


class Counted(BaseModel):
    """What a run has done. `known`: lines that were there already."""

    users: int = 0
    rooms: int = 0
    members: int = 0
    messages: int = 0
    events: int = 0
    reactions: int = 0
    known: int = 0


def moment(given: datetime | None) -> str:
    """Write a time so that it sorts as text."""
    return "" if given is None else f"{given.timestamp():020.6f}"
