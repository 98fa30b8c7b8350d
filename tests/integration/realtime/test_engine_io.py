"""Engine.IO protocol v4, case by case as its specification's own suite has them."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.support.bare import (
    MAX_PAYLOAD,
    PING_INTERVAL_S,
    PING_TIMEOUT_S,
    Endpoint,
    echo_server,
    served,
)

UNKNOWN_TRANSPORT = '{"code":0,"message":"Transport unknown"}'
UNKNOWN_SESSION = '{"code":1,"message":"Session ID unknown"}'
BAD_METHOD = '{"code":2,"message":"Bad handshake method"}'
BAD_REQUEST = '{"code":3,"message":"Bad request"}'
BAD_VERSION = '{"code":5,"message":"Unsupported protocol version"}'


@pytest.fixture(params=[True, False], ids=["engine alone", "beneath Socket.IO"])
def is_alone(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def any_engine(is_alone: bool) -> AsyncIterator[Endpoint]:
    """Serve the engine both ways: what doesn't need an echo must hold for either."""
    async with served(echo_server(), engine=is_alone) as endpoint:
        yield endpoint


@pytest.fixture
async def engine() -> AsyncIterator[Endpoint]:
    async with served(echo_server(), engine=True) as endpoint:
        yield endpoint


def check_opening(packet: str, upgrades: list[str]) -> None:
    assert packet.startswith("0")
    opening = json.loads(packet[1:])
    assert isinstance(opening.pop("sid"), str)
    assert opening == {
        "upgrades": upgrades,
        "pingInterval": PING_INTERVAL_S * 1000,
        "pingTimeout": PING_TIMEOUT_S * 1000,
        "maxPayload": MAX_PAYLOAD,
    }


class TestHandshake:
    async def test_polling_opens_a_session(self, any_engine: Endpoint) -> None:
        status, opening = await any_engine.ask("EIO=4&transport=polling")
        assert status == 200
        check_opening(opening, ["websocket"])

    async def test_websocket_opens_a_session(self, any_engine: Endpoint) -> None:
        socket = await any_engine.socket()
        check_opening(await socket.text(), [])

    @pytest.mark.parametrize("eio", ["", "EIO=abc&", "EIO=3&", "EIO=4&EIO=4&"])
    async def test_polling_fails_with_an_invalid_version(
        self, any_engine: Endpoint, eio: str
    ) -> None:
        assert await any_engine.ask(f"{eio}transport=polling") == (400, BAD_VERSION)

    @pytest.mark.parametrize("transport", ["", "&transport=abc"])
    async def test_polling_fails_with_an_invalid_transport(
        self, any_engine: Endpoint, transport: str
    ) -> None:
        assert await any_engine.ask(f"EIO=4{transport}") == (400, UNKNOWN_TRANSPORT)

    @pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
    async def test_polling_fails_with_an_invalid_method(
        self, any_engine: Endpoint, method: str
    ) -> None:
        assert await any_engine.ask("EIO=4&transport=polling", method) == (400, BAD_METHOD)

    @pytest.mark.parametrize(
        "query",
        ["transport=websocket", "EIO=abc&transport=websocket", "EIO=4", "EIO=4&transport=abc"],
    )
    async def test_websocket_fails_with_an_invalid_version_or_transport(
        self, any_engine: Endpoint, query: str
    ) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await any_engine.socket(query)
        assert refused.value.status == 400

    async def test_websocket_fails_without_an_upgrade(self, any_engine: Endpoint) -> None:
        assert await any_engine.ask("EIO=4&transport=websocket") == (400, BAD_REQUEST)

    @pytest.mark.parametrize("method", ["get", "post"])
    async def test_an_unknown_session_is_refused(self, any_engine: Endpoint, method: str) -> None:
        query = "EIO=4&transport=polling&sid=nobody"
        assert await any_engine.ask(query, method) == (400, UNKNOWN_SESSION)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await any_engine.socket("EIO=4&transport=websocket&sid=nobody")
        assert refused.value.status == 400


class TestMessages:
    @pytest.mark.parametrize(
        "payload",
        ["4hello", "4test1\x1e4test2\x1e4test3", "4hello\x1ebAQIDBA==", "4été €\x1e4"],
        ids=["one", "several", "text and binary", "beyond ASCII and empty"],
    )
    async def test_polling_sends_and_receives_payloads(
        self, engine: Endpoint, payload: str
    ) -> None:
        peer = await engine.open()
        assert await peer.push(payload.encode()) == (200, "ok")
        assert await peer.poll() == (200, payload)

    @pytest.mark.parametrize("body", ["abc", "", "4ok\x1e", "9", "0{}", "6", "b!", b"4\xff"])
    async def test_polling_closes_upon_an_invalid_packet(
        self, any_engine: Endpoint, body: str | bytes
    ) -> None:
        peer = await any_engine.open()
        assert (await peer.push(body))[0] == 400
        assert await peer.poll() == (400, UNKNOWN_SESSION)

    async def test_polling_closes_upon_duplicate_polls(self, any_engine: Endpoint) -> None:
        peer = await any_engine.open()
        first = asyncio.create_task(peer.poll())
        await asyncio.sleep(0.01)
        assert (await peer.poll("&t=burst"))[0] == 400
        assert await first == (200, "1")
        assert await peer.poll() == (400, UNKNOWN_SESSION)

    async def test_polling_closes_upon_a_cancelled_poll(self, any_engine: Endpoint) -> None:
        peer = await any_engine.open()
        poll = asyncio.create_task(peer.poll())
        await asyncio.sleep(0.05)
        poll.cancel()
        await asyncio.sleep(0.05)
        assert await peer.push("3") == (400, UNKNOWN_SESSION)

    async def test_websocket_sends_and_receives_text_and_bytes(self, engine: Endpoint) -> None:
        socket = await engine.opened()
        await socket.send("4hello", bytes([1, 2, 3, 4]), "4" + "ü" * 70_000)
        assert await socket.said(3) == ["4hello", bytes([1, 2, 3, 4]), "4" + "ü" * 70_000]

    @pytest.mark.parametrize("frame", ["abc", "", "9", "0{}", "6", "2", "5"])
    async def test_websocket_closes_upon_an_invalid_packet(
        self, any_engine: Endpoint, frame: str
    ) -> None:
        socket = await any_engine.opened()
        await socket.send(frame)
        assert await socket.closes() == 0


class TestHeartbeat:
    async def test_polling_pings_and_takes_pongs(self, any_engine: Endpoint) -> None:
        peer = await any_engine.open()
        for _ in range(3):
            assert await peer.poll() == (200, "2")
            assert await peer.push("3") == (200, "ok")

    async def test_polling_closes_upon_ping_timeout(self, any_engine: Endpoint) -> None:
        peer = await any_engine.open()
        await asyncio.sleep(PING_INTERVAL_S + PING_TIMEOUT_S)
        assert await peer.poll() == (400, UNKNOWN_SESSION)

    async def test_websocket_pings_and_takes_pongs(self, any_engine: Endpoint) -> None:
        socket = await any_engine.opened()
        for _ in range(3):
            assert await socket.text() == "2"
            await socket.send("3")

    async def test_websocket_closes_upon_ping_timeout(self, any_engine: Endpoint) -> None:
        socket = await any_engine.opened()
        started = asyncio.get_running_loop().time()
        assert await socket.closes() == 0
        assert asyncio.get_running_loop().time() - started < 2 * (PING_INTERVAL_S + PING_TIMEOUT_S)


class TestClosing:
    async def test_polling_is_closed_by_force(self, any_engine: Endpoint) -> None:
        peer = await any_engine.open()
        poll, push = await asyncio.gather(peer.poll(), peer.push("1"))
        assert push == (200, "ok")
        assert poll == (200, "6")
        assert await peer.poll() == (400, UNKNOWN_SESSION)

    async def test_websocket_is_closed_by_force(self, any_engine: Endpoint) -> None:
        socket = await any_engine.opened()
        await socket.send("1")
        assert await socket.closes() == 0

    async def test_nothing_follows_the_close_frame(self, any_engine: Endpoint) -> None:
        host, port = any_engine.url.split("/")[2].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        path = any_engine.url.split(port)[1]
        writer.write(
            f"GET {path}?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        await reader.readuntil(b'"maxPayload":1000000}')
        writer.write(b"\x81\x81\0\0\0\x001")
        assert await reader.readexactly(2) == b"\x88\x00"
        writer.write(b"\x88\x80\0\0\0\0")
        assert await reader.read() == b""
        writer.close()

    @pytest.mark.parametrize("headers", [{}, {"Sec-WebSocket-Key": "short"}])
    async def test_a_websocket_that_is_none_is_refused_and_leaves_nothing(
        self, any_engine: Endpoint, headers: dict[str, str]
    ) -> None:
        peer = await any_engine.open()
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", **headers}
        for query in ("EIO=4&transport=websocket", f"EIO=4&transport=websocket&sid={peer.sid}"):
            assert await any_engine.ask(query, headers=upgrade) == (400, BAD_REQUEST)
        assert await peer.push("3") == (200, "ok")


class TestUpgrade:
    async def test_polling_upgrades_to_websocket(self, engine: Endpoint) -> None:
        peer = await engine.open()
        socket = await peer.upgrade()
        await socket.send("2probe")
        assert await socket.text() == "3probe"
        assert await peer.poll() == (200, "6")
        await socket.send("5", "4hello")
        assert await socket.said(1) == ["4hello"]

    async def test_a_poll_that_waits_is_ended_by_the_probe(self, engine: Endpoint) -> None:
        peer = await engine.open()
        poll = asyncio.create_task(peer.poll())
        await asyncio.sleep(0.02)
        socket = await peer.upgrade()
        await socket.send("2probe")
        assert await poll == (200, "6")

    async def test_requests_with_an_upgraded_session_are_refused(self, engine: Endpoint) -> None:
        peer = await engine.open()
        socket = await peer.upgrade()
        await socket.send("2probe", "5")
        assert await socket.text() == "3probe"
        assert await peer.poll() == (400, BAD_REQUEST)
        assert await peer.push("4x") == (400, BAD_REQUEST)
        await socket.send("4hello")
        assert await socket.said(1) == ["4hello"]

    async def test_a_second_websocket_with_an_upgraded_session_is_closed(
        self, engine: Endpoint
    ) -> None:
        peer = await engine.open()
        socket = await peer.upgrade()
        await socket.send("2probe", "5")
        assert await socket.text() == "3probe"
        assert await (await peer.upgrade()).closes() == 0
        await socket.send("4hello")
        assert await socket.said(1) == ["4hello"]

    async def test_packets_stay_in_order_across_an_upgrade(self, engine: Endpoint) -> None:
        peer = await engine.open()
        seen: list[str] = []
        socket = await peer.upgrade()
        await peer.push("\x1e".join(f"4{number}" for number in range(5)))
        await socket.send("2probe")
        assert await socket.text() == "3probe"
        await peer.push("\x1e".join(f"4{number}" for number in range(5, 10)))
        status, payload = await peer.poll()
        assert status == 200
        seen += [packet for packet in payload.split("\x1e") if packet != "6"]
        await socket.send("5", *(f"4{number}" for number in range(10, 15)))
        said: list[Any] = await socket.said(15 - len(seen))
        assert seen + said == [f"4{number}" for number in range(15)]

    async def test_a_bad_probe_leaves_the_session_as_it_was(self, engine: Endpoint) -> None:
        peer = await engine.open()
        socket = await peer.upgrade()
        await socket.send("2nonsense")
        assert await socket.closes() == 0
        await peer.push("4hello")
        assert await peer.poll() == (200, "4hello")
