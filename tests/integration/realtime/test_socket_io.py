"""Socket.IO protocol v5, case by case as its specification's own suite has them, over both ways.

The suite's other half, the Engine.IO cases, stands in `test_engine_io` and runs beneath Socket.IO.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.bare import CONNECT_TIMEOUT_S, Endpoint, Poller, Socket, echo_server, served


@pytest.fixture
async def server() -> AsyncIterator[Endpoint]:
    async with served(echo_server(ping_interval=5)) as endpoint:
        yield endpoint


class Peer:
    """The same conversation over either transport."""

    def __init__(self, endpoint: Endpoint, transport: str) -> None:
        self.endpoint = endpoint
        self.transport = transport
        self.poller: Poller
        self.socket: Socket
        self.waiting: list[str | bytes] = []

    async def open(self) -> "Peer":
        if self.transport == "polling":
            self.poller = await self.endpoint.open()
        else:
            self.socket = await self.endpoint.opened()
        return self

    async def connected(self) -> "Peer":
        await self.open()
        await self.send("40")
        await self.said(2)
        return self

    async def send(self, *packets: str | bytes) -> None:
        if self.transport == "polling":
            body = "\x1e".join(
                f"b{_base64(packet)}" if isinstance(packet, bytes) else packet for packet in packets
            )
            self.pushed = await self.poller.push(body)
        else:
            await self.socket.send(*packets)

    async def said(self, count: int) -> list[str | bytes]:
        if self.transport == "websocket":
            return await self.socket.said(count)
        while len(self.waiting) < count:
            status, payload = await self.poller.poll()
            assert status == 200
            self.waiting += [_decoded(each) for each in payload.split("\x1e")]
        found, self.waiting = self.waiting[:count], self.waiting[count:]
        return found

    async def is_cut(self) -> bool:
        if self.transport == "websocket":
            return await self.socket.closes() == 0
        return (await self.poller.poll())[0] == 400

    async def is_alive(self) -> bool:
        await self.send('42["message","alive?"]')
        return await self.said(1) == ['42["message-back","alive?"]']


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(packet: str) -> str | bytes:
    return base64.b64decode(packet[1:]) if packet.startswith("b") else packet


@pytest.fixture(params=["websocket", "polling"])
def peer(request: pytest.FixtureRequest, server: Endpoint) -> Peer:
    return Peer(server, request.param)


class TestConnect:
    @pytest.mark.parametrize("where", ["", "/custom,"], ids=["main", "custom"])
    @pytest.mark.parametrize("auth", ["", '{"token":"123"}'], ids=["without", "with payload"])
    async def test_a_namespace_is_connected(self, peer: Peer, where: str, auth: str) -> None:
        await peer.open()
        await peer.send(f"40{where}{auth}")
        answer, told = await peer.said(2)
        assert isinstance(answer, str)
        assert answer.startswith(f"40{where}")
        handshake = json.loads(answer[2 + len(where) :])
        assert handshake.keys() == {"sid"}
        assert isinstance(handshake["sid"], str)
        assert told == f'42{where}["auth",{auth or "{}"}]'

    @pytest.mark.parametrize("packet", ["40/random", "40/random,", '40/random,{"token":1}'])
    async def test_an_unknown_namespace_is_refused(self, peer: Peer, packet: str) -> None:
        await peer.open()
        await peer.send(packet)
        assert await peer.said(1) == ['44/random,{"message":"Invalid namespace"}']
        await peer.send("40")
        assert str((await peer.said(1))[0]).startswith("40{")

    @pytest.mark.parametrize("packet", ["4abc", "4", "40[1]", '40"text"', "40{", "44{}", "47"])
    async def test_an_invalid_handshake_closes(self, peer: Peer, packet: str) -> None:
        await peer.open()
        await peer.send(packet)
        assert await peer.is_cut()

    async def test_no_handshake_in_time_closes(self, peer: Peer) -> None:
        await peer.open()
        if peer.transport == "polling":
            async with asyncio.timeout(CONNECT_TIMEOUT_S + 1):
                assert (await peer.poller.poll())[0] == 200
        assert await peer.is_cut()

    async def test_a_second_connect_closes(self, peer: Peer) -> None:
        await peer.connected()
        await peer.send("40")
        assert await peer.is_cut()

    @pytest.mark.parametrize("packet", ['42["message",1]', '42/custom,["message",1]', "43[]"])
    async def test_a_packet_for_a_namespace_that_is_not_connected_closes(
        self, peer: Peer, packet: str
    ) -> None:
        await peer.open()
        await peer.send(packet)
        assert await peer.is_cut()


class TestDisconnect:
    async def test_the_main_namespace_is_left_and_the_connection_stays(self, peer: Peer) -> None:
        await peer.connected()
        await peer.send("41")
        await asyncio.sleep(CONNECT_TIMEOUT_S + 0.1)
        await peer.send("40")
        assert str((await peer.said(2))[0]).startswith("40{")

    async def test_a_custom_namespace_is_left_and_the_main_one_stays(self, peer: Peer) -> None:
        await peer.connected()
        await peer.send("40/custom")
        await peer.said(2)
        await peer.send("41/custom", '42["message","message to main namespace"]')
        assert await peer.said(1) == ['42["message-back","message to main namespace"]']


class TestMessages:
    @pytest.mark.parametrize(
        "arguments",
        [
            '1,"2",{"3":[true]}',
            '"été","€","𝄞"',
            r'"\ud83d"',
            "null,[],{}",
            "9007199254740993",
            "-0.5",
        ],
    )
    async def test_text_is_echoed(self, peer: Peer, arguments: str) -> None:
        await peer.connected()
        await peer.send(f'42["message",{arguments}]')
        (answer,) = await peer.said(1)
        assert isinstance(answer, str)
        assert json.loads(answer[2:])[1:] == json.loads(f"[{arguments}]")
        if "3" in arguments:
            assert answer == f'42["message-back",{arguments}]'

    async def test_an_integer_beyond_64_bits_is_a_float_as_in_javascript(self, peer: Peer) -> None:
        await peer.connected()
        await peer.send(f'42["message",{"1" + "0" * 30}]')
        (answer,) = await peer.said(1)
        assert json.loads(str(answer)[2:]) == ["message-back", 1e30]

    async def test_attachments_are_echoed(self, peer: Peer) -> None:
        await peer.connected()
        places = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}'
        await peer.send(f'452-["message",{places}]', bytes([1, 2, 3]), bytes([4, 5, 6]))
        assert await peer.said(3) == [
            f'452-["message-back",{places}]',
            bytes([1, 2, 3]),
            bytes([4, 5, 6]),
        ]

    async def test_an_ack_is_sent(self, peer: Peer) -> None:
        await peer.connected()
        await peer.send('42456["message-with-ack",1,"2",{"3":[false]}]')
        assert await peer.said(1) == ['43456[1,"2",{"3":[false]}]']

    async def test_an_ack_zero_is_sent(self, peer: Peer) -> None:
        await peer.connected()
        await peer.send('420["message-with-ack"]')
        assert await peer.said(1) == ["430[]"]

    async def test_an_ack_with_attachments_is_sent(self, peer: Peer) -> None:
        await peer.connected()
        places = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}'
        await peer.send(f'452-789["message-with-ack",{places}]', bytes([1, 2, 3]), bytes([4, 5]))
        assert await peer.said(3) == [f"462-789[{places}]", bytes([1, 2, 3]), bytes([4, 5])]

    async def test_placeholders_deep_inside_are_filled(self, peer: Peer) -> None:
        await peer.connected()
        await peer.send('451-["message",{"a":[{"b":{"_placeholder":true,"num":0}}]}]', b"x")
        assert await peer.said(2) == [
            '451-["message-back",{"a":[{"b":{"_placeholder":true,"num":0}}]}]',
            b"x",
        ]

    @pytest.mark.parametrize(
        "packets",
        [
            ["4abc"],
            ["42{}"],
            ['42abc["message-with-ack",1,"2",{"3":[false]}]'],
            ["42"],
            ["42[]"],
            ["42[{}]"],
            ['42["connect"]'],
            ['42["disconnect","x"]'],
            ['42["message",NaN]'],
            ['42["message"'],
            ["43{}"],
            ["43/custom,1[]"],
            ["41{}"],
            ["44{}"],
            ['4511-["message"]'],
            ['459999999999-["message"]'],
            ['45["message"]'],
            ['451-["message",{"_placeholder":true,"num":1}]', b"x"],
            ['451-["message",{"_placeholder":true,"num":-1}]', b"x"],
            ['451-["message",{"_placeholder":true,"num":"0"}]', b"x"],
            ['451-["message",{"_placeholder":true,"num":0}]', '42["message"]'],
            [b"stray"],
        ],
    )
    async def test_an_invalid_packet_closes(self, peer: Peer, packets: list[Any]) -> None:
        await peer.connected()
        await peer.send(*packets)
        assert await peer.is_cut()

    async def test_acks_that_nobody_asked_for_do_nothing(self, peer: Peer) -> None:
        await peer.connected()
        await peer.send("430[]", "4399[1]", "43[]", '461-7[{"_placeholder":true,"num":0}]', b"x")
        assert await peer.is_alive()
