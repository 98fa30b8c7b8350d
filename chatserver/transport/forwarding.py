"""Requests of sessions that live on another node: handed on to it, once, and counted.

The rule is that the balancer routes by the node's name in the session id; this is the fallback.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    DummyCookieJar,
    TCPConnector,
    UnixConnector,
    WSMsgType,
    WSServerHandshakeError,
    hdrs,
    web,
)
from aiohttp.typedefs import Middleware
from multidict import CIMultiDict

from chatserver.kernel.tasks import end
from chatserver.realtime.nodes import NodeRegistry, owner_of

log = structlog.get_logger(__name__)

HOP: Final = "X-Chatserver-Hop"
UNIX: Final = "unix:"
CONNECT_S: Final = 2.0
# A poll of the owner's ends by itself well before.
ANSWER_S: Final = 75.0
BODY_S: Final = 10.0
MAX_FRAME: Final = 256 * 1024
CLOSE_S: Final = 2.0
# As Engine.IO's own answer to a session id that nobody knows: the client starts anew.
UNKNOWN: Final = '{"code":1,"message":"Session ID unknown"}'
_OF_ONE_HOP: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailers",
        "transfer-encoding", "upgrade", "content-length", "host", "date", "server",
    }
)  # fmt: skip


@dataclass(slots=True)
class Forwarded:
    """What was handed on, for metrics; `dead` were refused because their node can't be reached."""

    requests: int = 0
    upgrades: int = 0
    dead: int = 0
    hops: int = 0


class Forwarder:
    """Finds the owner of a session by its id, and lets it answer."""

    def __init__(self, registry: NodeRegistry, path: str) -> None:
        self.counters = Forwarded()
        self._registry = registry
        self._path = path
        self._sessions: dict[str, ClientSession] = {}

    def middleware(self) -> Middleware:
        @web.middleware
        async def forward(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            if not request.path.startswith(self._path) or request.method == hdrs.METH_OPTIONS:
                return await handler(request)
            owner = owner_of(request.query.get("sid", ""))
            if owner is None or owner == self._registry.node_id:
                return await handler(request)
            if HOP in request.headers:
                # Somebody handed it to us by mistake: never twice. The engine refuses its id.
                self.counters.hops += 1
                return await handler(request)
            return await self._forward(request, owner)

        return forward

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def _forward(self, request: web.Request, owner: str) -> web.StreamResponse:
        tried: str | None = None
        # A node that was started again is reached elsewhere than remembered.
        while (address := await self._registry.where(owner)) not in {None, tried}:
            tried = address
            try:
                if request.headers.get(hdrs.UPGRADE, "").lower() == "websocket":
                    return await self._relay(request, address)
                return await self._ask(request, address)
            except (ClientError, OSError, TimeoutError) as error:
                log.info("owner_unreachable", owner=owner, error=type(error).__name__)
                self._registry.forget(owner)
                if not isinstance(error, ClientConnectorError):
                    break  # it may have been taken in
        self.counters.dead += 1
        return _unknown(request)

    async def _ask(self, request: web.Request, address: str) -> web.Response:
        async with asyncio.timeout(BODY_S):
            body = await request.read()
        self.counters.requests += 1
        session, url = self._reach(address, request)
        async with session.request(
            request.method, url, data=body or None, headers=self._headers(request)
        ) as answer:
            headers = _kept(answer.headers)
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)

    async def _relay(self, request: web.Request, address: str) -> web.StreamResponse:
        session, url = self._reach(address, request)
        headers = CIMultiDict(
            (name, value)
            for name, value in self._headers(request).items()
            if not name.lower().startswith("sec-websocket-")
        )
        try:
            theirs = await session.ws_connect(
                url, headers=headers, max_msg_size=0, compress=0, autoclose=False
            )
        except WSServerHandshakeError as refused:
            return _unknown(request, refused.status)
        self.counters.upgrades += 1
        async with theirs:
            ours = web.WebSocketResponse(
                max_msg_size=MAX_FRAME, compress=False, autoclose=False, timeout=CLOSE_S
            )
            await ours.prepare(request)
            pairs = ((ours, theirs), (theirs, ours))
            ways = [asyncio.create_task(_pump(*pair)) for pair in pairs]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            await end(*ways)
            # Whoever ended it did so for a reason: the other side hears the same.
            await theirs.close(code=ours.close_code or 1000)
            await ours.close(code=theirs.close_code or 1000)
        return ours

    def _reach(self, address: str, request: web.Request) -> tuple[ClientSession, str]:
        session = self._sessions.get(address)
        if session is None:
            connector = (
                UnixConnector(address.removeprefix(UNIX), limit=0)
                if address.startswith(UNIX)
                else TCPConnector(limit=0)
            )
            session = self._sessions[address] = ClientSession(
                connector=connector,
                cookie_jar=DummyCookieJar(),
                auto_decompress=False,
                timeout=ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S, connect=CONNECT_S),
            )
        base = "http://node" if address.startswith(UNIX) else address.rstrip("/")
        return session, f"{base}{request.path_qs}"

    def _headers(self, request: web.Request) -> CIMultiDict[str]:
        headers = _kept(request.headers)
        headers[HOP] = self._registry.node_id
        return headers


def _unknown(request: web.Request, status: int = HTTPStatus.BAD_REQUEST) -> web.Response:
    response = web.Response(status=status, text=UNKNOWN, content_type="application/json")
    if hdrs.ORIGIN in request.headers:
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*"
    return response


def _kept(headers: Mapping[str, str]) -> CIMultiDict[str]:
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in _OF_ONE_HOP
    )


async def _pump(
    source: web.WebSocketResponse | ClientWebSocketResponse,
    sink: web.WebSocketResponse | ClientWebSocketResponse,
) -> None:
    with contextlib.suppress(ConnectionError, RuntimeError):
        async for message in source:
            if message.type is WSMsgType.TEXT:
                await sink.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await sink.send_bytes(message.data)
            else:
                return
