"""Our Engine.IO server. It has python-engineio's interface, which python-socketio stands upon."""

import asyncio
import base64
import math
import os
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeAlias

import orjson
import structlog
from aiohttp import web

from chatserver.kernel.errors import UnavailableError
from chatserver.realtime import engine_answers as answers
from chatserver.realtime.driver import environ_of, is_websocket
from chatserver.realtime.engine_answers import OriginRule, Origins
from chatserver.realtime.engine_socket import TRANSPORT_ERROR, EngineSocket
from chatserver.realtime.heartbeat import Heartbeat
from chatserver.realtime.outbox import Writer
from chatserver.realtime.packets import CLOSE, Outgoing, message_packet

log = structlog.get_logger(__name__)

Answer: TypeAlias = Coroutine[Any, Any, web.StreamResponse]

MAX_FRAME: Final = 256 * 1024
DRAINING_RETRY_S: Final = 1
TRANSPORTS: Final = ("polling", "websocket")


class EngineServer:
    """Sessions by id, and the requests that lead to them.

    Whoever stands above takes `admits`, `opened`, `message`, `closed`, `violated` and `full` over,
    or registers handlers with `on`, as with python-engineio: `connect(sid, environ)`, which may
    refuse with False, `message(sid, data)` and `disconnect(sid, reason)`.
    """

    async_mode = "aiohttp"

    def __init__(
        self,
        *,
        ping_interval: float = 25,
        ping_timeout: float = 20,
        max_http_buffer_size: int = 1_000_000,
        cors_allowed_origins: Origins = None,
        cors_credentials: bool = False,
        stops_floods: bool = False,
        max_packets: int | None = None,
        **_: Any,
    ) -> None:
        """`_`: what python-socketio hands down for engines that have more ways than this one."""
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.max_http_buffer_size = max_http_buffer_size
        self.stops_floods = stops_floods
        self.max_packets = max_packets
        self.sockets: dict[str, EngineSocket] = {}
        self.writer = Writer()
        self.heartbeat = Heartbeat(self.sockets, ping_interval, ping_timeout)
        self.draining = False
        self.refused = 0
        self.handlers: dict[str, Callable[..., Any]] = {}
        # Refuses a handshake with `UnavailableError`, at once or after a while.
        self.admits: Callable[[web.Request], Awaitable[None] | None] = lambda _: None
        self.opened: Callable[[EngineSocket, web.Request], Awaitable[bool] | None] = self._opened
        self.message: Callable[[EngineSocket, str | bytes], Awaitable[None] | None] = self._message
        self.closed: Callable[[EngineSocket, str], None] = self._closed
        self.violated: Callable[[EngineSocket, str], None] = self._violated
        self.full: Callable[[EngineSocket], None] = self._full
        self._origins = OriginRule(cors_allowed_origins, credentials=cors_credentials)
        self._kept: dict[str, dict[str, Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def attach(self, app: web.Application, engineio_path: str = "engine.io") -> None:
        """Serve a path of an app; its sockets are closed when the app shuts down."""
        app.router.add_route("*", f"/{engineio_path.strip('/')}/", self.handle_request)
        app.on_shutdown.append(self._shut_down)

    def on(self, event: str, handler: Callable[..., Any] | None = None) -> Any:
        """Register a handler; without one, give a decorator.

        Raises:
            ValueError: there is no such event.
        """
        if event not in ("connect", "message", "disconnect"):
            raise ValueError(f"no such event: {event}")

        def register(handler: Callable[..., Any]) -> Callable[..., Any]:
            self.handlers[event] = handler
            # Whoever stood above heard of it directly; from now on this one does.
            name = {"connect": "opened", "message": "message", "disconnect": "closed"}[event]
            setattr(self, name, getattr(self, f"_{name}"))
            return handler

        return register if handler is None else register(handler)

    async def handle_request(self, request: web.Request) -> web.StreamResponse:
        """Answer one request of the engine's path."""
        if not self._origins.admits(request):
            self.refused += 1
            return answers.refused(answers.FORBIDDEN)
        if request.method == "OPTIONS":
            return self._origins.preflight(request)
        try:
            response = await _response(self._answer(request))
        except web.HTTPException as error:
            self._origins.describe(request, error)
            raise
        self._origins.describe(request, response)
        return response

    async def send(self, sid: str, data: Any) -> None:
        """Send a message: text, bytes, or what JSON can say."""
        if not isinstance(data, str | bytes):
            data = orjson.dumps(data).decode()
        self.put(sid, message_packet(data))

    async def send_packet(self, sid: str, packet: Any) -> None:
        """Send a packet of python-engineio's."""
        encoded = packet.encode()
        if isinstance(encoded, bytes):
            self.put(sid, message_packet(encoded))
        else:
            self.put(sid, Outgoing(encoded.encode()))

    def put(self, sid: str, packet: Outgoing) -> None:
        """Send a packet, if its socket is still there."""
        socket = self.sockets.get(sid)
        if socket is not None:
            socket.outbox.put_nowait(packet)

    async def disconnect(self, sid: str | None = None) -> None:
        """Close one connection, or all; returns at once."""
        found = list(self.sockets.values()) if sid is None else [self.sockets.get(sid)]
        for socket in found:
            if socket is not None:
                socket.end(*(() if socket.upgraded else (CLOSE,)))

    def transport(self, sid: str) -> str:
        return self.sockets[sid].transport

    async def get_session(self, sid: str) -> dict[str, Any]:
        """Give what `save_session` keeps about a connection, until `forget`."""
        if sid not in self.sockets and sid not in self._kept:
            raise KeyError("Session not found")
        return self._kept.setdefault(sid, {})

    async def save_session(self, sid: str, session: dict[str, Any]) -> None:
        self._kept[sid] = session

    def session(self, sid: str) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Give the same as a context."""

        @asynccontextmanager
        async def context() -> Any:
            session = await self.get_session(sid)
            yield session
            await self.save_session(sid, session)

        return context()

    def forget(self, sid: str) -> None:
        self._kept.pop(sid, None)

    async def shutdown(self) -> None:
        """End the timer. Sockets are ended by whoever knows why."""
        self.heartbeat.stop()

    def generate_id(self) -> str:
        """Make a session id. On polling it is a credential: 120 random bits."""
        return base64.urlsafe_b64encode(os.urandom(15)).decode()

    def start_background_task(
        self, target: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(target(*args, **kwargs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def sleep(self, seconds: float = 0) -> None:
        await asyncio.sleep(seconds)

    def create_event(self, *_: Any, **__: Any) -> asyncio.Event:
        return asyncio.Event()

    def create_queue(self, *args: Any, **kwargs: Any) -> asyncio.Queue[Any]:
        return asyncio.Queue(*args, **kwargs)

    def get_queue_empty_exception(self) -> type[Exception]:
        return asyncio.QueueEmpty

    def _answer(self, request: web.Request) -> web.StreamResponse | Answer:
        transport = request.query.get("transport")
        if transport not in TRANSPORTS:
            return self._refuse(answers.TRANSPORT_UNKNOWN)
        if "j" in request.query:  # JSONP: a session id in a script's address
            return self._refuse(answers.BAD_REQUEST)
        sid = request.query.get("sid")
        if sid is None:
            wrong = self._wrong_with(request, transport)
            return self._enter(request, transport) if wrong is None else wrong
        socket = self._socket(sid, request)
        if socket is None:
            return self._refuse(answers.SESSION_UNKNOWN)
        return self._continue(socket, request, transport)

    def _socket(self, sid: str, request: web.Request) -> EngineSocket | None:
        socket = self.sockets.get(sid)
        if socket is None or request.method == "POST":  # which may well bring the pong
            return socket
        if not self.heartbeat.is_over(socket):
            return socket
        socket.silent()
        return None

    def _continue(
        self, socket: EngineSocket, request: web.Request, transport: str
    ) -> web.StreamResponse | Answer:
        asks_upgrade = is_websocket(request)
        if asks_upgrade and transport == "websocket" and request.method == "GET":
            return socket.upgrade(request)
        if not asks_upgrade and transport == socket.transport == "polling":
            if request.method == "GET":
                return socket.poll(request)
            if request.method == "POST":
                return socket.post(request)
        return self._refuse(answers.BAD_REQUEST)

    def _wrong_with(self, request: web.Request, transport: str) -> web.Response | None:
        """Give the answer to a handshake that can't be one."""
        if request.method != "GET":
            return self._refuse(answers.BAD_METHOD)
        if is_websocket(request) != (transport == "websocket"):
            return self._refuse(answers.BAD_REQUEST)
        if request.query.getall("EIO", []) != ["4"]:
            return self._refuse(answers.BAD_VERSION)
        if self.draining:
            return web.Response(
                status=503, text="draining", headers={"Retry-After": str(DRAINING_RETRY_S)}
            )
        return None

    def _enter(self, request: web.Request, transport: str) -> web.StreamResponse | Answer:
        try:
            waiting = self.admits(request)
        except UnavailableError as error:
            return self._send_away(error)
        if waiting is not None:
            return self._wait(request, transport, waiting)
        return self._handshake(request, transport)

    async def _wait(
        self, request: web.Request, transport: str, waiting: Awaitable[None]
    ) -> web.StreamResponse:
        try:
            await waiting
        except UnavailableError as error:
            return self._send_away(error)
        return await _response(self._handshake(request, transport))

    def _send_away(self, error: UnavailableError) -> web.Response:
        self.refused += 1
        retry_after_s = math.ceil((error.retry_after_ms or 0) / 1000)
        return web.Response(
            status=503, text=str(error), headers={"Retry-After": str(retry_after_s)}
        )

    def _handshake(self, request: web.Request, transport: str) -> web.StreamResponse | Answer:
        socket = EngineSocket(self, self.generate_id())
        self.sockets[socket.sid] = socket
        socket.send(Outgoing(b"0" + self._opening(socket.sid, transport)))
        admitted = self.opened(socket, request)
        if admitted is not None:
            return self._admit(socket, request, transport, admitted)
        return self._start(socket, request, transport)

    async def _admit(
        self, socket: EngineSocket, request: web.Request, transport: str, asked: Awaitable[bool]
    ) -> web.StreamResponse:
        if await asked:
            return await _response(self._start(socket, request, transport))
        self.sockets.pop(socket.sid, None)
        self.forget(socket.sid)
        return web.Response(status=401, text='"Unauthorized"', content_type="application/json")

    def _start(
        self, socket: EngineSocket, request: web.Request, transport: str
    ) -> web.StreamResponse | Answer:
        self.heartbeat.rest(socket)
        return socket.serve(request) if transport == "websocket" else socket.poll(request)

    def _opening(self, sid: str, transport: str) -> bytes:
        return orjson.dumps(
            {
                "sid": sid,
                "upgrades": ["websocket"] if transport == "polling" else [],
                "pingInterval": int(self.ping_interval * 1000),
                "pingTimeout": int(self.ping_timeout * 1000),
                "maxPayload": self.max_http_buffer_size,
            }
        )

    def _refuse(self, error: tuple[int, str]) -> web.Response:
        self.refused += 1
        return answers.refused(error)

    async def _shut_down(self, _: web.Application) -> None:
        self.draining = True
        for socket in list(self.sockets.values()):
            socket.abandon()
        self.heartbeat.stop()

    async def _opened(self, socket: EngineSocket, request: web.Request) -> bool:
        handler = self.handlers.get("connect")
        if handler is None:
            return True
        try:
            answer = await _settled(handler(socket.sid, environ_of(request)))
        except Exception:
            log.exception("connect_handler_failed")
            return False
        return answer is None or answer is True

    def _message(self, socket: EngineSocket, data: str | bytes) -> Awaitable[None] | None:
        async def tell() -> None:
            try:
                await _settled(self.handlers["message"](socket.sid, data))
            except Exception:
                log.exception("message_handler_failed")

        return tell() if "message" in self.handlers else None

    def _closed(self, socket: EngineSocket, reason: str) -> None:
        async def tell() -> None:
            handler = self.handlers.get("disconnect")
            try:
                if handler is not None:
                    await _settled(handler(socket.sid, reason))
            finally:
                self.forget(socket.sid)

        task = self.start_background_task(tell)
        task.set_name("engine_disconnect")

    def _violated(self, socket: EngineSocket, reason: str) -> None:
        log.info("protocol_violation", reason=reason)
        socket.close(TRANSPORT_ERROR, CLOSE)

    def _full(self, socket: EngineSocket) -> None:
        log.info("slow_consumer")
        socket.end()


async def _response(answer: web.StreamResponse | Answer) -> web.StreamResponse:
    return answer if isinstance(answer, web.StreamResponse) else await answer


async def _settled(answer: Any) -> Any:
    return await answer if isinstance(answer, Awaitable) else answer
