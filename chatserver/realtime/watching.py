"""Who wants to know who is there: users and rooms that connections watch, told once a second."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

from chatserver.kernel.clock import Clock, rfc3339
from chatserver.kernel.errors import DomainError
from chatserver.realtime.hub import Connection
from chatserver.realtime.packets import event_packet
from chatserver.realtime.presence import OFFLINE, Presence, Status
from chatserver.realtime.standing import own_fact

# Above this only the number is told.
NAMED: Final = 200
RELOAD_S: Final = 30.0

# Reads a room's people again, by server id; raises a DomainError when the watcher may not any more.
Reload: TypeAlias = Callable[[], Awaitable[Mapping[UUID, str]]]


@dataclass(slots=True)
class Watched:
    """A user somebody here watches, as last told."""

    name: str
    status: Status
    watchers: set[Connection] = field(default_factory=set)
    rooms: "set[WatchedRoom]" = field(default_factory=set)


@dataclass(slots=True, eq=False)
class WatchedRoom:
    """A room that one connection watches."""

    room_id: UUID
    watcher: Connection
    reload: Reload
    members: set[UUID] = field(default_factory=set)
    online: set[UUID] = field(default_factory=set)
    reload_at: float = 0.0


class Watchers:
    """Keeps what each connection watches; a new list takes the place of the old one."""

    def __init__(self, presence: Presence, clock: Clock) -> None:
        self.users: dict[UUID, Watched] = {}
        self.told = 0
        self._presence = presence
        self._clock = clock
        self._of: dict[Connection, tuple[set[UUID], list[WatchedRoom]]] = {}
        presence.watching = self

    async def watch(
        self,
        connection: Connection,
        users: Mapping[UUID, str],
        rooms: Mapping[UUID, tuple[Mapping[UUID, str], Reload]],
    ) -> dict[str, Any]:
        """Watch these from now on, and give how they are.

        Raises:
            ConnectionError: presence is away.
        """
        self.forget(connection)
        everyone = dict(users)
        for members, _ in rooms.values():
            everyone |= members
        statuses = await self._presence.read(everyone)
        for user_id, name in users.items():
            self._user(user_id, name, statuses[user_id]).watchers.add(connection)
        watched = []
        for room_id, (members, reload) in rooms.items():
            room = WatchedRoom(room_id, connection, reload)
            self._fill(room, members, statuses)
            watched.append(room)
        self._of[connection] = (set(users), watched)
        named = set(users).union(*(room.members for room in watched if _is_named(room)))
        return self._told(named, watched)

    def forget(self, connection: Connection) -> None:
        users, rooms = self._of.pop(connection, (set(), []))
        for user_id in users:
            self.users[user_id].watchers.discard(connection)
            self._drop_if_unwatched(user_id)
        for room in rooms:
            self._empty(room)

    async def look(self) -> None:
        if not self.users:
            await self._presence.changes()  # from here on, whoever begins to watch
            return
        now = self._presence.now_ms
        suspects = (await self._presence.changes()) & self.users.keys()
        suspects |= {
            user_id
            for user_id, watched in self.users.items()
            if watched.status.until_ms is not None and watched.status.until_ms <= now
        }
        statuses = await self._presence.read(suspects) if suspects else {}
        changed = set()
        for user_id, status in statuses.items():
            watched = self.users.get(user_id)
            if watched is None:
                continue
            if watched.status.status != status.status:
                changed.add(user_id)
            watched.status = status
        self._tell(changed)
        await self._reload()

    def _tell(self, changed: set[UUID]) -> None:
        named: dict[Connection, set[UUID]] = {}
        rooms: dict[WatchedRoom, tuple[bool, set[UUID]]] = {}
        for user_id in changed:
            watched = self.users[user_id]
            for connection in watched.watchers:
                named.setdefault(connection, set()).add(user_id)
            for room in watched.rooms:
                rooms.setdefault(room, (_is_named(room), set()))[1].add(user_id)
                _count(room, user_id, watched.status)
        counted: dict[Connection, list[WatchedRoom]] = {}
        for room, (was_named, users) in rooms.items():
            counted.setdefault(room.watcher, []).append(room)
            if _is_named(room):
                # From a count back to names: all of them.
                told = users if was_named else room.members
                named.setdefault(room.watcher, set()).update(told)
        for connection in named.keys() | counted.keys():
            self._send(connection, named.get(connection, set()), counted.get(connection, []))

    def _send(
        self, connection: Connection, users: Iterable[UUID], rooms: list[WatchedRoom]
    ) -> None:
        self.told += 1
        fact = own_fact(self._clock, "presence.changed", self._told(users, rooms))
        connection.send(
            event_packet(connection.namespace, "presence.changed", fact, ephemeral=True)
        )

    def _told(self, users: Iterable[UUID], rooms: list[WatchedRoom]) -> dict[str, Any]:
        return {
            "users": [_shown(self.users[user_id]) for user_id in users if user_id in self.users],
            "rooms": [{"room_id": str(room.room_id), "online": len(room.online)} for room in rooms],
        }

    async def _reload(self) -> None:
        """Read the people of rooms again, once in a while and one at a time."""
        now = asyncio.get_running_loop().time()
        due = next(
            (room for _, rooms in self._of.values() for room in rooms if room.reload_at <= now),
            None,
        )
        if due is None:
            return
        try:
            members = await due.reload()
        except DomainError:
            members = {}
        if {*members} == due.members:
            due.reload_at = now + RELOAD_S
            return
        statuses = await self._presence.read(members)
        if due.watcher in self._of:
            self._empty(due)
            self._fill(due, members, statuses)
            self._send(due.watcher, due.members if _is_named(due) else (), [due])

    def _fill(
        self, room: WatchedRoom, members: Mapping[UUID, str], statuses: Mapping[UUID, Status]
    ) -> None:
        room.members = set(members)
        room.online = set()
        room.reload_at = asyncio.get_running_loop().time() + RELOAD_S
        for user_id, name in members.items():
            self._user(user_id, name, statuses[user_id]).rooms.add(room)
            _count(room, user_id, statuses[user_id])

    def _empty(self, room: WatchedRoom) -> None:
        for user_id in room.members:
            self.users[user_id].rooms.discard(room)
            self._drop_if_unwatched(user_id)
        room.members = set()

    def _user(self, user_id: UUID, name: str, status: Status) -> Watched:
        watched = self.users.get(user_id)
        if watched is None:
            watched = self.users[user_id] = Watched(name, status)
        return watched

    def _drop_if_unwatched(self, user_id: UUID) -> None:
        watched = self.users[user_id]
        if not watched.watchers and not watched.rooms:
            del self.users[user_id]


def _is_named(room: WatchedRoom) -> bool:
    return len(room.online) <= NAMED


def _count(room: WatchedRoom, user_id: UUID, status: Status) -> None:
    if status.status == OFFLINE:
        room.online.discard(user_id)
    else:
        room.online.add(user_id)


def _shown(watched: Watched) -> dict[str, Any]:
    return {"user_id": watched.name, **shown(watched.status)}


def shown(status: Status) -> dict[str, Any]:
    """Write how somebody is as it is told."""
    active = status.last_active_ms
    return {
        "status": status.status,
        "last_active_at": None
        if active is None
        else rfc3339(datetime.fromtimestamp(active / 1000, UTC)),
    }
