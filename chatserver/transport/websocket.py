"""`/api/v1/websocket`: the same commands and facts for clients without Socket.IO."""

import asyncio
from typing import Any, Final

import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from chatserver.kernel.clock import Clock, utc_now
from chatserver.kernel.errors import (
    DrainingError,
    EventUnknownError,
    PayloadInvalidError,
)
from chatserver.kernel.ids import uuid7
from chatserver.realtime.admission import retry_after_ms
from chatserver.realtime.driver import AddressOf, remote_of
from chatserver.realtime.engine import Realtime
from chatserver.realtime.errors import NamespaceUnknownError
from chatserver.realtime.hub import Connection
from chatserver.realtime.ports import Door, Handshake, Refused
from chatserver.transport.errors import MalformedRequestError
from chatserver.transport.plain import BadFrameError, Frame, PlainSession

log = structlog.get_logger(__name__)

PATH: Final = "/api/v1/websocket"
MAX_FRAME: Final = 256 * 1024
PING_S: Final = 25.0
FIRST_S: Final = 10.0
CLOSE_S: Final = 2.0
# Closed for good reason, as 4000…4999 are an application's own: the frame before says which.
REFUSED: Final = 4001


class WebSocketDoor:
    """Translates frames and nothing else: who may connect and what commands do is the `Door`'s."""

    def __init__(
        self,
        *,
        realtime: Realtime,
        door: Door,
        namespaces: tuple[str, ...],
        address_of: AddressOf = remote_of,
        clock: Clock = utc_now,
        first_s: float = FIRST_S,
    ) -> None:
        self._realtime = realtime
        self._door = door
        self._namespaces = namespaces
        self._address_of = address_of
        self._entrance = realtime.entrance
        self._clock = clock
        self._first_s = first_s

    def attach(self, app: web.Application) -> None:
        app.router.add_get(PATH, self._serve)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if self._realtime.draining:
            raise DrainingError(retry_after_ms=retry_after_ms())
        socket = web.WebSocketResponse(
            max_msg_size=MAX_FRAME, compress=False, heartbeat=PING_S, timeout=CLOSE_S
        )
        if not socket.can_prepare(request):
            raise MalformedRequestError("This path takes WebSockets.")
        address = self._address_of(request)
        self._entrance.check_address(address)
        await self._entrance.admission.look()
        await socket.prepare(request)
        handshake = Handshake.of(request.headers, address)
        session = PlainSession(socket, request.transport, handshake, self._door)
        session.on_offence = self._entrance.offended
        self._realtime.join(session)
        self._entrance.opened(session)
        try:
            await self._converse(session)
        finally:
            self._realtime.part(session)
            self._entrance.left(session)
            for connection in session.leave():
                self._realtime.leave(connection)
            await session.close()
        return socket

    async def _converse(self, session: PlainSession) -> None:
        session.expect_connect(self._first_s)
        while not session.ending:
            message = await session.socket.receive()
            if message.type is not WSMsgType.TEXT:
                if message.type is WSMsgType.BINARY:
                    await session.refuse_peer(WSCloseCode.UNSUPPORTED_DATA, b"text only")
                return
            try:
                frame = Frame.of(message.data)
            except BadFrameError as error:
                await session.refuse_peer(WSCloseCode.INVALID_TEXT, str(error).encode())
                return
            if not await self._take(session, frame):
                return

    async def _take(self, session: PlainSession, frame: Frame) -> bool:
        """Handle one frame; False when the connection ends with it."""
        if frame.problem is not None:
            session.refuse(frame, PayloadInvalidError.of(*frame.problem))
            self._entrance.offended(session)
        elif frame.event == "connect":
            return await self._connect(session, frame)
        elif frame.event == "disconnect":
            self._disconnect(session, frame)
        elif not session.connections:
            session.refuse(frame, PayloadInvalidError.of("event", "must be connect at first"))
        else:
            connection = session.connections.get(frame.namespace or "")
            if connection is None:
                session.refuse(frame, EventUnknownError("Connect this `ns` first."))
            else:
                session.run(connection, frame)
        return True

    async def _connect(self, session: PlainSession, frame: Frame) -> bool:
        """Connect one namespace, or without `ns` all that the key may read."""
        wanted = (frame.namespace,) if frame.namespace else self._namespaces
        connected: list[str] = []
        refusal: dict[str, Any] | None = None
        for namespace in wanted:
            if namespace in session.connections:
                connected.append(namespace)
                continue
            try:
                await self._enter(session, namespace, frame.data)
                connected.append(namespace)
            except Refused as refused:
                refusal = refusal or refused.error
                if refused.error["code"] != "auth.scope_missing":
                    break
            except Exception as error:  # noqa: BLE001 - the door tells refusals from bugs
                refusal = self._door.refuse(error)
                break
        if connected:
            session.answer(frame, {"namespaces": connected})
            for namespace in connected:
                self._open(session, namespace)
            return True
        await asyncio.sleep(self._entrance.refusal_delay_s())
        session.answer_refusal(frame, refusal or self._door.refuse(NamespaceUnknownError()))
        if session.connections:
            return True
        await session.refuse_peer(REFUSED, b"refused")
        return False

    async def _enter(self, session: PlainSession, namespace: str, auth: Any) -> None:  # noqa: ANN401
        if self._realtime.draining:
            raise DrainingError(retry_after_ms=retry_after_ms())
        if namespace not in self._namespaces:
            raise NamespaceUnknownError
        connection = await self._entrance.let_in(
            session,
            namespace,
            auth,
            lambda principal: Connection(
                namespace, principal, uuid7().hex, session.outlet, session
            ),
        )
        session.enter(connection)

    def _open(self, session: PlainSession, namespace: str) -> None:
        connection = session.connections.get(namespace)
        if connection is None or connection.is_open or session.in_limbo:
            return
        connection.open(self._entrance.ready(connection))
        session.tell_rotated(self._clock)

    def _disconnect(self, session: PlainSession, frame: Frame) -> None:
        connection = session.connections.pop(frame.namespace or "", None)
        if connection is not None:
            connection.goodbye = True
            self._realtime.leave(connection)
        session.answer(frame, {"namespaces": list(session.connections)})
        if not session.connections:
            session.expect_connect(self._first_s)
