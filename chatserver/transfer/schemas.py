"""The lines of a file: what an export writes, and the little that an import needs."""

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
)

from chatserver.kernel.wire import ExternalId

VERSION = 1
UUID_TEXT = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"

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
    slow_mode_s: Annotated[int, Field(ge=0, le=120)] = 0
    post_role: Literal["owner", "admin", "moderator", "member", "guest"] = "guest"
    archived_at: AwareDatetime | None = None
    assignee: ExternalId | None = None
    closed_at: AwareDatetime | None = None
    deactivated_at: AwareDatetime | None = None
    last_activity_at: AwareDatetime | None = None
    updated_at: AwareDatetime | None = None
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
    marked_unread: bool = False
    muted_until: AwareDatetime | None = None
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


class EditLine(LineIn):
    """What a message said before it was edited."""

    type: Literal["edit"]
    room_id: Foreign
    message_id: Foreign
    version: Annotated[int, Field(ge=1, le=2**31 - 1)]
    content: Annotated[str, StringConstraints(max_length=60_000)]
    replaced_at: AwareDatetime | None = None


class BanLine(LineIn):
    """Who may not come back to a room, and until when; without an end, for good."""

    type: Literal["ban"]
    room_id: Foreign
    user_id: ExternalId
    until: AwareDatetime | None = None
    reason: Name | None = None
    created_at: AwareDatetime | None = None


class FileLine(LineIn):
    """A file that messages may carry. Its content follows in parts, or is in the store already."""

    type: Literal["file"]
    id: Annotated[str, StringConstraints(pattern=UUID_TEXT)]
    name: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    content_type: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    size: Annotated[int, Field(ge=0, le=5 * 2**30)]
    sha256: Base64Bytes
    uploader_id: ExternalId | None = None
    created_at: AwareDatetime | None = None


class FilePartLine(LineIn):
    """A piece of a file; together, by `part` from 1 on, they are its content."""

    type: Literal["file_part"]
    file_id: Annotated[str, StringConstraints(pattern=UUID_TEXT)]
    part: Annotated[int, Field(ge=1, le=99_999_999)]
    data: Base64Bytes


Line: TypeAlias = (
    UserLine
    | RoomLine
    | MemberLine
    | MessageLine
    | EventLine
    | ReactionLine
    | EditLine
    | BanLine
    | FileLine
    | FilePartLine
)
LINES: dict[str, type[Line]] = {
    "user": UserLine,
    "file": FileLine,
    "file_part": FilePartLine,
    "edit": EditLine,
    "ban": BanLine,
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
    edits: int = 0
    bans: int = 0
    files: int = 0
    # Files whose content is neither in the lines nor in the store, or is another one.
    files_missing: int = 0
    known: int = 0


def moment(given: datetime | None) -> str:
    """Write a time so that it sorts as text."""
    return "" if given is None else f"{given.timestamp():020.6f}"
