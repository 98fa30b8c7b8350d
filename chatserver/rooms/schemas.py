"""Rooms and members as callers send and see them."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import (
    Answer,
    ExternalId,
    Id,
    Metadata,
    Request,
    Timestamp,
    left_out,
    shows,
)

RoomType: TypeAlias = Literal["direct", "group", "support", "channel", "assistant"]
Role: TypeAlias = Literal["owner", "admin", "moderator", "member", "guest"]
Level: TypeAlias = Literal["all", "mentions", "none"]
History: TypeAlias = Literal["all", "joined"]
SlowMode: TypeAlias = Annotated[
    int,
    Field(ge=0, le=120, description="Seconds between two messages of a member; 0: no slow mode."),
]
Spell: TypeAlias = Annotated[int, Field(ge=1, le=10 * 366 * 86_400)]
Title: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=256)]
People: TypeAlias = Annotated[list[ExternalId], Field(min_length=1, max_length=1000)]


class CreateRoom(Request):
    model_config = shows(type="group", title="Planning", member_ids=["alice", "bob"])

    type: RoomType
    title: Title | None = None
    external_id: ExternalId | None = None
    member_ids: Annotated[list[ExternalId], Field(max_length=1000)] = []
    history: History = "all"
    metadata: Metadata = {}


class RoomRef(Request):
    room_id: Id


class ExternalRoomRef(Request):
    external_id: ExternalId


class UpdateRoom(Request):
    """Members that are left out stay as they are; `title: null` removes the title."""

    room_id: Id
    title: Title | None = None
    history: History | None = None
    metadata: Metadata | None = None
    slow_mode_s: SlowMode | None = None
    post_role: Role | None = Field(default=None, description="The lowest role that may send.")
    is_archived: bool | None = Field(
        default=None, description="Whether the room can only be read, whoever one is."
    )

    @model_validator(mode="after")
    def _something(self) -> "UpdateRoom":
        if not self.model_fields_set - {"room_id"}:
            msg = "name at least one member to change"
            raise ValueError(msg)
        return self


class ListRooms(PageRequest):
    type: RoomType | None = None
    is_active: bool | None = None


class ListAllRooms(PageRequest):
    type: RoomType | None = None
    is_active: bool | None = None
    q: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None


class InviteMembers(Request):
    """One person by `user_id`, or up to 1,000 by `user_ids`."""

    room_id: Id
    user_id: ExternalId | None = None
    user_ids: People | None = None
    role: Role = "member"

    @model_validator(mode="after")
    def _one_of(self) -> "InviteMembers":
        if (self.user_id is None) == (self.user_ids is None):
            msg = "name either user_id or user_ids"
            raise ValueError(msg)
        return self

    @property
    def people(self) -> list[str]:
        """Everyone who is named, each once, in the order of the request."""
        return list(dict.fromkeys([self.user_id] if self.user_id else self.user_ids or ()))


class AddMembers(Request):
    room_id: Id
    user_ids: People
    role: Role = "member"


class PutMember(Request):
    """Without `role`, whoever comes in is a `member`, and whoever is in stays as is."""

    room_id: Id
    user_id: ExternalId
    role: Role | None = None


class MemberRef(Request):
    room_id: Id
    user_id: ExternalId


class MuteMember(MemberRef):
    """`for_s` seconds from now; without it, until it is taken back."""

    for_s: Spell | None = None


class BanMember(MemberRef):
    """`for_s` seconds from now; without it, until it is taken back."""

    for_s: Spell | None = None
    reason: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None


class ListBans(PageRequest):
    room_id: Id


class UpdateMember(Request):
    room_id: Id
    user_id: ExternalId
    role: Role | None = None
    is_muted: bool | None = None
    is_favorite: bool | None = None
    notification_level: Level | None = None


class ListMembers(PageRequest):
    room_id: Id


class MemberOut(Answer):
    """A member as the others see it."""

    user_id: str
    display_name: str | None
    avatar_url: str | None
    role: str
    joined_at: Timestamp
    muted_until: Timestamp | None = left_out()


class ChangedMember(MemberOut):
    """A member after a change; private settings are told to their owner alone."""

    is_muted: bool | None = left_out()
    is_favorite: bool | None = left_out()
    notification_level: Level | None = left_out()


class Banned(Answer):
    """Who may not come in, and until when; null: for good."""

    room_id: Id
    user_id: str
    until: Timestamp | None


class Unbanned(Answer):
    room_id: Id
    user_id: str


class BanOut(Answer):
    user_id: str
    until: Timestamp | None
    reason: str | None
    created_at: Timestamp


class Me(Answer):
    """The caller's own place in a room. Mute, favourite and level are nobody else's business."""

    role: str
    joined_at: Timestamp
    min_seq: int
    read_seq: int
    unread: int
    marked_unread: bool
    is_muted: bool
    is_favorite: bool
    notification_level: str


class Support(Answer):
    """Who of the team has a support room, and when it was closed. A message opens it again."""

    assignee_id: str | None
    closed_at: Timestamp | None


class RoomOut(Answer):
    """A room. `epoch` and `last_seq` are where its event log stands."""

    id: Id
    type: str
    title: str | None
    external_id: str | None
    history: str
    metadata: dict[str, Any]
    is_active: bool
    members_count: int
    slow_mode_s: int
    post_role: str
    archived_at: Timestamp | None
    created_by: str | None
    epoch: str
    min_seq: int
    last_seq: int | None = None
    msg_no: int | None = None
    last_activity_at: Timestamp
    deactivates_at: Timestamp | None
    deactivated_at: Timestamp | None
    created_at: Timestamp
    updated_at: Timestamp
    support: Support | None = left_out()
    me: Me | None = None


class CreatedRoom(RoomOut):
    """A room that was made, or that already had this `external_id`."""

    created: bool

    @property
    def is_repeat(self) -> bool:
        return not self.created


class Joined(Answer):
    """Who is in the room now, of those that were named."""

    members: list[MemberOut]
    added: list[str]
    members_count: int


class Left(Answer):
    room_id: Id
    user_id: str
    members_count: int


class Deleted(Answer):
    id: Id
    deleted: bool = True


class Watching(Answer):
    room_id: Id
    epoch: str
    last_seq: int


class Unwatched(Answer):
    room_id: Id


class SetPresence(Request):
    """`offline` is to be unseen while connected."""

    status: Literal["online", "away", "offline"]


class WatchPresence(Request):
    """Whom this connection watches from now on; empty lists end it."""

    user_ids: list[ExternalId] = Field(default=[], max_length=100)
    room_ids: list[Id] = Field(default=[], max_length=20)


class UserPresence(Answer):
    user_id: str
    status: Literal["online", "away", "offline"]
    last_active_at: Timestamp | None


class RoomPresence(Answer):
    room_id: Id
    online: int


class PresenceList(Answer):
    """Users as they are, and how many of each watched room are not offline.

    Of a room with more than 200 of them only the number is told.
    """

    users: list[UserPresence]
    rooms: list[RoomPresence]


class PresenceSet(Answer):
    status: str
