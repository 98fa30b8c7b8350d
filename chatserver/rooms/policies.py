"""Who may do what in a room, and when a room falls asleep. Pure decisions."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from chatserver.rooms.errors import RoleMissingError, RoomArchivedError, RoomMutedError
from chatserver.rooms.models import Member, Room

RANK: Final = {"guest": 0, "member": 1, "moderator": 2, "admin": 3, "owner": 4}
# Above this many members, and in every channel, joins and leaves are not in the log.
LOGGED_MEMBERS: Final = 1000
# A bulk change is one fact per so many people.
PEOPLE_PER_FACT: Final = 500
DIRECT_MEMBERS: Final = 2
LONGEST_WARNING: Final = timedelta(hours=24)
# A mute without an end has this one, which every language can read.
FOREVER: Final = datetime(9999, 1, 1, tzinfo=UTC)
SHORTEST_LIFE_WITH_WARNING: Final = timedelta(hours=1)


def require_role(role: str | None, needed: str) -> None:
    """Refuse a member below the needed role; `None` is the application itself, which may all.

    Raises:
        RoleMissingError: the role is lower.
    """
    if role is not None and RANK[role] < RANK[needed]:
        raise RoleMissingError(f"This needs the role {needed}.", role=needed)


def pair_of(room_type: str, users: list[UUID]) -> str | None:
    """Name the two people of a direct room; None for any other."""
    return ":".join(sorted(map(str, users))) if room_type == "direct" else None


def role_to_update(fields: set[str]) -> str:
    """Tell which role it takes to change these fields of a room."""
    return "admin" if fields & {"post_role", "is_archived"} else "moderator"


def ranks(role: str, needed: str) -> bool:
    """Tell whether a role is as high as the needed one."""
    return RANK[role] >= RANK[needed]


def floor(room: Room, me: Member | None) -> int:
    """Give the first seq of a room that is there, and that this member may read."""
    return max(room.min_seq, me.min_seq if me is not None else 1)


def require_voice(room: Room, me: Member | None, now: datetime) -> None:
    """Refuse whoever may not make himself heard in a room; `None` is the application itself.

    Raises:
        RoomArchivedError, RoomMutedError
    """
    if room.archived_at is not None:
        raise RoomArchivedError
    if me is not None and me.muted_until is not None and me.muted_until > now:
        raise RoomMutedError(retry_after_ms=wait_ms(me.muted_until, now))


def wait_ms(until: datetime, now: datetime) -> int | None:
    """Give the milliseconds until a moment; None when it never comes."""
    if until.year >= FOREVER.year:
        return None
    return max(1, int((until - now).total_seconds() * 1000) + 1)


def joins_are_logged(room_type: str, members_count: int) -> bool:
    return room_type != "channel" and members_count <= LOGGED_MEMBERS


def is_public(room_type: str) -> bool:
    """Whether everyone of the client may see and join it."""
    return room_type == "channel"


def lifetime(
    room_type: str, overrides: dict[str, Any], defaults: dict[str, float | None]
) -> timedelta | None:
    """Tell how long a room may be silent before it is deactivated; None: for ever."""
    seconds = overrides.get(room_type, defaults.get(room_type))
    return None if seconds is None else timedelta(seconds=float(seconds))


@dataclass(frozen=True, slots=True)
class Ageing:
    """What to do with a room whose check is due. Exactly one of sleep, warn and wait holds."""

    sleep: bool = False
    warn: bool = False
    next_check: datetime | None = None
    ends_at: datetime | None = None


def age(now: datetime, last_activity: datetime, life: timedelta | None, *, warned: bool) -> Ageing:
    """Decide about a room: put it to sleep, announce it, or look again later."""
    if life is None:
        return Ageing()
    ends_at = last_activity + life
    if now >= ends_at:
        return Ageing(sleep=True)
    notice = timedelta()
    if life >= SHORTEST_LIFE_WITH_WARNING:
        notice = min(LONGEST_WARNING, life / 10)
    if notice and now >= ends_at - notice:
        return Ageing(warn=not warned, next_check=ends_at, ends_at=ends_at)
    return Ageing(next_check=ends_at - notice)
