"""The bare engine has python-socketio's interface: handlers, rooms, acks, classes, as usual."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import socketio
from aiohttp import web

from chatserver.realtime import create_server
from chatserver.realtime.bare import BareServer
from chatserver.realtime.outbox import Outbox, Writer
from chatserver.realtime.packets import CONNECT, control_packet
from tests.support.bare import Endpoint, echo_server, served
from tests.support.javascript import JavaScript
from tests.support.realtime import until


class Stage:
    def __init__(self, sio: BareServer, endpoint: Endpoint) -> None:
        self.sio = sio
        self.endpoint = endpoint
        self.clients: list[socketio.AsyncClient] = []

    async def client(self, **more: Any) -> socketio.AsyncClient:
        client = socketio.AsyncClient(reconnection=False, http_session=self.endpoint.http)
        self.clients.append(client)
        url = self.endpoint.url.removesuffix("socket.io/")
        await client.connect(url, **{"transports": ["websocket"], **more})
        return client


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    sio = create_server(namespaces=["/", "/custom"])
    async with served(sio) as endpoint:
        made = Stage(sio, endpoint)
        yield made
        for client in made.clients:
            await client.disconnect()
        for socket in endpoint.sockets:
            await socket.socket.close()
        await until(lambda: sio.links == {} and sio.manager.rooms == {} and sio.environ == {})


async def test_rooms_are_entered_left_and_emitted_to(stage: Stage) -> None:
    sio = stage.sio
    heard: dict[str, list[Any]] = {}
    sids: list[str] = []
    for name in ("ann", "ben", "cas"):
        client = await stage.client()
        heard[name] = []
        client.on("fact", heard[name].append)
        sids.append(client.get_sid("/"))
    ann, ben, cas = sids
    for sid in (ann, ben):
        await sio.enter_room(sid, "room")
    assert set(sio.rooms(ann)) == {ann, "room"}
    await sio.emit("fact", 1, room="room")
    await sio.emit("fact", 2, room="room", skip_sid=ann)
    await sio.emit("fact", 3, to=cas)
    await sio.emit("fact", 4, room=["room", cas])
    await sio.leave_room(ben, "room")
    await sio.emit("fact", 5, room="room")
    await sio.close_room("room")
    await sio.emit("fact", 6, room="room")
    await sio.emit("fact", 7)
    await until(lambda: all(each[-1:] == [7] for each in heard.values()))
    assert heard == {"ann": [1, 4, 5, 7], "ben": [1, 2, 4, 7], "cas": [3, 4, 7]}
    with pytest.raises(ValueError, match="sid room"):
        await sio.enter_room(ann, ben)


async def test_a_handler_may_call_its_own_client(stage: Stage) -> None:
    async def ask(sid: str, number: int) -> Any:
        return await stage.sio.call("question", number, to=sid, timeout=2)

    stage.sio.on("ask", ask)
    client = await stage.client()
    client.on("question", lambda number: (number * 2, b"bytes"))
    assert await client.call("ask", 21) == (42, b"bytes")


async def test_callbacks_are_run_and_a_call_that_is_not_answered_ends(stage: Stage) -> None:
    client = await stage.client()
    client.on("question", lambda: "answer")

    async def nothing() -> None:
        await asyncio.sleep(0.2)

    client.on("nothing", nothing)
    got: list[Any] = []

    async def note(*args: Any) -> None:
        got.append(args)

    await stage.sio.emit("question", to=client.get_sid("/"), callback=note)
    await until(lambda: got == [("answer",)])
    with pytest.raises(socketio.exceptions.TimeoutError):
        await stage.sio.call("nothing", to=client.get_sid("/"), timeout=0.05)
    with pytest.raises(socketio.exceptions.TimeoutError):
        await stage.sio.call("question", to="nobody")


async def test_class_namespaces_and_catch_alls_work_as_usual(stage: Stage) -> None:
    class Custom(socketio.AsyncNamespace):  # type: ignore[misc]
        seen: list[Any] = []  # noqa: RUF012

        async def on_connect(self, sid: str, environ: dict[str, Any]) -> None:
            self.seen.append(environ["PATH_INFO"])

        def on_disconnect(self, sid: str) -> None:
            self.seen.append("gone")

        async def on_say(self, sid: str, what: str) -> str:
            await self.emit("said", what, room=sid)
            return what.upper()

    stage.sio.register_namespace(Custom("/custom"))
    stage.sio.on("*", lambda event, sid, *args: [event, *args])
    client = await stage.client(namespaces=["/", "/custom"])
    said: list[Any] = []
    client.on("said", said.append, namespace="/custom")
    assert await client.call("say", "hi", namespace="/custom") == "HI"
    await until(lambda: said == ["hi"])
    unknown = await client.call("nobody", namespace="/custom")
    assert unknown["error"]["code"] == "event.unknown"
    assert await client.call("anything", 1) == ["anything", 1]
    assert await client.call("*", 1) == ["*", 1]
    await client.disconnect()
    await until(lambda: Custom.seen == ["/socket.io/", "gone"])


async def test_a_refusal_says_why(stage: Stage) -> None:
    @stage.sio.event(namespace="/custom")  # type: ignore[untyped-decorator]
    async def connect(sid: str, environ: Any, auth: Any) -> None:
        raise socketio.exceptions.ConnectionRefusedError("no key", {"code": "auth.invalid"})

    socket = await stage.endpoint.opened()
    await socket.send("40/custom,{}")
    assert await socket.text() == '44/custom,{"message":"no key","data":{"code":"auth.invalid"}}'
    await stage.sio.emit("secret", namespace="/custom")
    await socket.send("40")
    assert (await socket.text()).startswith("40{")
    assert stage.sio.manager.rooms.keys() == {"/"}


async def test_sessions_and_environ_last_until_the_disconnect_handler_has_run(
    stage: Stage,
) -> None:
    sio = stage.sio
    told: list[Any] = []

    @sio.event  # type: ignore[untyped-decorator]
    async def connect(sid: str, environ: Any, auth: Any) -> None:
        await sio.save_session(sid, {"name": auth["name"]})
        await sio.enter_room(sid, "room")

    @sio.event  # type: ignore[untyped-decorator]
    async def disconnect(sid: str, reason: str) -> None:
        async with sio.session(sid) as session:
            told.append((session["name"], set(sio.rooms(sid)) - {sid}, reason))
        assert sio.get_environ(sid)["REMOTE_ADDR"] == "127.0.0.1"

    # By WebSocket, python-socketio's client leaves before it has said goodbye.
    client = await stage.client(auth={"name": "ann"}, transports=["polling"])
    await client.disconnect()
    await until(lambda: told == [("ann", {"room"}, "client disconnect")])
    client = await stage.client(auth={"name": "ben"})
    await sio.disconnect(client.get_sid("/"))
    assert told[1:] == [("ben", {"room"}, "server disconnect")]
    await until(lambda: not client.connected)


async def test_events_of_a_socket_wait_for_each_other_and_not_for_other_namespaces(
    stage: Stage,
) -> None:
    done: list[str] = []

    async def slow(sid: str, name: str, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        done.append(name)

    stage.sio.on("slow", slow)
    stage.sio.on("slow", slow, namespace="/custom")
    client = await stage.client(namespaces=["/", "/custom"])
    await client.emit("slow", ("first", 0.1))
    await client.emit("slow", ("second", 0))
    await client.emit("slow", ("other", 0), namespace="/custom")
    await until(lambda: len(done) == 3)
    assert done == ["other", "first", "second"]


async def test_too_many_events_are_read_later_and_none_is_lost(stage: Stage) -> None:
    done: list[int] = []
    gate = asyncio.Event()

    async def wait(sid: str, number: int) -> None:
        await gate.wait()
        done.append(number)

    stage.sio.on("wait", wait)
    client = await stage.client()
    for number in range(3000):
        await client.emit("wait", number)
    (link,) = stage.sio.links.values()
    await until(lambda: link.lanes.is_full)
    assert link.lanes.pending <= 1025
    gate.set()
    await until(lambda: len(done) == 3000)
    assert done == list(range(3000))


async def test_a_room_of_ten_thousand_blocks_the_loop_for_no_more_than_five_ms(
    stage: Stage,
) -> None:
    sio = stage.sio
    writer = Writer()
    written = 0

    class Nowhere:
        sid = "x"

        def __init__(self) -> None:
            self.outbox = Outbox(writer)
            self.outbox.connect(Line())  # type: ignore[arg-type]

    class Line:
        def get_write_buffer_size(self) -> int:
            return 0

        def is_closing(self) -> bool:
            return False

        def write(self, data: bytes) -> None:
            nonlocal written
            written += 1

    welcome = control_packet(CONNECT, "/big")
    for _ in range(10_000):
        sio.manager.add("/big", Nowhere()).accept(welcome)  # type: ignore[arg-type]
    gc.collect()
    gc.disable()  # a collection is nobody's delivery
    longest: list[float] = []
    try:
        for _ in range(3):
            sending = asyncio.create_task(sio.emit("fact", "x", namespace="/big"))
            longest.append(0.0)
            while not sending.done():
                before = time.thread_time()
                await asyncio.sleep(0)
                longest[-1] = max(longest[-1], time.thread_time() - before)
    finally:
        gc.enable()
    sio.manager.rooms.pop("/big")
    assert min(longest) < 0.005
    await until(lambda: written >= 30_000)


@pytest.mark.parametrize(
    ("allowed", "origin", "status"),
    [
        (None, None, 200),
        (None, "self", 200),
        (None, "https://evil.example", 403),
        ([], "self", 403),
        ("*", "https://evil.example", 200),
        (["https://a.example"], "https://a.example", 200),
        (["https://a.example"], "https://a.example.evil", 403),
        (lambda origin: origin.endswith(".a.example"), "https://x.a.example", 200),
    ],
)
async def test_pages_of_other_origins_are_kept_out(
    allowed: Any, origin: str | None, status: int
) -> None:
    async with served(create_server(cors_allowed_origins=allowed)) as endpoint:
        host = endpoint.url.split("/")[2]
        own = f"http://{host}" if origin == "self" else origin
        headers = {"X-Forwarded-Host": "evil.example"} | ({"Origin": own} if own else {})
        url = f"{endpoint.url}?EIO=4&transport=polling"
        async with endpoint.http.get(url, headers=headers) as response:
            assert response.status == status
            if status == 200 and own:
                assert response.headers["Access-Control-Allow-Origin"] == own
            if status == 403:
                assert await response.text() == '{"code":4,"message":"Forbidden"}'
        async with endpoint.http.options(url, headers=headers) as response:
            assert response.status == (204 if status == 200 else 403)


async def test_an_app_that_ends_closes_its_sockets() -> None:
    sio = create_server()
    app = web.Application()
    sio.attach(app)
    runner = web.AppRunner(app, shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    clients = [socketio.AsyncClient(reconnection=False) for _ in range(2)]
    for client, transport in zip(clients, ("websocket", "polling"), strict=True):
        await client.connect(url, transports=[transport])
    started = asyncio.get_running_loop().time()
    await runner.cleanup()
    assert asyncio.get_running_loop().time() - started < 2
    await until(lambda: not any(client.connected for client in clients))
    for client in clients:
        await client.shutdown()


@pytest.mark.js
@pytest.mark.parametrize(
    "options", [{}, {"transports": ["websocket"]}, {"transports": ["polling"]}]
)
async def test_the_reference_client_converses(options: dict[str, Any]) -> None:
    async with served(echo_server(ping_interval=5)) as endpoint, JavaScript() as js:
        device = js.device("ann", endpoint.url.removesuffix("socket.io/"), None, **options)
        await device.open()
        where = {"client": device.label, "namespace": "/"}
        found = await js.do("connect", device.label, namespace="/", auth={"token": "t"})
        assert found["connected"]
        await until(lambda: device.events["/"] == [("auth", {"token": "t"})])
        for number in range(50):
            ack = await js.do(
                "call", device.label, namespace="/", event="message-with-ack",
                args=[{"n": number}], timeout=2000,
            )  # fmt: skip
            assert ack == {"n": number}
        refused = await js.do("connect", device.label, namespace="/random", auth={})
        assert refused["message"] == "Invalid namespace"
        assert where
        await device.close()
