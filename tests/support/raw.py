"""A peer that speaks Engine.IO by hand, as badly as a test wants."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.support.realtime import Node

PATH = "/socket.io/?EIO=4"


class RawSocket:
    """A WebSocket; packets are written and read as text."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            await self.socket.send_bytes(frame)
        else:
            await self.socket.send_str(frame)

    async def receive(self, within_s: float = 5) -> str:
        """Give the next packet; "" when the server has closed."""
        async with asyncio.timeout(within_s):
            message = await self.socket.receive()
        return message.data if message.type is aiohttp.WSMsgType.TEXT else ""

    async def connect(self, token: str = "ann", namespace: str = "/chat") -> str:
        """Connect a namespace and give the answer to it."""
        await self.send(f'40{namespace},{{"token":"{token}"}}')
        answer = await self.receive()
        if answer.startswith("40"):
            ready = await self.receive()
            assert ready.startswith(f'42{namespace},["session.ready",'), ready
        return answer

    async def ask(self, packet: str) -> dict[str, Any]:
        """Send an event with ack id 7 and give its one-member ack."""
        await self.send(packet)
        return acked(await self.receive())

    async def is_alive(self) -> bool:
        try:
            await self.send('42/chat,7["echo",{"alive":true}]')
            return acked(await self.receive()) == {"ok": True, "data": {"alive": True}}
        except (OSError, AssertionError):
            return False

    async def closing(self) -> dict[str, Any] | None:
        """Read to the end; the data of `session.closing`, if it came."""
        found = None
        while packet := await self.receive():
            if packet.startswith('42/chat,["session.closing",'):
                found = json.loads(packet[packet.index(",") + 1 :])[1]["data"]
        return found


def acked(packet: str) -> dict[str, Any]:
    assert packet.startswith("43/chat,7["), packet
    (answer,) = json.loads(packet[packet.index("[") :])
    assert isinstance(answer, dict)
    return answer


@asynccontextmanager
async def websocket(at: Node, query: str = "") -> AsyncIterator[RawSocket]:
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{at.url}{PATH}&transport=websocket{query}", max_msg_size=0) as socket,
    ):
        raw = RawSocket(socket)
        if not query:
            assert (await raw.receive()).startswith("0{")
        yield raw


class Polling:
    """The other transport."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = f"{url}{PATH}&transport=polling"

    async def open(self) -> dict[str, Any]:
        async with self.http.get(self.url) as response:
            assert response.status == 200
            opening: dict[str, Any] = json.loads((await response.text())[1:])
        self.url += f"&sid={opening['sid']}"
        return opening

    async def get(self) -> tuple[int, list[str]]:
        async with self.http.get(self.url) as response:
            return response.status, (await response.text()).split("\x1e")

    async def post(self, body: Any, **options: Any) -> int:
        async with self.http.post(self.url, data=body, **options) as response:
            await response.read()
            return response.status

    async def connect(self, token: str = "ann") -> None:
        assert await self.post(f'40/chat,{{"token":"{token}"}}') == 200
        got: list[str] = []
        while not any("session.ready" in packet for packet in got):
            got += (await self.get())[1]


@asynccontextmanager
async def polling(at: Node) -> AsyncIterator[Polling]:
    async with aiohttp.ClientSession() as http:
        peer = Polling(http, at.url)
        await peer.open()
        yield peer
