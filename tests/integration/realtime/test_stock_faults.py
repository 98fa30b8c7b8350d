"""Faults that python-socketio and python-engineio have today, and this engine does not.

Every fault is a probe that tells whether it shows. The stock half of the table fails when a new
version moves the ground; the other half when we do.
"""

import asyncio
import contextlib
import socket as sockets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import socketio

from chatserver.realtime import create_server
from tests.support.bare import Endpoint, Poller, Socket, served

LIMIT = 100_000


@dataclass
class Stage:
    """A server with a handler that notes what it is sent, and one that is slow."""

    sio: socketio.AsyncServer
    endpoint: Endpoint
    notes: list[Any] = field(default_factory=list)
    connects: list[str] = field(default_factory=list)
    disconnects: list[str] = field(default_factory=list)
    on_connect: Callable[[], Awaitable[Any]] | None = None

    def prepare(self) -> None:
        sio = self.sio

        @sio.event  # type: ignore[untyped-decorator]
        async def connect(sid: str, environ: Any, auth: Any = None) -> Any:
            self.connects.append(sid)
            return await self.on_connect() if self.on_connect is not None else None

        @sio.event  # type: ignore[untyped-decorator]
        async def disconnect(sid: str, reason: str) -> None:
            self.disconnects.append(sid)

        @sio.event  # type: ignore[untyped-decorator]
        async def note(sid: str, what: Any, delay_s: float = 0) -> None:
            await asyncio.sleep(delay_s)
            self.notes.append(what)

        @sio.event  # type: ignore[untyped-decorator]
        async def crash(sid: str) -> None:
            raise RuntimeError("a bug")

    async def websocket(self) -> Socket:
        socket = await self.endpoint.opened()
        await socket.send("40")
        assert (await socket.text()).startswith("40{")
        return socket

    async def polling(self) -> Poller:
        peer = await self.endpoint.open()
        await peer.push("40")
        assert (await peer.poll())[1].startswith("40{")
        return peer

    async def noted(self, count: int) -> bool:
        """Whether so much is noted, after a while."""
        for _ in range(40):
            if len(self.notes) >= count:
                return True
            await asyncio.sleep(0.01)
        return False

    def sockets(self) -> list[str]:
        return list(self.sio.eio.sockets)


async def loses_segments(stage: Stage) -> bool:
    peer = await stage.polling()

    async def body() -> AsyncIterator[bytes]:
        yield b'42["note","' + b"x" * 2000
        await asyncio.sleep(0.02)
        yield b"x" * 2000 + b'"]'

    status, _ = await peer.push(body())
    return status == 200 and not await stage.noted(1)


async def loses_what_exceeds_16_packets(stage: Stage) -> bool:
    peer = await stage.polling()
    await peer.push("\x1e".join(f'42["note",{number}]' for number in range(40)))
    return not await stage.noted(40)


async def freezes_an_upgrade_without_a_probe(stage: Stage) -> bool:
    peer = await stage.polling()
    await peer.upgrade()
    await asyncio.sleep(0.05)
    await stage.sio.emit("fact", 1)
    for _ in range(5):
        if (await peer.poll())[1] == '42["fact",1]':
            return False
    return True


async def hangs_on_an_oversize_post(stage: Stage) -> bool:
    peer = await stage.polling()
    try:
        async with asyncio.timeout(1):
            status, _ = await peer.push("4" + "x" * 2 * LIMIT)
    except TimeoutError:
        return True
    assert status in (400, 413)
    return False


async def runs_events_before_the_connect_is_accepted(stage: Stage) -> bool:
    async def slow() -> bool:
        await asyncio.sleep(0.3)
        return False

    stage.on_connect = slow
    peer = await stage.endpoint.open()
    connecting = asyncio.create_task(peer.push("40"))
    await asyncio.sleep(0.1)
    await peer.push('42["note","early"]')
    await connecting
    return await stage.noted(1)


async def shows_broadcasts_before_the_connect_is_accepted(stage: Stage) -> bool:
    async def slow() -> bool:
        await asyncio.sleep(0.2)
        return False

    stage.on_connect = slow
    socket = await stage.endpoint.opened()
    await socket.send("40")
    await asyncio.sleep(0.1)
    await stage.sio.emit("secret")
    return await socket.text() == '42["secret"]'


async def lets_in_when_the_connect_handler_fails(stage: Stage) -> bool:
    async def crash() -> None:
        raise OSError("the database is away")

    stage.on_connect = crash
    socket = await stage.endpoint.opened()
    await socket.send("40")
    await asyncio.sleep(0.1)
    await stage.sio.emit("secret")
    with contextlib.suppress(TimeoutError, AssertionError):
        async with asyncio.timeout(0.3):
            return await socket.text() == '42["secret"]'
    return False


async def runs_a_failing_connect_handler_twice(stage: Stage) -> bool:
    async def crash() -> None:
        raise TypeError("a bug of its own")

    stage.on_connect = crash
    socket = await stage.endpoint.opened()
    await socket.send("40")
    await asyncio.sleep(0.1)
    return len(stage.connects) > 1


async def takes_a_forged_disconnect(stage: Stage) -> bool:
    socket = await stage.websocket()
    await socket.send('42["disconnect","forged"]')
    await asyncio.sleep(0.1)
    return bool(stage.disconnects) and bool(stage.sockets())


async def takes_a_forged_connect(stage: Stage) -> bool:
    socket = await stage.websocket()
    await socket.send('42["connect",{"REMOTE_ADDR":"127.0.0.1"}]')
    await asyncio.sleep(0.1)
    return len(stage.connects) > 1


async def breaks_by_ack_zero(stage: Stage) -> bool:
    socket = await stage.websocket()
    (sid,) = stage.connects
    await stage.sio.emit("ask", to=sid, callback=lambda *_: None)
    await socket.send("430[]")
    await asyncio.sleep(0.05)
    try:
        await stage.sio.emit("ask", to=sid, callback=lambda *_: None)
    except Exception:  # noqa: BLE001 - whatever it is, it is the fault
        return True
    return False


async def leaks_callbacks_that_are_never_answered(stage: Stage) -> bool:
    await stage.websocket()
    (sid,) = stage.connects
    with contextlib.suppress(socketio.exceptions.TimeoutError):
        await stage.sio.call("ask", to=sid, timeout=0.05)
    manager = stage.sio.manager
    if hasattr(manager, "member"):
        return bool(manager.member(sid, "/").callbacks)
    return len(manager.callbacks[sid]) > 1


async def leaves_an_unknown_event_without_an_ack(stage: Stage) -> bool:
    return await _is_silent(stage, '421["nobody.knows"]')


async def leaves_a_failing_event_without_an_ack(stage: Stage) -> bool:
    return await _is_silent(stage, '421["crash"]')


async def _is_silent(stage: Stage, packet: str) -> bool:
    socket = await stage.websocket()
    await socket.send(packet)
    with contextlib.suppress(TimeoutError, AssertionError):
        async with asyncio.timeout(1.5):
            return not (await socket.text()).startswith("431[")
    return True


async def keeps_whatever_a_stalled_reader_leaves(stage: Stage) -> bool:
    host, port = stage.endpoint.url.split("/")[2].split(":")
    stalled = sockets.socket()
    stalled.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    stalled.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(stalled, (host, int(port)))
    await loop.sock_sendall(
        stalled,
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + b"\x81\x82\0\0\0\x0040",
    )
    for _ in range(100):
        if stage.connects:
            break
        await asyncio.sleep(0.01)
    for _ in range(2000):
        await stage.sio.emit("fact", "x" * 10_000)
    await asyncio.sleep(2.5)
    is_there = bool(stage.sockets())
    stalled.close()
    return is_there


async def accumulates_attachments(stage: Stage) -> bool:
    socket = await stage.websocket()
    await socket.send('459999999999-["note",{"_placeholder":true,"num":0}]')
    for _ in range(20):
        with contextlib.suppress(ConnectionError):
            await socket.send(b"x" * 50_000)
    await asyncio.sleep(0.1)
    return bool(stage.sockets())


async def is_wedged_by_a_bad_placeholder(stage: Stage) -> bool:
    socket = await stage.websocket()
    with contextlib.suppress(ConnectionError):
        await socket.send('451-["note",{"_placeholder":true,"num":5}]', b"x", '42["note",1]')
    return not await stage.noted(1) and bool(stage.sockets())


async def starts_a_task_for_every_event(stage: Stage) -> bool:
    socket = await stage.websocket()
    before = len(asyncio.all_tasks())
    for number in range(200):
        await socket.send(f'42["note",{number},2]')
    for _ in range(40):
        await asyncio.sleep(0.025)
        if len(asyncio.all_tasks()) - before >= 100:
            return True
    return False


async def starts_a_task_for_every_recipient(stage: Stage) -> bool:
    for _ in range(10):
        await stage.websocket()
    loop = asyncio.get_running_loop()
    made: list[Any] = []

    def factory(loop: Any, coroutine: Any, **more: Any) -> Any:
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **more)

    loop.set_task_factory(factory)
    try:
        await stage.sio.emit("fact", 1)
    finally:
        loop.set_task_factory(None)
    return len(made) >= 10


async def reorders_events(stage: Stage) -> bool:
    socket = await stage.websocket()
    for number in range(4):
        await socket.send(f'42["note",{number},{0.1 - number / 40}]')
    assert await stage.noted(4)
    return stage.notes != [0, 1, 2, 3]


async def leaves_a_zombie_behind_a_disconnect(stage: Stage) -> bool:
    socket = await stage.websocket()
    (eio_sid,) = stage.sockets()
    await stage.sio.eio.disconnect(eio_sid)
    try:
        async with asyncio.timeout(0.5):
            await socket.closes()
    except (TimeoutError, AssertionError):
        return True
    return False


async def stops_a_stock_client_from_coming_back(stage: Stage) -> bool:
    """Ask npm's rule: it comes back by itself unless the namespace was said goodbye to."""
    client = socketio.AsyncClient(
        reconnection_delay=0.05, reconnection_delay_max=0.1, http_session=stage.endpoint.http
    )
    await client.connect(stage.endpoint.url.removesuffix("socket.io/"), transports=["websocket"])
    (eio_sid,) = stage.sockets()
    await stage.sio.eio.disconnect(eio_sid)
    try:
        for _ in range(60):
            if len(stage.connects) > 1:
                return False
            await asyncio.sleep(0.01)
        return True
    finally:
        await client.shutdown()


async def negotiates_compression(stage: Stage) -> bool:
    url = f"{stage.endpoint.url}?EIO=4&transport=websocket"
    async with stage.endpoint.http.ws_connect(url, compress=15) as socket:
        return bool(socket.compress)


async def sends_facts_before_the_connect_is_answered(stage: Stage) -> bool:
    async def greet() -> None:
        await stage.sio.emit("hello", to=stage.connects[-1])

    stage.on_connect = greet
    socket = await stage.endpoint.opened()
    await socket.send("40")
    return not (await socket.text()).startswith("40{")


async def says_in_its_own_words_that_a_namespace_is_unknown(stage: Stage) -> bool:
    socket = await stage.endpoint.opened()
    await socket.send("40/nobody")
    return await socket.text() != '44/nobody,{"message":"Invalid namespace"}'


async def forgets_the_connect_timeout(stage: Stage) -> bool:
    socket = await stage.endpoint.opened()
    try:
        async with asyncio.timeout(1.5):
            await socket.closes()
    except TimeoutError:
        return True
    return False


# The probe, and whether the pinned stock versions have the fault.
FAULTS: list[tuple[Callable[[Stage], Awaitable[bool]], bool]] = [
    (loses_segments, True),
    (loses_what_exceeds_16_packets, True),
    (freezes_an_upgrade_without_a_probe, True),
    (hangs_on_an_oversize_post, True),
    (runs_events_before_the_connect_is_accepted, False),  # 5.16 had it
    (shows_broadcasts_before_the_connect_is_accepted, True),
    (lets_in_when_the_connect_handler_fails, True),
    (runs_a_failing_connect_handler_twice, True),
    (takes_a_forged_disconnect, True),
    (takes_a_forged_connect, True),
    (breaks_by_ack_zero, True),
    (leaks_callbacks_that_are_never_answered, True),
    (leaves_an_unknown_event_without_an_ack, True),
    (leaves_a_failing_event_without_an_ack, True),
    (keeps_whatever_a_stalled_reader_leaves, True),
    (accumulates_attachments, True),
    (is_wedged_by_a_bad_placeholder, True),
    (starts_a_task_for_every_event, True),
    (starts_a_task_for_every_recipient, True),
    (reorders_events, True),
    (leaves_a_zombie_behind_a_disconnect, True),
    (stops_a_stock_client_from_coming_back, True),
    (negotiates_compression, True),
    (sends_facts_before_the_connect_is_answered, True),
    (says_in_its_own_words_that_a_namespace_is_unknown, True),
    (forgets_the_connect_timeout, True),
]


def stock() -> socketio.AsyncServer:
    return socketio.AsyncServer(
        async_mode="aiohttp", ping_interval=5, ping_timeout=5, max_http_buffer_size=LIMIT
    )


def ours() -> socketio.AsyncServer:
    return create_server(
        ping_interval=5, ping_timeout=5, max_http_buffer_size=LIMIT, connect_timeout=1
    )


async def shows(probe: Callable[[Stage], Awaitable[bool]], sio: socketio.AsyncServer) -> bool:
    async with served(sio) as endpoint:
        stage = Stage(sio, endpoint)
        stage.prepare()
        return await probe(stage)


@pytest.mark.parametrize(("probe", "has_it"), FAULTS, ids=[each.__name__ for each, _ in FAULTS])
async def test_the_stock_library_today(
    probe: Callable[[Stage], Awaitable[bool]], has_it: bool
) -> None:
    assert await shows(probe, stock()) is has_it


@pytest.mark.parametrize("probe", [each for each, _ in FAULTS], ids=lambda each: each.__name__)
async def test_this_engine(probe: Callable[[Stage], Awaitable[bool]]) -> None:
    assert await shows(probe, ours()) is False
