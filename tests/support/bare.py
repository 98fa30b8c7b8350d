"""The bare engine on a port of its own, and peers that speak its protocols by hand."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import socketio
from aiohttp import web

from chatserver.realtime import create_server

PING_INTERVAL_S: Final = 0.3
PING_TIMEOUT_S: Final = 0.2
CONNECT_TIMEOUT_S: Final = 1.0
MAX_PAYLOAD: Final = 1_000_000
WITHIN_S: Final = 3.0


class Endpoint:
    """One path of a running server."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = url
        # aiohttp drops a WebSocket that nobody holds.
        self.sockets: list[Socket] = []

    async def ask(
        self, query: str, method: str = "get", body: Any = None, **more: Any
    ) -> tuple[int, str]:
        async with self.http.request(method, f"{self.url}?{query}", data=body, **more) as response:
            return response.status, await response.text()

    async def open(self) -> "Poller":
        status, opening = await self.ask("EIO=4&transport=polling")
        assert status == 200
        return Poller(self, json.loads(opening[1:])["sid"])

    async def socket(self, query: str = "EIO=4&transport=websocket") -> "Socket":
        """Open a WebSocket, and read nothing yet."""
        hasty = aiohttp.ClientWSTimeout(ws_close=0.2)
        url = f"{self.url}?{query}"
        socket = Socket(await self.http.ws_connect(url, max_msg_size=0, timeout=hasty))
        self.sockets.append(socket)
        return socket

    async def opened(self) -> "Socket":
        socket = await self.socket()
        assert (await socket.text()).startswith("0{")
        return socket

    async def connected(self, auth: str = "") -> "Socket":
        """Connect the main namespace of the echo server."""
        socket = await self.opened()
        await socket.send(f"40{auth}")
        assert (await socket.text()).startswith("40{")
        assert (await socket.text()).startswith('42["auth",')
        return socket


class Poller:
    """A session over long-polling."""

    def __init__(self, endpoint: Endpoint, sid: str) -> None:
        self.endpoint = endpoint
        self.sid = sid
        self.query = f"EIO=4&transport=polling&sid={sid}"

    async def poll(self, more: str = "") -> tuple[int, str]:
        return await self.endpoint.ask(self.query + more)

    async def push(self, body: Any, **more: Any) -> tuple[int, str]:
        return await self.endpoint.ask(self.query, "post", body, **more)

    async def upgrade(self) -> "Socket":
        """Open the WebSocket of an upgrade, and say nothing on it yet."""
        return await self.endpoint.socket(f"EIO=4&transport=websocket&sid={self.sid}")


class Socket:
    """A WebSocket, frame by frame."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, *frames: str | bytes) -> None:
        for frame in frames:
            if isinstance(frame, bytes):
                await self.socket.send_bytes(frame)
            else:
                await self.socket.send_str(frame)

    async def receive(self) -> str | bytes:
        async with asyncio.timeout(WITHIN_S):
            message = await self.socket.receive()
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        data: str | bytes = message.data
        return data

    async def text(self) -> str:
        data = await self.receive()
        assert isinstance(data, str)
        return data

    async def said(self, count: int) -> list[str | bytes]:
        """Give the next packets that are no pings."""
        found: list[str | bytes] = []
        while len(found) < count:
            frame = await self.receive()
            if frame != "2":
                found.append(frame)
        return found

    async def closes(self) -> int:
        """Read to the end, and give the close frame's code: 0 when it had none."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                message = await self.socket.receive()
                if message.type is aiohttp.WSMsgType.CLOSE:
                    code: int = message.data
                    return code
                assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message


def echo_server(**options: Any) -> socketio.AsyncServer:
    """Make the application of the official Socket.IO suite."""

    sio = create_server(
        **{
            "ping_interval": PING_INTERVAL_S,
            "ping_timeout": PING_TIMEOUT_S,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "max_http_buffer_size": MAX_PAYLOAD,
            **options,
        }
    )
    for namespace in ("/", "/custom"):
        _echo(sio, namespace)
    return sio


def _echo(sio: socketio.AsyncServer, namespace: str) -> None:
    @sio.event(namespace=namespace)  # type: ignore[untyped-decorator]
    async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
        await sio.emit("auth", auth or {}, to=sid, namespace=namespace)

    @sio.event(namespace=namespace)  # type: ignore[untyped-decorator]
    async def message(sid: str, *args: Any) -> None:
        await sio.emit("message-back", args, to=sid, namespace=namespace)

    @sio.on("message-with-ack", namespace=namespace)  # type: ignore[untyped-decorator]
    async def message_with_ack(sid: str, *args: Any) -> tuple[Any, ...]:
        return args


@asynccontextmanager
async def served(sio: socketio.AsyncServer, *, engine: bool = False) -> AsyncIterator[Endpoint]:
    """Serve it. `engine`: only its Engine.IO layer, echoing every message."""
    app = web.Application()
    if engine:

        async def echo(sid: str, data: str | bytes) -> None:
            await sio.eio.send(sid, data)

        sio.eio.on("message", echo)
        sio.eio.attach(app, "engine.io")
    else:
        sio.attach(app)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    path = "engine.io" if engine else "socket.io"
    try:
        async with aiohttp.ClientSession() as http:
            endpoint = Endpoint(http, f"http://127.0.0.1:{port}/{path}/")
            yield endpoint
            for socket in endpoint.sockets:
                await socket.socket.close()
    finally:
        await runner.cleanup()
