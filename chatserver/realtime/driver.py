"""How aiohttp's requests reach the engine: whole bodies, true addresses, and WebSockets."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from aiohttp import WSMsgType, web
from aiohttp.http_parser import HttpRequestParser

from chatserver.realtime.packets import CLOSE_FRAME

BODY_S: Final = 10.0
HANG_UP_S: Final = 2.0
TELLING: Final = frozenset({WSMsgType.TEXT, WSMsgType.BINARY})

AddressOf: TypeAlias = Callable[[web.Request], str]


def remote_of(request: web.Request) -> str:
    """Tell the address at the other end of the line, whatever it says of itself."""
    return request.remote or ""


def require_c_parser() -> None:
    """Refuse to serve with aiohttp's parser in Python, which is slow, and lenient to smugglers.

    Raises:
        RuntimeError: this installation has no other.
    """
    if HttpRequestParser.__module__ != "aiohttp._http_parser":
        raise RuntimeError("aiohttp is installed without its HTTP parser in C")


async def read_body(request: web.Request, limit: int) -> bytes:
    """Read a body however many segments it comes in.

    Raises:
        web.HTTPRequestEntityTooLarge: it has more than `limit` bytes.
        web.HTTPRequestTimeout: it took longer than ten seconds.
    """
    announced = request.content_length or 0
    if announced > limit:
        raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=announced)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=len(body))
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error
    return bytes(body)


def is_websocket(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").strip().lower() == "websocket"


async def accept(
    request: web.Request, limit: int
) -> tuple[web.WebSocketResponse, asyncio.Transport]:
    """Answer a WebSocket's handshake; whoever reads it also closes it.

    Raises:
        web.HTTPBadRequest: it is none.
        ConnectionResetError: the peer has gone.
    """
    # aiohttp refuses what reaches its limit, the protocol what exceeds it.
    socket = web.WebSocketResponse(
        max_msg_size=limit + 1, compress=False, autoclose=False, timeout=HANG_UP_S
    )
    await socket.prepare(request)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the peer has gone")
    return socket, transport


async def hang_up(socket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
    """Close a WebSocket that has nothing to say."""
    if not socket.closed and not transport.is_closing():
        transport.write(CLOSE_FRAME)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HANG_UP_S):
                while (await socket.receive()).type in TELLING:
                    pass
    leave(socket)


def leave(socket: web.WebSocketResponse) -> None:
    """Tell aiohttp that the close frames are our business, and were sent."""
    socket._set_closed()


def on_lost(request: web.Request, gone: Any) -> None:
    """Have `gone(error)` called when a peer hangs up while its request is being answered."""
    # aiohttp has only an app-wide switch for it; this is what it calls on the request itself.
    object.__setattr__(request, "_cancel", gone)


def environ_of(request: web.Request) -> dict[str, Any]:
    """Describe a request as python-socketio's handlers expect it; the address is the peer's."""
    environ: dict[str, Any] = {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.scheme,
        "wsgi.async": True,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "SERVER_SOFTWARE": "aiohttp",
        "REQUEST_METHOD": request.method,
        "QUERY_STRING": request.query_string,
        "RAW_URI": request.path_qs,
        "PATH_INFO": request.path,
        "SCRIPT_NAME": "",
        "SERVER_PROTOCOL": f"HTTP/{request.version.major}.{request.version.minor}",
        "SERVER_NAME": "aiohttp",
        "SERVER_PORT": "0",
        "REMOTE_ADDR": request.remote or "",
        "REMOTE_PORT": "0",
        "aiohttp.request": request,
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    return environ
