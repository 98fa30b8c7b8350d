"""How aiohttp's requests reach the engine: whole bodies, true addresses, and WebSockets."""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import HttpRequestParser

from chatserver.realtime.wire import Peer, WebSocketWire

BODY_S: Final = 10.0
KEY_BYTES: Final = 16
# RFC 6455, 1.3: what every server adds to a client's key.
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

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


class Handed(web.StreamResponse):
    """The answer to a request whose connection is not aiohttp's any more: nothing is to be sent."""

    def __init__(self) -> None:
        super().__init__(status=101)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: whoever has the connection ends it."""

    @property
    def prepared(self) -> bool:
        return True


def take_over(request: web.Request, limit: int, peer: Peer) -> WebSocketWire:
    """Answer a WebSocket's handshake, and take its connection from aiohttp.

    Return a `Handed` from the handler: then all that aiohttp had for the request is free.

    Raises:
        web.HTTPBadRequest: it is none.
        ConnectionResetError: the peer has gone.
    """
    head = _handshake(request)
    handler = request.protocol
    transport = handler.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the peer has gone")
    ahead = handler._message_tail
    # Its own end of the connection: it lets go of everything, and finds no transport to close.
    handler.transport = None
    handler.connection_lost(None)
    wire = WebSocketWire(transport, limit, peer)
    transport.set_protocol(wire)
    transport.write(head)
    if not transport.is_reading():
        transport.resume_reading()
    if ahead:
        asyncio.get_running_loop().call_soon(wire.data_received, ahead)
    return wire


def _handshake(request: web.Request) -> bytes:
    """Write the answer to a WebSocket's request; no extension is agreed upon."""
    headers = request.headers
    connection = {part.strip().lower() for part in headers.get(hdrs.CONNECTION, "").split(",")}
    if "upgrade" not in connection or headers.get(hdrs.SEC_WEBSOCKET_VERSION) != "13":
        raise web.HTTPBadRequest
    key = headers.get(hdrs.SEC_WEBSOCKET_KEY, "").encode(errors="replace")
    try:
        if len(base64.b64decode(key, validate=True)) != KEY_BYTES:
            raise web.HTTPBadRequest
    except binascii.Error as error:
        raise web.HTTPBadRequest from error
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())  # noqa: S324 - RFC 6455 wants it
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )


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
