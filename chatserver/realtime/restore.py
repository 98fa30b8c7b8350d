"""Connection state recovery: what a dropped socket had seen is kept for two minutes.

The record says how far each room was shown; what followed comes from the event log. Any doubt, and
the client is connected without recovery, as if it were new: then it asks with `sync`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import orjson
import structlog

from chatserver.kernel.events import Committed
from chatserver.kernel.principal import Principal
from chatserver.realtime.hub import Hub
from chatserver.realtime.packets import event_packet
from chatserver.realtime.ports import Log
from chatserver.realtime.store import Store
from chatserver.realtime.stream import PAGE
from chatserver.realtime.tracked import LIFE_S, Claim, TrackedConnection, positions

log = structlog.get_logger(__name__)

MAX_FACTS: Final = 1000
MAX_BYTES: Final = 512 * 1024
# Of this node's own drops, so that recovery here works without Redis, too.
MAX_RECENT: Final = 10_000

MayWatch = Callable[[Principal, UUID], Awaitable[bool]]
Watch = Callable[[TrackedConnection, UUID], Awaitable[int]]


class DoubtError(Exception):
    """Something may be missing, or be too much: connect without recovery."""


@dataclass(slots=True)
class Restored:
    """How it went, for metrics."""

    recovered: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """What one dropped connection had seen."""

    client_id: str
    user_id: str
    generation: str
    heads: dict[UUID, int]
    watched: list[UUID]
    marks: list[tuple[str, UUID | None, int]]
    epochs: dict[UUID, str] = field(default_factory=dict)

    def packed(self) -> bytes:
        return orjson.dumps(
            {
                "client": self.client_id,
                "user": self.user_id,
                "generation": self.generation,
                "heads": {str(room): seq for room, seq in self.heads.items()},
                "watched": self.watched,
                "marks": self.marks,
                "epochs": {str(room): epoch for room, epoch in self.epochs.items()},
            }
        )

    @classmethod
    def read(cls, packed: bytes) -> "Record":
        members = orjson.loads(packed)
        return cls(
            members["client"],
            members["user"],
            members["generation"],
            {UUID(room): seq for room, seq in members["heads"].items()},
            [UUID(room) for room in members["watched"]],
            [
                (offset, None if room is None else UUID(room), seq)
                for offset, room, seq in members["marks"]
            ],
            {UUID(room): epoch for room, epoch in members["epochs"].items()},
        )


class Restorer:
    """Writes a record when a connection drops, and uses it once when its client comes back."""

    def __init__(
        self,
        *,
        store: Store,
        hub: Hub,
        truth: Log,
        watch: Watch,
        generation: Callable[[], object] = lambda: "",
        may_watch: MayWatch | None = None,
    ) -> None:
        self.counters = Restored()
        self.may_watch = may_watch
        self.generation = generation
        self._store = store
        self._hub = hub
        self._truth = truth
        self._watch = watch
        self._recent: dict[str, tuple[float, Record]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def dropped(self, connection: TrackedConnection) -> None:
        """Keep what a connection had seen. Called while it is still in the hub."""
        if connection.goodbye or not connection.is_open:
            return
        record = self._record(connection)
        now = asyncio.get_running_loop().time()
        while self._recent and (
            len(self._recent) >= MAX_RECENT or next(iter(self._recent.values()))[0] < now - LIFE_S
        ):
            del self._recent[next(iter(self._recent))]
        self._recent[connection.pid] = (now, record)
        task = asyncio.create_task(self._write(connection.pid, record))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def restore(self, connection: TrackedConnection) -> None:
        """Make a connection, which is subscribed but not yet open, go on where its client was."""
        if connection.claim is None:
            return
        try:
            await self._restore(connection, connection.claim)
        except DoubtError as doubt:
            log.info("recovery_refused", reason=str(doubt))
        except Exception as error:  # noqa: BLE001 - the client can always ask with `sync`
            log.warning("recovery_failed", error=repr(error))
        if connection.recovered:
            self.counters.recovered += 1
        else:
            self.counters.refused += 1
            connection.floors.clear()

    async def stop(self) -> None:
        """Wait until the records are written."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _record(self, connection: TrackedConnection) -> Record:
        principal = connection.principal
        listener = self._hub.listeners.get(principal.user_id)
        rooms = {*(() if listener is None else listener.rooms), *connection.watched}
        sent = {mark.room_id: mark for mark in connection.marks if mark.room_id is not None}
        heads = {}
        for room_id in rooms:
            stream = self._hub.streams.get(room_id)
            if stream is None:
                continue
            last = sent.get(room_id)
            # In the middle of a long list of sockets this one may not have had its turn.
            behind = stream.is_busy and (last is None or last.seq < stream.head)
            heads[room_id] = stream.head - 1 if behind else stream.head
        return Record(
            str(principal.client_id),
            str(principal.user_id),
            str(self.generation()),
            heads,
            list(connection.watched),
            [(mark.offset, mark.room_id, mark.seq) for mark in connection.marks],
            {room_id: mark.epoch for room_id, mark in sent.items()},
        )

    async def _write(self, pid: str, record: Record) -> None:
        try:
            await self._store.ask(
                lambda redis: redis.set(self._key(pid), record.packed(), ex=int(LIFE_S))
            )
        except ConnectionError as error:
            log.warning("recovery_record_lost", error=repr(error))

    async def _restore(self, connection: TrackedConnection, claim: Claim) -> None:
        record = await self._take(claim.pid)
        principal = connection.principal
        if record is None:
            raise DoubtError("nothing is known of it")
        if (record.client_id, record.user_id) != (str(principal.client_id), str(principal.user_id)):
            raise DoubtError("it was somebody else's")
        if record.generation != str(self.generation()):
            raise DoubtError("the log is another one")
        places = positions(record.marks, record.heads, claim.offset)
        if places is None:
            raise DoubtError("the offset is unknown")
        await self._resubscribe(connection, record, places)
        connection.go_on(claim.pid, await self._missed(connection, record, places))

    async def _take(self, pid: str) -> Record | None:
        """Give a record and forget it: it is used once."""
        at, record = self._recent.pop(pid, (0.0, None))
        if record is not None and at < asyncio.get_running_loop().time() - LIFE_S:
            record = None
        try:
            packed = await self._store.ask(lambda redis: redis.getdel(self._key(pid)))
        except ConnectionError:
            packed = None
        if record is None and packed is not None:
            record = Record.read(packed)
        return record

    async def _resubscribe(
        self, connection: TrackedConnection, record: Record, places: dict[UUID, int]
    ) -> None:
        """Check that the client's rooms are its rooms still, and watch again what it watched."""
        user_id = connection.principal.user_id
        seats = (await self._truth.subscriptions(user_id)).rooms
        listener = self._hub.listeners.get(user_id)
        for room_id in places:
            if room_id not in seats and room_id not in record.watched:
                raise DoubtError("it has left a room")
        for room_id, seat in seats.items():
            if listener is None or room_id not in listener.rooms:
                raise DoubtError("a room is not followed yet")
            place = places.setdefault(room_id, seat.joined_seq - 1)
            if place < seat.joined_seq - 1:
                raise DoubtError("it has left a room and come back")
        for room_id in record.watched:
            if self.may_watch is None or not await self.may_watch(connection.principal, room_id):
                raise DoubtError("it may not watch a room any more")
            await self._watch(connection, room_id)

    async def _missed(
        self, connection: TrackedConnection, record: Record, places: dict[UUID, int]
    ) -> list[Any]:
        """Read what followed. The connection is subscribed: whatever comes now is kept for it."""
        heads = await self._truth.heads(list(places))
        facts: list[Committed] = []
        size = 0
        for room_id, place in places.items():
            stream = self._hub.streams.get(room_id)
            head = max(heads.get(room_id, 0), 0 if stream is None else stream.head)
            if heads.get(room_id, 0) < place:
                raise DoubtError("it is ahead of the log")
            at = place
            while at < head:
                read = await self._truth.read(room_id, after_seq=at, limit=PAGE)
                for fact in read:
                    if fact.seq != at + 1:
                        raise DoubtError("the log has a hole")
                    at = fact.seq
                    size += len(fact.body)
                    facts.append(fact)
                if not read or len(facts) > MAX_FACTS or size > MAX_BYTES:
                    raise DoubtError("too much was missed")
                epoch = record.epochs.get(room_id)
                if epoch is not None and b'"epoch":"%b"' % epoch.encode() not in read[0].body:
                    raise DoubtError("the room's log is another one")
            connection.floors[room_id] = at
        return [event_packet(connection.namespace, fact.type, fact.body) for fact in facts]

    def _key(self, pid: str) -> str:
        return f"{self._store.prefix}:recovery:{pid}"
