"""Telling the other nodes, without ever waiting for them: a bounded queue and one task."""

import asyncio
import contextlib
import hashlib
import random
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

import structlog
from redis.exceptions import AskError, MovedError

from chatserver.kernel.events import Committed
from chatserver.kernel.tasks import end
from chatserver.realtime import envelope
from chatserver.realtime.envelope import NO_TARGET, Kind, Seal
from chatserver.realtime.links import RedisLinks
from chatserver.realtime.ports import Changes, Closing
from chatserver.realtime.redis import AWAY

log = structlog.get_logger(__name__)

BUCKETS: Final = 1024
BATCH: Final = 256
DEADLINE_S: Final = 1.0
MAX_WAITING: Final = 10_000
MAX_WAITING_BYTES: Final = 16 << 20
LONGEST_BACK_OFF_S: Final = 2.0
# Beyond this many people the fact itself goes once to the room; they get a reference to it.
MANY: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class BusSettings:
    """Where the bus is. `key` authenticates the nodes of one deployment, `prefix` names it.

    `sharded`: whether to use sharded pub/sub; None: where the server is one of a Redis Cluster.
    """

    url: str = field(repr=False)
    key: bytes = field(repr=False)
    prefix: str = "chatserver"
    sharded: bool | None = None

    @property
    def channels(self) -> str:
        """How every channel's name begins. Another deployment on the same Redis has others."""
        return f"{self.prefix}:{hashlib.blake2b(self.key, digest_size=4).hexdigest()}"


def bucket(of: UUID) -> int:
    return zlib.crc32(of.bytes) % BUCKETS


class _Item(NamedTuple):
    """What waits to be published; `told` hears how many got it."""

    channel: str
    data: bytes
    told: Callable[[int], None] | None


@dataclass(slots=True)
class Published:
    """What was done, for metrics."""

    sent: int = 0
    dropped: int = 0
    failures: int = 0
    spared: int = 0  # facts that nobody else listens to


class BusPublisher:
    """A `Broadcaster` for workers and scripts; nodes use it as their half of the bus.

    When Redis is away messages are dropped and counted: the event log has what they said.
    """

    def __init__(self, settings: BusSettings, origin: str) -> None:
        self.counters = Published()
        self.prefix = settings.channels
        self.seal = Seal(settings.key, origin.encode())
        self._links = RedisLinks(settings.url, sharded=settings.sharded)
        self._waiting: deque[_Item] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._retry_at = 0.0

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Send what waits, for at most a second, and close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                await self._idle.wait()
        await end(self._task)
        await self._links.drop()

    @property
    def is_away(self) -> bool:
        """Whether Redis was away a moment ago, so that nothing is even tried."""
        return self._failures > 0 and asyncio.get_running_loop().time() < self._retry_at

    def publish(self, facts: Sequence[Committed]) -> None:
        if self.is_away:
            self.counters.dropped += len(facts)
            return
        for fact in facts:
            for channel, data in self._envelopes(fact):
                self.put(channel, data)

    def close(self, closing: Closing) -> None:
        self.put(
            f"{self.prefix}:all",
            self.seal.close(Kind.CLOSING, NO_TARGET, envelope.closing_body(closing)),
        )

    def publish_changes(self, changes: Changes) -> None:
        for kind, body in envelope.change_bodies(changes):
            self.put(f"{self.prefix}:all", self.seal.close(kind, NO_TARGET, body))

    def put(self, channel: str, data: bytes, told: Callable[[int], None] | None = None) -> None:
        if len(self._waiting) >= MAX_WAITING or self._bytes + len(data) > MAX_WAITING_BYTES:
            self.counters.dropped += 1
            return
        self._waiting.append(_Item(channel, data, told))
        self._bytes += len(data)
        self._filled.set()
        self._idle.clear()

    def envelopes(self, fact: Committed) -> list[tuple[str, bytes]]:
        """Pack a fact for whoever publishes it himself: channels and what goes there."""
        return list(self._envelopes(fact))

    def channel_of(self, room_id: UUID) -> str:
        """Name the channel on which a room's facts go."""
        return f"{self.prefix}:r{bucket(room_id)}"

    def _envelopes(self, fact: Committed) -> Iterator[tuple[str, bytes]]:
        room_id, seq = fact.room_id, fact.seq
        people = set(fact.audience)
        if room_id is None or seq is None:
            body = envelope.fact_body(fact)
            if room_id is not None and not fact.audience:
                yield self._to_room(Kind.FACT, room_id, body)
            for user_id in people:
                yield self._to_user(Kind.FACT, user_id, body)
            return
        people.update(fact.effect.entered, fact.effect.left)
        reference = envelope.reference_body(room_id, seq)
        kind, body = Kind.REFERENCE, reference
        if len(fact.body) <= envelope.MAX_BYTES:
            packed = envelope.fact_body(fact)
            if len(packed) <= envelope.MAX_BYTES:
                kind, body = Kind.FACT, packed
        yield self._to_room(kind, room_id, body)
        if len(people) > MANY:
            kind, body = Kind.REFERENCE, reference
        for user_id in people:
            yield self._to_user(kind, user_id, body)

    def _to_room(self, kind: Kind, room_id: UUID, body: bytes) -> tuple[str, bytes]:
        return self.channel_of(room_id), self.seal.close(kind, room_id.bytes, body)

    def _to_user(self, kind: Kind, user_id: UUID, body: bytes) -> tuple[str, bytes]:
        return f"{self.prefix}:u{bucket(user_id)}", self.seal.close(kind, user_id.bytes, body)

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                self._idle.set()
            await self._filled.wait()
            batch = self._take()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await self._send(batch)
            except AWAY as error:
                await self._fail(len(batch), error)
            else:
                if self._failures:
                    log.info("bus_publisher_back")
                self._failures = 0
                self.counters.sent += len(batch)

    def _take(self) -> list[_Item]:
        batch: list[_Item] = []
        while self._waiting and len(batch) < BATCH:
            item = self._waiting.popleft()
            self._bytes -= len(item.data)
            batch.append(item)
        if not self._waiting:
            self._filled.clear()
        return batch

    async def _send(self, batch: Sequence[_Item]) -> None:
        if not self._links.is_open:
            if asyncio.get_running_loop().time() < self._retry_at:
                raise ConnectionError("still backing off")
            await self._links.open()
        items = [(item.channel, item.data) for item in batch]
        try:
            heard = await self._links.publish(items)
        except (MovedError, AskError):
            # The Cluster was resharded: once more, to who has the slot now. What was heard twice
            # is shown once.
            await self._links.drop()
            await self._links.open()
            heard = await self._links.publish(items)
        for item, count in zip(batch, heard, strict=True):
            if item.told is not None:
                item.told(count)

    async def _fail(self, lost: int, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        self.counters.dropped += lost
        if now >= self._retry_at:
            if not self._failures:
                log.warning("bus_publisher_away", error=repr(error))
            self.counters.failures += 1
            self._failures += 1
            longest = min(0.1 * 2**self._failures, LONGEST_BACK_OFF_S)
            self._retry_at = now + random.uniform(longest / 2, longest)  # noqa: S311 - jitter
            await self._links.drop()
