"""Between nodes: 1,024 channels for rooms, as many for users, and a heartbeat through it all."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

import structlog

from chatserver.infra import tracing
from chatserver.kernel.events import Committed
from chatserver.kernel.tasks import end
from chatserver.realtime import envelope
from chatserver.realtime.channels import Channels
from chatserver.realtime.envelope import NO_TARGET, ForgedError, Kind, Opened
from chatserver.realtime.fellows import Fellows
from chatserver.realtime.links import RedisLinks
from chatserver.realtime.ports import Changes, Closing
from chatserver.realtime.publisher import LONGEST_BACK_OFF_S, BusPublisher, BusSettings, bucket
from chatserver.realtime.redis import AWAY

log = structlog.get_logger(__name__)

HEARTBEAT_S: Final = 2.0
MISSED: Final = 2
CONFIRM_S: Final = 0.5
YIELD_EVERY: Final = 100


class Receiver(Protocol):
    """Who gets what the bus brings. None of these may wait."""

    def concerns_room(self, room_id: UUID) -> bool: ...
    def concerns_user(self, user_id: UUID) -> bool: ...
    def on_fact(self, fact: Committed, only: UUID | None) -> None: ...
    def on_reference(self, room_id: UUID, seq: int, only: UUID | None) -> None: ...
    def on_closing(self, closing: Closing) -> None: ...
    def on_changes(self, changes: Changes) -> None: ...
    def on_typing(self, origin: bytes, room_id: UUID, report: bytes) -> None: ...
    def on_ask(self, origin: bytes, room_id: UUID, question: bytes) -> None: ...
    def on_answer(self, answer: bytes) -> None: ...


@dataclass(slots=True)
class Heard:
    """What came, for metrics."""

    received: int = 0
    strangers: int = 0
    forged: int = 0
    failed: int = 0
    reconnects: int = 0


class Bus:
    """One node's two ends of the bus. `healthy` means: what others publish arrives here."""

    def __init__(
        self, settings: BusSettings, node_id: str, *, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self.publisher = BusPublisher(settings, node_id)
        self.counters = Heard()
        self.receiver: Receiver | None = None
        self.healthy = False
        self.changed_at = 0.0
        self.heartbeat_took_s = 0.0
        self._beat_at = 0.0
        self._degraded_s = 0.0
        self.fellows = Fellows(self._greet, self._become_healthy)
        self._prefix = settings.channels
        self._rooms = f"{self._prefix}:r".encode()
        self._users = f"{self._prefix}:u".encode()
        self._all = f"{self._prefix}:all"
        self._channels = Channels((self._all, self._own_of(self.publisher.seal.origin)))
        self._links = RedisLinks(settings.url, sharded=settings.sharded)
        self._heartbeat_s = heartbeat_s
        # A channel of one's own on each link, and when it last brought a heartbeat.
        self._heard_at: dict[bytes, float] = {}
        self._arrived_at: float | None = None
        self._session: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._settled = asyncio.Event()

    async def start(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.changed_at = asyncio.get_running_loop().time()
        await self.publisher.start()
        self._tasks = [asyncio.create_task(self._stay()), asyncio.create_task(self._beat())]

    async def stop(self) -> None:
        await end(*self._tasks)
        await self.publisher.stop()

    async def settled(self, timeout_s: float) -> None:
        """Wait until the bus is healthy, or known to be away."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()

    def degraded_so_far(self) -> float:
        """Count the seconds without a healthy bus."""
        if self.healthy or self.receiver is None:
            return self._degraded_s
        return self._degraded_s + asyncio.get_running_loop().time() - self.changed_at

    def publish(self, facts: Sequence[Committed]) -> None:
        if self.fellows.alone:
            self.publisher.counters.spared += len(facts)
        else:
            self.publisher.publish(facts)

    def report_typing(self, room_id: UUID, report: bytes) -> None:
        """Tell the other nodes that show a room about who types there."""
        self._put(Kind.TYPING, room_id, report)

    def ask(self, room_id: UUID, question: bytes) -> None:
        """Ask the other nodes that show a room."""
        self._put(Kind.ASK, room_id, question)

    def answer(self, origin: bytes, answer: bytes) -> None:
        """Answer the node that asked."""
        channel = f"{self._prefix}:n:{origin.hex()}"
        self.publisher.put(channel, self.publisher.seal.close(Kind.ANSWER, NO_TARGET, answer))

    def retain_room(self, room_id: UUID) -> None:
        self._channels.retain(self._room(room_id))

    def release_room(self, room_id: UUID) -> None:
        self._channels.release(self._room(room_id), asyncio.get_running_loop().time())

    def retain_user(self, user_id: UUID) -> None:
        self._channels.retain(self._user(user_id))

    def release_user(self, user_id: UUID) -> None:
        self._channels.release(self._user(user_id), asyncio.get_running_loop().time())

    def is_confirmed(self, room_id: UUID) -> bool:
        return self._room(room_id) in self._channels.confirmed

    async def confirm_user(self, user_id: UUID) -> bool:
        return await self._confirm({self._user(user_id)})

    async def confirm_rooms(self, room_ids: Iterable[UUID]) -> bool:
        return await self._confirm({self._room(room_id) for room_id in room_ids})

    def _put(self, kind: Kind, room_id: UUID, body: bytes) -> None:
        sealed = self.publisher.seal.close(kind, room_id.bytes, body)
        self.publisher.put(self._room(room_id), sealed)

    def _room(self, room_id: UUID) -> str:
        return f"{self._prefix}:r{bucket(room_id)}"

    def _user(self, user_id: UUID) -> str:
        return f"{self._prefix}:u{bucket(user_id)}"

    def _own_of(self, origin: bytes) -> str:
        return f"{self._prefix}:n:{origin.hex()}"

    async def _confirm(self, names: set[str]) -> bool:
        if not self._links.is_open or not self.healthy:
            return False
        return await self._channels.wait(names, CONFIRM_S)

    async def _stay(self) -> None:
        """Keep a connection, and make another whenever it is lost or deaf."""
        failures = 0
        while True:
            self._session = asyncio.create_task(self._serve())
            try:
                await asyncio.wait({self._session})
                if not self._session.cancelled():  # by the watchdog
                    self._session.result()
            except AWAY as error:
                if not failures:
                    log.warning("bus_away", error=repr(error))
            except Exception:
                log.exception("bus_failed")
            finally:
                self._session.cancel()
                was_healthy, self.healthy = self.healthy, False
                if was_healthy:
                    self.changed_at = asyncio.get_running_loop().time()
                self._arrived_at = None
                self.fellows.lose()
                self._channels.lose()
                await self._links.drop()
            failures = 1 if was_healthy else failures + 1
            self.counters.reconnects += 1
            self._settled.set()
            longest = min(0.05 * 2**failures, LONGEST_BACK_OFF_S)
            await asyncio.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - jitter

    async def _serve(self) -> None:
        async with asyncio.timeout(LONGEST_BACK_OFF_S):
            await self._links.open()
        own = self._links.names(self._own_of(self.publisher.seal.origin))
        now = asyncio.get_running_loop().time()
        self._heard_at = dict.fromkeys((name.encode() for name in own), now)
        self._channels.need_also(own)
        work = [self._ask(), *(self._listen(link) for link in range(len(self._links)))]
        tasks = [asyncio.create_task(each) for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end(*tasks)

    async def _listen(self, link: int) -> None:
        taken = 0
        while True:
            self._take(await self._links.receive(link))
            taken += 1
            if taken % YIELD_EVERY == 0:
                await asyncio.sleep(0)

    async def _ask(self) -> None:
        """Subscribe to what is needed, as it is needed."""
        channels = self._channels
        while True:
            channels.changed.clear()
            wanted = channels.to_subscribe()
            if wanted:
                await self._links.subscribe(wanted)
            over = channels.to_unsubscribe(asyncio.get_running_loop().time())
            if over:
                await self._links.unsubscribe(over)
            await channels.changed.wait()

    async def _beat(self) -> None:
        """Publish to oneself; whoever doesn't hear it twice is deaf and connects anew."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._heartbeat_s)
            self._send_heartbeat()
            self.fellows.ask_again()
            self._channels.changed.set()  # a moment to let go of idle channels
            heard_at = min(self._heard_at.values(), default=0.0)
            deaf = loop.time() - heard_at > self._heartbeat_s * (MISSED + 0.25)
            if deaf and self._links.is_open and self._session is not None:
                log.warning("bus_deaf")
                self._session.cancel()

    def _send_heartbeat(self) -> None:
        self._beat_at = asyncio.get_running_loop().time()
        for channel in self._heard_at:
            self._say(Kind.HEARTBEAT, channel.decode())

    def _greet(self, hello: bool, told: Callable[[int], None]) -> None:  # noqa: FBT001 - as asked
        self._say(Kind.HELLO if hello else Kind.HEARTBEAT, self._all, told)

    def _say(self, kind: Kind, channel: str, told: Callable[[int], None] | None = None) -> None:
        self.publisher.put(channel, self.publisher.seal.close(kind, NO_TARGET, b""), told)

    def _take(self, reply: Any) -> None:
        what, channel, data = reply
        if what == b"message":
            self.counters.received += 1
            try:
                self._dispatch(channel, data)
            except ForgedError:
                self.counters.forged += 1
            except Exception:
                self.counters.failed += 1
                log.exception("bus_message_failed")
        elif what == b"subscribe":
            self._channels.confirm(channel.decode())
            if self._arrived_at is None and self._channels.is_restored:
                self._arrived_at = asyncio.get_running_loop().time()
                self._send_heartbeat()
                self.fellows.arrive()
        elif what == b"unsubscribe" and not self._channels.was_asked_to_end(channel.decode()):
            raise ConnectionError("a channel has moved to another server")

    def _dispatch(self, channel: bytes, data: bytes) -> None:
        receiver = self.receiver
        target = envelope.target_of(data)
        if receiver is None or target is None:
            raise ForgedError("too short")
        only: UUID | None = None
        if channel.startswith(self._rooms):
            concerns = receiver.concerns_room(target)
        elif channel.startswith(self._users):
            concerns, only = receiver.concerns_user(target), target
        else:
            concerns = True
        if not concerns:
            self.counters.strangers += 1
            return
        opened = self.publisher.seal.open(data)
        if opened.origin == self.publisher.seal.origin:
            if channel in self._heard_at:
                self._hear(channel)
        elif opened.kind is Kind.HELLO:
            self.fellows.hear()
            self._say(Kind.WELCOME, self._own_of(opened.origin))
        elif opened.kind is Kind.WELCOME:
            self.fellows.welcome(opened.origin)
        elif opened.kind is Kind.HEARTBEAT:
            self.fellows.hear()
        else:
            _hand_on(receiver, opened, only)

    def _hear(self, channel: bytes) -> None:
        """Hear oneself."""
        now = self._heard_at[channel] = asyncio.get_running_loop().time()
        self.heartbeat_took_s = now - self._beat_at
        self._become_healthy()

    def _become_healthy(self) -> None:
        """Say so when everyone publishes to us, and each of our links brings what is published."""
        if self.healthy or not self.fellows.is_greeted or self._arrived_at is None:
            return
        if min(self._heard_at.values()) < self._arrived_at:
            return
        now = asyncio.get_running_loop().time()
        self._degraded_s += now - self.changed_at
        self.healthy = True
        self._settled.set()
        self.changed_at = now
        log.info("bus_healthy", alone=self.fellows.alone)


def _hand_on(receiver: Receiver, opened: Opened, only: UUID | None) -> None:
    body = opened.body
    if opened.kind is Kind.FACT and tracing.is_on():
        _follow(receiver, body, only)
    elif opened.kind is Kind.FACT:
        receiver.on_fact(envelope.read_fact(body), only)
    elif opened.kind is Kind.REFERENCE:
        room_id, seq = envelope.read_reference(body)
        receiver.on_reference(room_id, seq, only)
    elif opened.kind is Kind.CLOSING:
        receiver.on_closing(envelope.read_closing(body))
    elif opened.kind is Kind.TYPING:
        receiver.on_typing(opened.origin, opened.target, body)
    elif opened.kind is Kind.ASK:
        receiver.on_ask(opened.origin, opened.target, body)
    elif opened.kind is Kind.ANSWER:
        receiver.on_answer(body)
    else:
        receiver.on_changes(envelope.read_changes(opened.kind, body))


def _follow(receiver: Receiver, body: bytes, only: UUID | None) -> None:
    fact, parent = envelope.read_fact(body), envelope.trace_of(body)
    if parent is None:
        # What is not followed where it began is not followed here.
        receiver.on_fact(fact, only)
        return
    with tracing.span("fan-out", parent=parent, kind="consumer", bus=True):
        receiver.on_fact(fact, only)
