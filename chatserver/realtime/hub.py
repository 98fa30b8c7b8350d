"""Who listens on this node: users with their connections, rooms with their listeners."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Protocol
from uuid import UUID

import orjson

from chatserver.kernel.events import Committed
from chatserver.kernel.principal import Principal
from chatserver.realtime.stream import RoomStream

MAX_WATCHED: Final = 100
REMEMBERED_S: Final = 60.0


class Outlet(Protocol):
    """Where a connection's packets go: it takes them at once and keeps its own bound."""

    def put_nowait(self, item: Any) -> None: ...


class Connection:
    """One namespace of one engine connection, with the principal it was accepted for.

    Until it is opened it keeps what it gets, so that nothing is seen before `session.ready`.
    """

    __slots__ = (
        "_kept", "goodbye", "namespace", "outlet", "principal", "session", "session_id", "watched",
    )  # fmt: skip

    def __init__(
        self,
        namespace: str,
        principal: Principal,
        session_id: str,
        outlet: Outlet,
        session: Any = None,
    ) -> None:
        self.namespace = namespace
        self.principal = principal
        self.session_id = session_id
        self.outlet = outlet
        self.session = session
        # Dictionaries for sets: an empty one takes a third of the room, and most stay empty.
        self.watched: dict[UUID, None] = {}
        self.goodbye = False  # it said so itself, and was not just cut off
        self._kept: list[Any] | None = []

    @property
    def recovered(self) -> bool:
        """Whether the client goes on where it was cut off."""
        return False

    def greeting(self) -> bytes:
        """Give the data of the answer to the connect."""
        return orjson.dumps({"sid": self.session_id})

    @property
    def is_open(self) -> bool:
        return self._kept is None

    def send(self, packet: Any) -> None:
        if self._kept is None:
            self.outlet.put_nowait(packet)
        else:
            self._kept.append(packet)

    def reply(self, packet: Any) -> None:
        """Send what the peer asked for, whatever else waits."""
        self.outlet.put_nowait(packet)

    def hold(self) -> None:
        """Keep what comes until it is opened again."""
        if self._kept is None:
            self._kept = []

    @property
    def held(self) -> int:
        """How many packets wait until it is opened."""
        return len(self._kept or ())

    def open(self, *first: Any) -> None:
        """Send these, then what came meanwhile, and from now on everything at once."""
        kept, self._kept = self._kept, None
        for packet in (*first, *(kept or ())):
            self.outlet.put_nowait(packet)


@dataclass(slots=True)
class Noted:
    """A membership effect that happened while the same user's rooms were being read."""

    seq: int | None
    entered: bool


@dataclass(slots=True, eq=False)
class Listener:
    """A user with live connections here. Being a member of a room is being subscribed to it."""

    user_id: UUID
    # A tuple: nearly everyone has one in each namespace, and a set takes four times the room.
    connections: tuple[Connection, ...] = ()
    rooms: dict[UUID, None] = field(default_factory=dict)
    version: int | None = None
    noted: dict[UUID, Noted] | None = None
    loading: asyncio.Task[None] | None = None

    def in_namespace(self, namespace: str) -> list[Connection]:
        return [each for each in self.connections if each.namespace == namespace]


class Buckets(Protocol):
    """What the hub tells the bus: whose messages this node needs."""

    def retain_room(self, room_id: UUID) -> None: ...
    def release_room(self, room_id: UUID) -> None: ...
    def retain_user(self, user_id: UUID) -> None: ...
    def release_user(self, user_id: UUID) -> None: ...


class Views:
    """Which namespace sees which facts. One sees every sequenced fact, in order, without holes."""

    def __init__(self, whole: str, parts: dict[str, frozenset[str]]) -> None:
        self.whole = whole
        self._parts: dict[str, tuple[str, ...]] = {}
        for namespace, types in parts.items():
            for name in types:
                self._parts[name] = (*self._parts.get(name, ()), namespace)

    def of(self, fact: Committed) -> tuple[str, ...]:
        parts = self._parts.get(fact.type, ())
        if fact.seq is None:
            return parts or (self.whole,)
        return (self.whole, *parts)


class Hub:
    """The lists themselves. What is delivered, and when, is decided in `recovery`."""

    def __init__(self, buckets: Buckets) -> None:
        self.listeners: dict[UUID, Listener] = {}
        self.streams: dict[UUID, RoomStream] = {}
        self._buckets = buckets
        self._past: dict[UUID, tuple[float, int]] = {}

    def connections(self) -> Iterator[Connection]:
        for listener in self.listeners.values():
            yield from listener.connections

    def add(self, connection: Connection) -> Listener:
        user_id = connection.principal.user_id
        listener = self.listeners.get(user_id)
        if listener is None:
            listener = self.listeners[user_id] = Listener(user_id)
            self._buckets.retain_user(user_id)
        if connection not in listener.connections:
            listener.connections += (connection,)
            self._changed(listener)
        return listener

    def has_rooms(self, user_id: UUID) -> bool:
        """Whether a user's rooms are subscribed here."""
        listener = self.listeners.get(user_id)
        return listener is not None and listener.version is not None

    def has(self, connection: Connection) -> bool:
        listener = self.listeners.get(connection.principal.user_id)
        return listener is not None and connection in listener.connections

    def remove(self, connection: Connection) -> None:
        """Forget a connection, and its user with all rooms when it was the last one."""
        for room_id in list(connection.watched):
            self.unwatch(connection, room_id)
        listener = self.listeners.get(connection.principal.user_id)
        if listener is None:
            return
        listener.connections = tuple(
            each for each in listener.connections if each is not connection
        )
        self._changed(listener)
        if not listener.connections:
            for room_id in list(listener.rooms):
                self.leave(listener, room_id)
            del self.listeners[listener.user_id]
            self._buckets.release_user(listener.user_id)

    def add_stream(self, stream: RoomStream) -> None:
        self.streams[stream.room_id] = stream
        self._buckets.retain_room(stream.room_id)

    def enter(self, listener: Listener, stream: RoomStream) -> None:
        """Subscribe a listener, unless he or the stream is gone by now."""
        if (
            self.listeners.get(listener.user_id) is listener
            and self.streams.get(stream.room_id) is stream
        ):
            listener.rooms[stream.room_id] = None
            stream.listeners.add(listener)
            stream.audience = None

    def leave(self, listener: Listener, room_id: UUID) -> None:
        listener.rooms.pop(room_id, None)
        stream = self.streams.get(room_id)
        if stream is not None:
            stream.listeners.discard(listener)
            for connection in listener.connections:
                connection.watched.pop(room_id, None)
                stream.watchers.discard(connection)
            stream.audience = None
            self.drop_if_unheard(stream)

    def watch(self, connection: Connection, stream: RoomStream) -> None:
        connection.watched[stream.room_id] = None
        stream.watchers.add(connection)
        stream.audience = None

    def unwatch(self, connection: Connection, room_id: UUID) -> None:
        connection.watched.pop(room_id, None)
        stream = self.streams.get(room_id)
        if stream is not None:
            stream.watchers.discard(connection)
            stream.audience = None
            self.drop_if_unheard(stream)

    def drop(self, stream: RoomStream) -> None:
        """Forget a room, whoever listens."""
        if self.streams.get(stream.room_id) is not stream:
            return
        del self.streams[stream.room_id]
        for listener in stream.listeners:
            listener.rooms.pop(stream.room_id, None)
        for connection in stream.watchers:
            connection.watched.pop(stream.room_id, None)
        stream.listeners.clear()
        stream.watchers.clear()
        stream.audience = None
        stream.stop()
        self._buckets.release_room(stream.room_id)
        self._remember(stream)

    def past_head(self, room_id: UUID) -> int:
        """How far a room was shown before it was last dropped: no one is shown that again."""
        return self._past.get(room_id, (0.0, 0))[1]

    def forget(self, room_id: UUID) -> None:
        self._past.pop(room_id, None)

    def forget_all(self) -> None:
        self._past.clear()

    def drop_if_unheard(self, stream: RoomStream) -> None:
        """Forget a room without listeners, unless what it has still to show may let someone in."""
        heard = stream.listeners or stream.watchers or stream.expected
        if not heard and stream.head >= stream.tip:
            self.drop(stream)

    def _changed(self, listener: Listener) -> None:
        """Have whoever hears the listener's rooms looked up again."""
        for room_id in listener.rooms:
            self.streams[room_id].audience = None

    def _remember(self, stream: RoomStream) -> None:
        now = asyncio.get_running_loop().time()
        self._past.pop(stream.room_id, None)
        self._past[stream.room_id] = (now, stream.head)
        for room_id, (at, _) in list(islice(self._past.items(), 2)):
            if at < now - REMEMBERED_S:
                del self._past[room_id]
