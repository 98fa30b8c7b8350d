"""Who may do what in a room, and when a room falls asleep. Pure decisions."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from chatserver.rooms.errors import RoleMissingError

RANK: Final = {"member": 0, "moderator": 1, "admin": 2, "owner": 3}
# Above this many members, and in every channel, joins and leaves are not in the log.
LOGGED_MEMBERS: Final = 1000
# A bulk change is one fact per so many people.
PEOPLE_PER_FACT: Final = 500
DIRECT_MEMBERS: Final = 2
LONGEST_WARNING: Final = timedelta(hours=24)
SHORTEST_LIFE_WITH_WARNING: Final = timedelta(hours=1)


def require_role(role: str | None, needed: str) -> None:
    """Refuse a member below the needed role; `None` is the application itself, which may all.

    Raises:
        RoleMissingError: the role is lower.
    """
    if role is not None and RANK[role] < RANK[needed]:
        raise RoleMissingError(f"This needs the role {needed}.", role=needed)


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
