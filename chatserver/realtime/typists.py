"""Who is typing where: every node keeps its own picture, made of what all of them report.

A report is small and may be lost; a typist who says no more is forgotten after 7 s. What sockets
are told is always the full set, so that whatever was lost before, the next one is right.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import orjson

from chatserver.kernel.clock import Clock
from chatserver.kernel.events import SYSTEM, Committed, encode
from chatserver.kernel.ids import uuid7
from chatserver.realtime.hub import Connection, Hub
from chatserver.realtime.packets import Outgoing, event_packet
from chatserver.realtime.recovery import in_room

STATE: Final = "typing.state"


@dataclass(frozen=True, slots=True)
class Timings:
    """What clients are told in `session.ready.limits.typing`, so that apps need no release."""

    start_every_ms: int = 3_000
    ttl_ms: int = 7_000
    told_every_ms: int = 1_000
    users: int = 10
    max_online: int = 100


ANNOUNCED: Final = Timings()
# So long a first report waits for what the other nodes say of how many are online.
GATHER_S: Final = 0.15
COUNT_EVERY_S: Final = 5.0
COUNT_LIFE_S: Final = 30.0
OWN: Final = b""


@dataclass(slots=True)
class Report:
    """What a node tells the others: somebody types or stops, or just how many are online here."""

    online: int
    user_id: UUID | None = None
    name: str = ""
    types: bool = False

    def packed(self) -> bytes:
        user = None if self.user_id is None else str(self.user_id)
        return orjson.dumps([self.online, user, self.name, self.types])

    @classmethod
    def read(cls, body: bytes) -> "Report":
        """Read a report of a node of ours."""
        online, user, name, types = orjson.loads(body)
        return cls(online, None if user is None else UUID(user), name, types)


@dataclass(slots=True)
class _Typist:
    name: str
    until: float


@dataclass(slots=True, eq=False)
class _Scene:
    """One room in which somebody types, or did a moment ago."""

    typists: dict[UUID, _Typist] = field(default_factory=dict)
    online: dict[bytes, tuple[float, int]] = field(default_factory=dict)
    told: frozenset[UUID] = frozenset()
    told_at: float = float("-inf")
    counted_at: float = float("-inf")
    timer: asyncio.TimerHandle | None = None


class Typists:
    """This node's picture. `send` tells the nodes that show a room."""

    def __init__(
        self,
        hub: Hub,
        namespace: str,
        *,
        send: Callable[[UUID, bytes], None],
        clock: Clock,
        timings: Timings = ANNOUNCED,
    ) -> None:
        self._hub = hub
        self._namespace = namespace
        self._send = send
        self._clock = clock
        self._timings = timings
        self._scenes: dict[UUID, _Scene] = {}
        self._started: dict[Connection, dict[UUID, float]] = {}

    def start(self, connection: Connection, room_id: UUID) -> bool:
        """Note that whoever is connected there types; False when he said so a moment ago.

        Raises:
            LookupError: he is not shown the room as a member.
        """
        self._check(connection, room_id)
        now = asyncio.get_running_loop().time()
        started = self._started.setdefault(connection, {})
        if now < started.get(room_id, float("-inf")) + self._timings.start_every_ms / 1000:
            return False
        started[room_id] = now
        self._report(connection, room_id, types=True)
        return True

    def stop(self, connection: Connection, room_id: UUID) -> None:
        """Note that he stopped; nothing happens where he did not begin.

        Raises:
            LookupError: he is not shown the room as a member.
        """
        self._check(connection, room_id)
        self._stop(connection, room_id)

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is gone; what was begun by it ends."""
        for room_id in list(self._started.get(connection, ())):
            self._stop(connection, room_id)
        self._started.pop(connection, None)

    def hear(self, origin: bytes, room_id: UUID, body: bytes) -> None:
        """Take a report of another node."""
        if room_id in self._hub.streams:
            self._take(origin, room_id, Report.read(body))

    def spoke(self, fact: Committed) -> None:
        """Hear of a fact that was shown: whoever sent a message types no longer."""
        if fact.type != "message.created" or fact.room_id is None:
            return
        scene = self._scenes.get(fact.room_id)
        if scene is None or not scene.typists:
            return
        name = orjson.loads(fact.body)["actor"]["id"]
        for user_id, typist in list(scene.typists.items()):
            if typist.name == name:
                del scene.typists[user_id]
                self._forget_starts(user_id, fact.room_id)
        self._plan(fact.room_id, scene)

    def close(self) -> None:
        for scene in self._scenes.values():
            if scene.timer is not None:
                scene.timer.cancel()
        self._scenes.clear()

    def _check(self, connection: Connection, room_id: UUID) -> None:
        listener = self._hub.listeners.get(connection.principal.user_id)
        if listener is None or room_id not in listener.rooms:
            raise LookupError("not a member")

    def _stop(self, connection: Connection, room_id: UUID) -> None:
        if self._started.get(connection, {}).pop(room_id, None) is not None:
            self._report(connection, room_id, types=False)

    def _report(self, connection: Connection, room_id: UUID, *, types: bool) -> None:
        principal = connection.principal
        report = Report(self._online(room_id), principal.user_id, principal.external_id, types)
        scene = self._take(OWN, room_id, report)
        scene.counted_at = asyncio.get_running_loop().time()
        self._send(room_id, report.packed())

    def _take(self, origin: bytes, room_id: UUID, report: Report) -> _Scene:
        now = asyncio.get_running_loop().time()
        scene = self._scenes.setdefault(room_id, _Scene())
        scene.online[origin] = (now, report.online)
        if origin != OWN and now >= scene.counted_at + COUNT_EVERY_S:
            scene.counted_at = now
            self._send(room_id, Report(self._online(room_id)).packed())
        if report.user_id is not None:
            if report.types:
                until = now + self._timings.ttl_ms / 1000
                scene.typists[report.user_id] = _Typist(report.name, until)
            else:
                scene.typists.pop(report.user_id, None)
        self._plan(room_id, scene)
        return scene

    def _plan(self, room_id: UUID, scene: _Scene) -> None:
        """Wake up when there is something to tell, or somebody to forget."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if frozenset(scene.typists) != scene.told:
            at = max(now + GATHER_S, scene.told_at + self._timings.told_every_ms / 1000)
        elif scene.typists:
            at = min(typist.until for typist in scene.typists.values())
        else:
            at = now + COUNT_LIFE_S
        if scene.timer is not None:
            scene.timer.cancel()
        scene.timer = loop.call_at(at, self._look, room_id, scene)

    def _look(self, room_id: UUID, scene: _Scene) -> None:
        now = asyncio.get_running_loop().time()
        scene.timer = None
        for user_id, typist in list(scene.typists.items()):
            if typist.until <= now:
                del scene.typists[user_id]
        if self._is_crowded(room_id, scene, now):
            scene.typists.clear()
        present = frozenset(scene.typists)
        if present != scene.told:
            scene.told, scene.told_at = present, now
            self._tell(room_id, scene)
        elif not present:
            self._scenes.pop(room_id, None)
            return
        self._plan(room_id, scene)

    def _tell(self, room_id: UUID, scene: _Scene) -> None:
        stream = self._hub.streams.get(room_id)
        if stream is None:
            return
        names = {user_id: typist.name for user_id, typist in scene.typists.items()}
        everyone = self._packet(room_id, list(names.values()))
        for connection in in_room(stream, self._namespace):
            user_id = connection.principal.user_id
            if user_id in names:
                # Of himself nobody is told; as there are few who type, a packet of their own.
                others = [name for whose, name in names.items() if whose != user_id]
                connection.send(self._packet(room_id, others))
            else:
                connection.send(everyone)

    def _packet(self, room_id: UUID, names: list[str]) -> Outgoing:
        body = encode(
            type=STATE,
            id=uuid7(),
            room_id=room_id,
            epoch=None,
            seq=None,
            ts=self._clock(),
            actor=SYSTEM,
            data={"users": sorted(names)[: self._timings.users], "count": len(names)},
        )
        return event_packet(self._namespace, STATE, body, ephemeral=True)

    def _is_crowded(self, room_id: UUID, scene: _Scene, now: float) -> bool:
        scene.online[OWN] = (now, self._online(room_id))
        fresh = [count for at, count in scene.online.values() if at >= now - COUNT_LIFE_S]
        return sum(fresh) > self._timings.max_online

    def _online(self, room_id: UUID) -> int:
        stream = self._hub.streams.get(room_id)
        return 0 if stream is None else len(stream.listeners)

    def _forget_starts(self, user_id: UUID, room_id: UUID) -> None:
        for connection in self._own(user_id):
            self._started.get(connection, {}).pop(room_id, None)

    def _own(self, user_id: UUID) -> Iterator[Connection]:
        listener = self._hub.listeners.get(user_id)
        if listener is not None:
            yield from listener.in_namespace(self._namespace)
