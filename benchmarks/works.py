"""What every contender has to do, and what is measured while it does."""

import asyncio
import secrets
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.cast import Cast, Room
from benchmarks.contenders import (
    BARE,
    ENGINE,
    NODE,
    PRODUCT,
    STOCK,
    STOCK_ASYNCIO,
    Contender,
)
from benchmarks.machine import Server, cpu_s, descendants, resident_bytes
from benchmarks.wire import Socket, Tally

_AT_ONCE: Final = 32
_TICK_S: Final = 0.01
_DRAIN_S: Final = 10.0
_WARM_UP: Final = 50
_SETTLE_S: Final = 1.0
_NAMESPACES: Final = ("/rooms", "/chat", "/notifications")


@dataclass(frozen=True)
class Pids:
    """Whose processor time is shown apart from the server's."""

    postgres: int
    redis: int


@dataclass(frozen=True)
class Talk:
    """Senders that say so many things a second, in bursts of `burst`, whoever is behind."""

    key: str
    title: str
    unit: str  # delivery | send
    goal: str
    contenders: tuple[Contender, ...]
    rate: int
    small_rooms: bool = False
    burst: int = 1
    nodes: int = 1

    def rooms(self, cast: Cast) -> Sequence[Room]:
        return cast.small if self.small_rooms else cast.big

    async def measure(
        self,
        contender: Contender,
        servers: Sequence[Server],
        cast: Cast,
        pids: Pids,
        seconds: float,
    ) -> dict[str, float]:
        return await _talk(self, contender, servers, cast, pids, seconds)


@dataclass(frozen=True)
class Arrive:
    """A thousand connects with three namespaces; then they stay and do nothing."""

    key: str
    title: str
    contenders: tuple[Contender, ...]
    nodes: int = 1

    async def measure(
        self,
        contender: Contender,
        servers: Sequence[Server],
        cast: Cast,
        pids: Pids,
        seconds: float,
    ) -> dict[str, float]:
        return await _arrive(contender, servers, cast, pids, seconds)


ALL_WORKS: Final = (
    Talk(
        "fan_out",
        "CPU per delivery, rooms of 100, one fact at a time",
        "delivery",
        "0.65 x Node unstored, 0.8 x stored",
        (NODE, STOCK, STOCK_ASYNCIO, BARE, ENGINE, PRODUCT),
        rate=150,
    ),
    Talk(
        "fan_out_busy",
        "The same, 40,000 deliveries a second",
        "delivery",
        "0.65 x Node unstored, 0.8 x stored",
        (NODE, BARE, ENGINE, PRODUCT),
        rate=400,
    ),
    Talk(
        "fan_out_burst",
        "CPU per delivery, rooms of 100, ten facts at a time",
        "delivery",
        "0.55 x Node unstored",
        (NODE, STOCK, BARE, ENGINE, PRODUCT),
        rate=150,
        burst=10,
    ),
    Talk(
        "senders",
        "CPU per send, rooms of 10, 1,000 senders",
        "send",
        "0.55 x Node unstored, 0.9 x stored",
        (NODE, STOCK, BARE, ENGINE, PRODUCT),
        rate=1000,
        small_rooms=True,
    ),
    Talk(
        "two_nodes",
        "CPU per delivery, rooms of 100 on two nodes over Redis",
        "delivery",
        "0.6 x Node",
        (NODE, STOCK, ENGINE, PRODUCT),
        rate=150,
        nodes=2,
    ),
    Arrive(
        "arrivals",
        "1,000 connects with three namespaces and 20 rooms, then idle",
        (NODE, STOCK, BARE, ENGINE, PRODUCT),
    ),
)


async def connect_all(
    contender: Contender,
    servers: Sequence[Server],
    auth: Sequence[dict[str, Any]],
    namespaces: Sequence[str],
    tally: Tally,
    *,
    sync: bool = False,
) -> list[Socket]:
    """Connect every user, in turn to each node."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> Socket:
        async with gate:
            made = Socket(servers[number % len(servers)].port, tally)
            # A peer joins its rooms where it reads them; ours is told who comes, and knows.
            connects = [
                (name, auth[number] if contender.says_ready or name == "/chat" else {})
                for name in namespaces
            ]
            await made.connect(connects, ready=contender.says_ready)
            if made.handed_out:
                # As every client does: else the next connect would find a key that waits already.
                auth[number]["token"] = made.handed_out
            if sync and contender.stored:
                answer = await made.call("sync", {})
                assert answer["ok"], answer
            return made

    return list(await asyncio.gather(*(one(number) for number in range(len(auth)))))


async def _talk(
    work: Talk,
    contender: Contender,
    servers: Sequence[Server],
    cast: Cast,
    pids: Pids,
    seconds: float,
) -> dict[str, float]:
    tally = Tally()
    sockets = await connect_all(contender, servers, cast.auth, ["/chat"], tally)
    rooms = work.rooms(cast)
    # Who speaks in which room: one in each big room, everyone in the small ones.
    speakers = [
        (member, room)
        for room in rooms
        for member in (room.members if work.small_rooms else room.members[:1])
    ]
    numbers = [0] * len(sockets)
    conversation = _Conversation(work, contender, sockets, speakers, numbers)
    await conversation.run(_SETTLE_S)
    await _arrived(tally, conversation.expected)
    tally.reset()
    for socket in sockets:
        socket.forget()
    before = _usage(servers, pids)
    own = time.process_time()
    started = time.monotonic()
    conversation.sent = conversation.expected = 0
    await conversation.run(seconds)
    missing = await _arrived(tally, conversation.expected)
    await _answered(tally, conversation.sent)
    took = time.monotonic() - started
    own = time.process_time() - own
    server, postgres, redis = (
        after - then for after, then in zip(_usage(servers, pids), before, strict=True)
    )
    units = conversation.sent if work.unit == "send" else conversation.expected
    values = {
        "cpu_us": server / units * 1e6,
        "postgres_us": postgres / units * 1e6,
        "redis_us": redis / units * 1e6,
        "deliveries": tally.deliveries,
        "sends": conversation.sent,
        "seconds": took,
        "server_load": server / took,
        "generator_load": own / took,
        "bytes_per_delivery": tally.bytes_received / max(1, tally.deliveries),
        "lost": tally.lost + missing,
        "repeated": tally.repeated,
        "refused": conversation.sent - tally.acks,
        "closed": tally.closed,
        "disordered": _disordered(rooms, sockets),
        **_quantiles("delivery", tally.delivery_ns),
        **_quantiles("ack", tally.ack_ns),
    }
    for socket in sockets:
        socket.close()
    await asyncio.sleep(0)
    return values


class _Conversation:
    """Sends at a steady rate: what is late is caught up with, so that nobody is spared."""

    def __init__(
        self,
        work: Talk,
        contender: Contender,
        sockets: Sequence[Socket],
        speakers: Sequence[tuple[int, Room]],
        numbers: list[int],
    ) -> None:
        self._work = work
        self._contender = contender
        self._sockets = sockets
        self._speakers = speakers
        self._numbers = numbers
        self._turn = 0
        # What was sent in an earlier round must not be sent again: it would be a repeat.
        self._run = secrets.token_hex(6)
        self.sent = 0
        self.expected = 0

    async def run(self, seconds: float) -> None:
        started = time.monotonic()
        done = 0
        while (passed := time.monotonic() - started) < seconds:
            due = int(passed * self._work.rate / self._work.burst)
            while done < due:
                self._say()
                done += 1
            await asyncio.sleep(_TICK_S)

    def _say(self) -> None:
        speaker, room = self._speakers[self._turn % len(self._speakers)]
        self._turn += 1
        socket = self._sockets[speaker]
        frames = []
        for _ in range(self._work.burst):
            number = self._numbers[speaker]
            self._numbers[speaker] += 1
            more = f',"client_msg_id":"{self._run}-{number}"' if self._contender.stored else ""
            frames.append(socket.say(speaker, number, self._contender.event, room.id, more))
            self.sent += 1
            self.expected += len(room.members)
        socket.write(b"".join(frames))


async def _arrive(
    contender: Contender,
    servers: Sequence[Server],
    cast: Cast,
    pids: Pids,
    seconds: float,
) -> dict[str, float]:
    tally = Tally()
    first = await connect_all(
        contender, servers, cast.auth[:_WARM_UP], _NAMESPACES, tally, sync=True
    )
    await asyncio.sleep(_SETTLE_S)
    server_pids = [server.pid for server in servers]
    memory = resident_bytes(server_pids)
    before = _usage(servers, pids)
    started = time.monotonic()
    rest = await connect_all(
        contender, servers, cast.auth[_WARM_UP:], _NAMESPACES, tally, sync=True
    )
    took = time.monotonic() - started
    after = _usage(servers, pids)
    await asyncio.sleep(max(_SETTLE_S, seconds / 2))
    grown = resident_bytes(server_pids) - memory
    values = {
        "connect_cpu_us": (after[0] - before[0]) / len(rest) * 1e6,
        "postgres_us": (after[1] - before[1]) / len(rest) * 1e6,
        "redis_us": (after[2] - before[2]) / len(rest) * 1e6,
        "memory_kb": grown / len(rest) / 1024,
        "seconds": took,
        "closed": tally.closed,
    }
    for socket in [*first, *rest]:
        socket.close()
    await asyncio.sleep(0)
    return values


def _usage(servers: Sequence[Server], pids: Pids) -> tuple[float, float, float]:
    return (
        cpu_s(server.pid for server in servers),
        cpu_s(descendants(pids.postgres)),
        cpu_s([pids.redis]),
    )


async def _arrived(tally: Tally, expected: int) -> int:
    """Wait for what is under way; give how much of it never came."""
    deadline = time.monotonic() + _DRAIN_S
    while tally.deliveries < expected and time.monotonic() < deadline:  # noqa: ASYNC110 - a count
        await asyncio.sleep(_TICK_S)
    return max(0, expected - tally.deliveries)


async def _answered(tally: Tally, sent: int) -> None:
    """Wait for answers that come after what they answer for was delivered."""
    deadline = time.monotonic() + _DRAIN_S
    while tally.acks + tally.refused < sent and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_TICK_S)


def _disordered(rooms: Sequence[Room], sockets: Sequence[Socket]) -> int:
    """How many sockets were told another order than most of their room."""
    total = 0
    for room in rooms:
        orders = [sockets[member].order for member in room.members]
        total += len(orders) - orders.count(statistics.mode(orders))
    return total


def _quantiles(name: str, nanoseconds: Sequence[int]) -> dict[str, float]:
    if len(nanoseconds) < 2:
        return {f"{name}_p50_ms": 0.0, f"{name}_p99_ms": 0.0}
    cuts = statistics.quantiles(nanoseconds, n=100)
    return {f"{name}_p50_ms": cuts[49] / 1e6, f"{name}_p99_ms": cuts[98] / 1e6}
