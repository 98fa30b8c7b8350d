"""The facts that rooms announce."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from chatserver.kernel.clock import rfc3339
from chatserver.kernel.events import NO_EFFECT, Actor, Effect, Fact
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Answer, Timestamp, left_out
from chatserver.rooms.models import Member, Room
from chatserver.rooms.schemas import Me, RoomOut

ROOM_FACTS: Final = (
    "room.created",
    "room.updated",
    "room.deactivating",
    "room.deactivated",
    "room.reactivated",
    "room.deleted",
)
MEMBER_FACTS: Final = ("member.joined", "member.left", "member.updated")
# What `/rooms` shows of a room's log; `/chat` shows all of it.
LOBBY_FACTS: Final = frozenset(ROOM_FACTS + MEMBER_FACTS)


class RoomData(Answer):
    """What `room.*` facts carry: the room as it is when the fact is read."""

    room: RoomOut


class MemberData(Answer):
    """What `member.*` facts carry. A bulk change names up to 500 people in `user_ids`."""

    user_id: str | None
    user_ids: list[str] | None = left_out()
    role: str | None = left_out()
    members_count: int
    muted_until: Timestamp | None = left_out()


def actor_of(principal: Principal) -> Actor:
    """Name who acts: the user, or the application itself."""
    return Actor("user", principal.external_id) if principal.is_user else Actor("client")


def room_out(room: Room, generation: int, **more: Any) -> RoomOut:  # noqa: ANN401 - fields of RoomOut
    """Give a room's shape on the wire."""
    return RoomOut(**room_members(room, generation), **more)


def room_members(room: Room, generation: int) -> dict[str, Any]:
    return {
        "id": room.id,
        "type": room.type,
        "title": room.title,
        "external_id": room.external_id,
        "history": room.history,
        "metadata": room.details,
        "is_active": room.is_active,
        "members_count": room.members_count,
        "slow_mode_s": room.slow_mode_s,
        "post_role": room.post_role,
        "archived_at": room.archived_at,
        "created_by": room.created_by,
        "epoch": f"{generation}.{room.epoch}",
        "min_seq": room.min_seq,
        "last_activity_at": room.last_activity_at,
        "deactivates_at": room.deactivates_at,
        "deactivated_at": room.deactivated_at,
        "created_at": room.created_at,
        "updated_at": room.updated_at,
        "support": support_of(room.type, room.assignee, room.closed_at),
    }


def support_of(room_type: str, assignee: str | None, closed_at: Any) -> dict[str, Any] | None:  # noqa: ANN401 - a moment, or one as text
    """Give what only a support room has; None where it is left out."""
    if room_type != "support":
        return None
    return {"assignee_id": assignee, "closed_at": closed_at}


def room_data(room: Room, generation: int) -> dict[str, Any]:
    """Give the data of a `room.*` fact: without `last_seq`, which is the fact's own `seq`."""
    shape = room_out(room, generation)
    return {
        "room": shape.model_dump(
            mode="json",
            exclude={"last_seq", "msg_no", "me"},
        )
    }


def room_fact(
    name: str,
    room: Room,
    generation: int,
    actor: Actor,
    *,
    effect: Effect = NO_EFFECT,
    sequenced: bool = True,
) -> Fact:
    return Fact(
        type=name,
        client_id=room.client_id,
        room_id=room.id,
        actor=actor,
        data=room_data(room, generation),
        about_room=True,
        effect=effect,
        audience=effect.entered + effect.left,
        sequenced=sequenced,
    )


def member_fact(
    name: str,
    room: Room,
    actor: Actor,
    people: Sequence[tuple[UUID, str]],
    *,
    role: str | None,
    muted_until: datetime | None = None,
    effect: Effect = NO_EFFECT,
    sequenced: bool = True,
) -> Fact:
    """Announce one person, or many at once; `people` are (server id, external id)."""
    names = [name for _, name in people]
    data: dict[str, Any] = {"user_id": names[0] if len(names) == 1 else None}
    if len(names) > 1:
        data["user_ids"] = names
    if role is not None:
        data["role"] = role
    data["members_count"] = room.members_count
    if name == "member.updated":
        data["muted_until"] = None if muted_until is None else rfc3339(muted_until)
    return Fact(
        type=name,
        client_id=room.client_id,
        room_id=room.id,
        actor=actor,
        data=data,
        effect=effect,
        audience=tuple(user for user, _ in people),
        sequenced=sequenced,
    )


def my_seat(room: Room, me: Member) -> Me:
    """Say where the caller stands: unread is the room's message number minus the pointer's."""
    return Me(
        role=me.role,
        joined_at=me.joined_at,
        min_seq=me.min_seq,
        read_seq=me.read_seq,
        unread=max(0, room.msg_no - me.read_msg_no),
        marked_unread=me.marked_unread,
        is_muted=me.is_muted,
        is_favorite=me.is_favorite,
        notification_level=me.notification_level,
    )
