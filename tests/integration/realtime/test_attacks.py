"""The list of attacks on the protocol, C1 to C21: what each is answered with, and who lives on.

The engine stands behind its real door here; only who a token belongs to is taken on trust.
"""

import asyncio
import dataclasses
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import http_parser

from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal, Scope
from chatserver.kernel.wire import Answer, Request
from chatserver.realtime import driver, engine_socket, lanes
from chatserver.realtime.ports import Accepted, Handshake
from chatserver.transport.credentials import check_origin
from chatserver.transport.registry import USER, Registry, command
from chatserver.transport.sockets import SocketDoor
from tests.support.raw import PATH, polling, websocket
from tests.support.realtime import Node, Person, Truth, UnknownPersonError, node, principal, until
from tests.support.servers import TestValkey

ALLOWED = "https://app.example.com"


class Said(Request):
    alive: bool | None = None
    text: str | None = None
    number: float | None = None
    n: int | None = None
    s: float = 0


class Heard(Answer):
    alive: bool | None = None


class Echo:
    def __init__(self) -> None:
        self.ran: list[Any] = []

    @command("echo", Said, Heard, callers=USER)
    async def echo(self, principal: Principal, said: Said) -> Heard:
        """Say it again."""
        self.ran.append(said)
        await asyncio.sleep(said.s)
        return Heard(alive=said.alive)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def at(truth: Truth, valkey: TestValkey, echo: Echo) -> AsyncIterator[Node]:
    registry = Registry()
    registry.add(echo, namespaces=("/chat",))

    async def authenticate(
        handshake: Handshake, token: object, _: str | None, __: str | None
    ) -> Accepted:
        if not token or not isinstance(token, str):
            raise UnknownPersonError
        origins = (ALLOWED,) if token.startswith("browser") else ()
        found = dataclasses.replace(principal(token), scopes=frozenset(Scope), origins=origins)
        check_origin(found, handshake.origin)
        return Accepted(principal=found)

    door = SocketDoor(
        registry=registry,
        authenticate=authenticate,
        foreign=UnknownPersonError,
        expired=UnknownPersonError,
        limits=lambda _: {},
        features={},
        scopes=dict.fromkeys(("/rooms", "/chat", "/notifications"), next(iter(Scope))),
    )
    async with node(truth, valkey.url, first_namespace_s=1.0) as started:
        started.realtime.server._door = started.realtime.entrance._door = door
        yield started
        async with websocket(started) as peer:
            await peer.connect("survivor")
            assert await peer.is_alive(), "the server is not what it was"


async def is_cut(at: Node, *frames: str | bytes) -> bool:
    """Send frames in a connected namespace; whether that ends the connection, and no other."""
    async with websocket(at) as bystander, websocket(at) as peer:
        await bystander.connect("ben")
        await peer.connect("ann")
        for frame in frames:
            await peer.send(frame)
        told = await peer.closing()
        assert told is not None
        assert (told["code"], told["reconnect"]) == ("payload.invalid", "backoff")
        return await bystander.is_alive()


def event(data: str) -> str:
    return f'42/chat,7["echo",{data}]'


CUT: dict[str, list[str | bytes]] = {
    "C1 deep JSON": [event("[" * 60_000 + "]" * 60_000)],
    "C2 no list": ["42/chat,7{}"],
    "C2 empty": ["42/chat,7[]"],
    "C2 no name": ["42/chat,7[1,{}]"],
    "C2 a list for a name": ['42/chat,7[["echo"],{}]'],
    "C2 reserved connect": ['42/chat,7["connect",{}]'],
    "C2 reserved disconnect": ['42/chat,7["disconnect",{}]'],
    "C4 an integer of 5,000 digits": [event('{"n":%s}' % ("9" * 5000))],
    "C5 attachments without end": ['459999999999-/chat,7["echo",{}]'],
    "C5 too many attachments": ['4511-/chat,7["echo",{}]'],
    "C6 placeholder out of range": ['451-/chat,7["echo",{"_placeholder":true,"num":5}]', b"x"],
    "C6 placeholder text": ['451-/chat,7["echo",{"_placeholder":true,"num":"a"}]', b"x"],
    "C6 placeholder true": ['451-/chat,7["echo",{"_placeholder":true,"num":true}]', b"x"],
    "C6 placeholder negative": ['451-/chat,7["echo",{"_placeholder":true,"num":-1}]', b"x"],
    "C7 text among attachments": [
        '451-/chat,7["echo",{"_placeholder":true,"num":0}]',
        event('{"alive":true}'),
    ],
    "C8 engine packet 9": ["9"],
    "C8 empty": [""],
    "C8 OPEN": ['0{"sid":"x"}'],
    "C8 NOOP": ["6"],
    "C8 PING": ["2"],
    "C8 stray bytes": [b"\x00\x01"],
}


@pytest.mark.parametrize("name", CUT)
async def test_structural_abuse_is_cut(at: Node, echo: Echo, name: str) -> None:
    assert await is_cut(at, *CUT[name])
    assert all(said.alive for said in echo.ran)


ANSWERED = {
    "C3 NUL": '{"text":"\\u0000"}',
    "C3 a lone surrogate": '{"text":"\\ud83d"}',
    "C3 NaN": '{"number":NaN}',
    "C3 Infinity": '{"number":-Infinity}',
    "C3 beyond a double": '{"number":1e999}',
    "C4 beyond 2^53": '{"n":9007199254740993}',
    "C4 99 digits": '{"n":%s}' % ("9" * 99),
}


@pytest.mark.parametrize("name", ANSWERED)
async def test_what_a_person_can_type_is_answered_in_words(at: Node, echo: Echo, name: str) -> None:
    async with websocket(at) as peer:
        await peer.connect()
        answer = await peer.ask(event(ANSWERED[name]))
        assert (answer["ok"], answer["error"]["code"]) == (False, "payload.invalid")
        assert echo.ran == []
        assert await peer.is_alive()


async def test_c9_two_thousand_events_at_once_are_bounded_and_nobody_is_cut(
    at: Node, echo: Echo
) -> None:
    async with websocket(at) as peer:
        await peer.connect()
        before = len(asyncio.all_tasks())
        await peer.send('42/chat,1["echo",{"s":0.5}]')
        for _ in range(1999):
            await peer.send('42/chat,1["echo",{}]')
        await asyncio.sleep(0.1)
        assert len(asyncio.all_tasks()) - before < 10
        answers = [json.loads((await peer.receive()).partition("[")[2][:-1]) for _ in range(2000)]
        codes = [answer["error"]["code"] for answer in answers if not answer["ok"]]
        assert codes == ["rate.limited"] * (2000 - lanes.MAX_PENDING)
        assert len(echo.ran) == lanes.MAX_PENDING
        assert await peer.is_alive()


async def test_c10_pongs_without_reading_are_cut(at: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_socket, "FRAMES", 1000)
    async with websocket(at) as peer:
        await peer.connect()
        (session,) = at.realtime.server.sessions.values()

        async def flood() -> None:
            for _ in range(engine_socket.FRAMES + 10):
                await peer.send("3")

        flooding = asyncio.create_task(flood())
        await until(lambda: session.ended, 10)
        flooding.cancel()


async def test_c11_a_frame_beyond_the_limit_closes_with_its_code(at: Node) -> None:
    async with websocket(at) as peer:
        await peer.connect()
        await peer.send("4" + "x" * 256 * 1024)
        while await peer.receive():
            pass
        assert peer.socket.close_code == 1009


@pytest.mark.parametrize("fragment", [1, 1000])
async def test_c11_an_endless_message_in_fragments_is_ended(at: Node, fragment: int) -> None:
    reader, writer = await _websocket_by_hand(at)
    first, more = bytes([0x01]), bytes([0x00])
    size = bytes([0x80 | fragment]) if fragment < 126 else b"\xfe" + fragment.to_bytes(2, "big")
    writer.write(first + size + b"\0\0\0\0" + b"4" * fragment)
    frame = more + size + b"\0\0\0\0" + b"x" * fragment
    try:
        for _ in range(300_000 // fragment // 100 + 1):
            writer.write(frame * 100)
            await writer.drain()
    except ConnectionError:
        pass
    await until(lambda: at.realtime.server.sessions == {})
    writer.transport.abort()
    assert reader is not None


async def test_c12_compression_is_not_offered(at: Node) -> None:
    url = f"{at.url}{PATH}&transport=websocket"
    async with aiohttp.ClientSession() as http, http.ws_connect(url, compress=15) as socket:
        assert socket.compress == 0


async def test_c13_c14_acks_that_nobody_asked_for_are_counted_and_nothing_else(at: Node) -> None:
    async with websocket(at) as peer:
        await peer.connect()
        for packet in ("43/chat,0[]", "43/chat,99[1]", "43/chat,[]", "43/chat,7{}"):
            await peer.send(packet)
        assert await peer.is_alive()
        assert at.realtime.server.forged_acks == 4
    with pytest.raises(RuntimeError):
        await at.realtime.server.call("ask", to="anyone")


@pytest.mark.parametrize("namespace", ["/admin", "/", "/chat2", "/" + "x" * 200])
async def test_c15_an_unknown_namespace_is_refused(at: Node, namespace: str) -> None:
    async with websocket(at) as peer:
        where = "" if namespace == "/" else f"{namespace},"
        await peer.send(f"40{where}" + '{"token":"ann"}')
        answer = await peer.receive()
        assert answer.startswith(f"44{where}")
        assert json.loads(answer[2 + len(where) :])["data"]["code"] == "namespace.unknown"
        await peer.connect()
        assert await peer.is_alive()


@pytest.mark.parametrize(
    "query",
    [
        "EIO=3&transport=polling",
        "EIO=4&transport=polling&j=0",
        "EIO=4&transport=polling&sid=nobody",
        "EIO=4&transport=polling&sid=dead.AAAAAAAAAAAAAAAA",
        "EIO=4&transport=webtransport",
    ],
)
async def test_c16_bad_requests_are_refused(at: Node, query: str) -> None:
    async with at.http.get(f"{at.url}/socket.io/?{query}") as response:
        assert response.status == 400
        assert (await response.json()).keys() == {"code", "message"}


@pytest.mark.parametrize("method", ["get", "post"])
async def test_c16_overlapping_requests_end_the_session(at: Node, method: str) -> None:
    async with polling(at) as peer:
        await peer.connect()

        async def slow() -> AsyncIterator[bytes]:
            yield b"4"
            await asyncio.sleep(0.3)
            yield b'2/chat,["echo",{}]'

        if method == "get":
            first: asyncio.Task[Any] = asyncio.create_task(peer.get())
        else:
            first = asyncio.create_task(peer.post(slow()))
        await asyncio.sleep(0.1)
        second = (await peer.get())[0] if method == "get" else await peer.post("3")
        assert second == 400
        await first
        await until(lambda: len(at.realtime.server.sessions) == 0, 3)


@pytest.mark.parametrize(
    ("token", "origin", "is_let_in"),
    [
        ("browser", ALLOWED, True),
        ("browser", "https://evil.example", False),
        ("browser", "null", False),
        ("browser", ALLOWED + ".evil.example", False),
        ("browser", ALLOWED + ":8443", False),
        ("server", "https://evil.example", True),
    ],
)
async def test_c17_a_browser_key_is_held_to_its_origins(
    at: Node, token: str, origin: str, is_let_in: bool
) -> None:
    url = f"{at.url}{PATH}&transport=websocket"
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(url, headers={"Origin": origin, "X-Forwarded-Host": origin}) as socket,
    ):
        await socket.receive()
        await socket.send_str(f'40/chat,{{"token":"{token}"}}')
        answer = (await socket.receive()).data
        assert answer.startswith("40/chat," if is_let_in else "44/chat,")


async def test_c18_a_cookie_is_nobodys_credential(at: Node) -> None:
    url = f"{at.url}{PATH}&transport=websocket"
    async with (
        aiohttp.ClientSession(cookies={"token": "ann", "io": "x"}) as http,
        http.ws_connect(url) as socket,
    ):
        opening = await socket.receive()
        assert "Set-Cookie" not in socket._response.headers
        await socket.send_str("40/chat,{}")
        assert (await socket.receive()).data.startswith("44/chat,")
        assert opening.data.startswith("0")


async def test_c19_idle_sockets_that_are_nobodys_do_not_stay(at: Node) -> None:
    url = f"{at.url}{PATH}&transport=websocket"
    async with aiohttp.ClientSession() as http:
        idle = [await http.ws_connect(url) for _ in range(50)]
        assert len(at.realtime.server.sessions) == 50
        await until(lambda: at.realtime.server.sessions == {}, 4)
        for socket in idle:
            await socket.close()


async def test_c20_a_slow_body_is_not_waited_for(at: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "BODY_S", 0.2)
    async with polling(at) as peer:
        await peer.connect()

        async def drip() -> AsyncIterator[bytes]:
            for _ in range(50):
                yield b"4"
                await asyncio.sleep(0.05)

        assert await peer.post(drip()) == 408


async def test_c20_endless_headers_are_refused(at: Node) -> None:
    async with at.http.get(f"{at.url}{PATH}&transport=polling", headers={"X": "y" * 9000}) as bad:
        assert bad.status == 400


async def test_c20_a_thousand_pipelined_requests_are_taken_one_by_one(at: Node) -> None:
    host, port = _address(at)
    reader, writer = await asyncio.open_connection(host, port)
    request = f"GET {PATH}&transport=polling&sid=nobody HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    writer.write(request * 1000)
    found = b""
    async with asyncio.timeout(10):
        while found.count(b"Session ID unknown") < 1000:
            found += await reader.read(1 << 16)
    writer.close()


SMUGGLED = {
    "two lengths": "Content-Length: 1\r\nContent-Length: 5\r\n\r\n3GET ",
    "length and chunks": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": "Content-Length : 1\r\n\r\n3",
    "chunks beneath another name": "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a bare CR in a header": "X: a\rb\r\nContent-Length: 1\r\n\r\n3",
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_c21_smuggled_requests_are_refused(at: Node, name: str) -> None:
    async with polling(at) as peer:
        path = re.sub(r"^http://[^/]+", "", peer.url)
        host, port = _address(at)
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\n{SMUGGLED[name]}".encode())
        async with asyncio.timeout(5):
            answer = await reader.read(1 << 12)
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
        writer.close()


def test_c21_requests_are_parsed_by_the_c_parser() -> None:
    assert http_parser.HttpRequestParser.__module__ == "aiohttp._http_parser"


async def test_c21_the_engine_refuses_to_start_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "HttpRequestParser", http_parser.HttpRequestParserPy)
    with pytest.raises(RuntimeError):
        driver.require_c_parser()


async def test_a_member_sees_everything_while_others_attack(at: Node, truth: Truth) -> None:
    room = uuid7()
    truth.join(room, "good")
    good = await Person("good").connect(at)
    for frames in CUT.values():
        async with websocket(at) as peer:
            await peer.connect("bad")
            for frame in frames:
                await peer.send(frame)
            at.realtime.publish([truth.commit(room)])
            await peer.closing()
    await until(lambda: good.seqs(room) == list(range(2, len(CUT) + 2)))
    await good.leave()


def _address(at: Node) -> tuple[str, int]:
    host, port = at.url.removeprefix("http://").split(":")
    return host, int(port)


async def _websocket_by_hand(at: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*_address(at))
    writer.write(
        f"GET {PATH}&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    await until(lambda: len(at.realtime.server.sessions) == 1)
    return reader, writer
