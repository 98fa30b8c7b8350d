"""The Socket.IO server: python-socketio's, failing closed, answering everything, bounded."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Coroutine
from typing import Any, Final

import orjson
import socketio
import structlog
from aiohttp import web

from chatserver.kernel.clock import Clock
from chatserver.kernel.errors import (
    DomainError,
    DrainingError,
    PayloadInvalidError,
    PayloadTooLargeError,
    RateLimitedError,
    UnavailableError,
)
from chatserver.realtime import packets
from chatserver.realtime.admission import Admission
from chatserver.realtime.commands import lane_of, name_of_event, where_to
from chatserver.realtime.current import CONNECTION
from chatserver.realtime.driver import AddressOf, remote_of, require_c_parser
from chatserver.realtime.engine_server import MAX_FRAME, EngineServer
from chatserver.realtime.engine_socket import EngineSocket
from chatserver.realtime.entrance import Arrivals, Entrance
from chatserver.realtime.errors import NamespaceUnknownError, ProtocolViolationError
from chatserver.realtime.hub import Connection
from chatserver.realtime.lanes import turn
from chatserver.realtime.packets import Received
from chatserver.realtime.ports import Door, Handshake, Offence, Refused
from chatserver.realtime.session import Session
from chatserver.realtime.standing import Standing
from chatserver.realtime.tally import Tally

log = structlog.get_logger(__name__)

MAX_COMMAND: Final = 128 * 1024
MAX_ATTACHED: Final = 512 * 1024
FIRST_NAMESPACE_S: Final = 10.0


class GuardedServer(socketio.AsyncServer):
    """Every way into a handler leads through here. No principal, no dispatch, no room."""

    def __init__(
        self,
        *,
        door: Door,
        arrivals: Arrivals,
        namespaces: tuple[str, ...],
        clock: Clock,
        admission: Admission | None = None,
        first_namespace_s: float = FIRST_NAMESPACE_S,
        refusal_s: float = 0.0,
        address_of: AddressOf = remote_of,
        **options: Any,
    ) -> None:
        require_c_parser()
        quiet = logging.getLogger("chatserver.realtime.stock")
        quiet.setLevel(logging.CRITICAL)  # it would write session ids, which are credentials
        super().__init__(
            async_handlers=False,
            namespaces=list(namespaces),
            logger=quiet,
            # A client's own list of origins is enforced by the door, once it is known whose it is.
            cors_allowed_origins="*",
            max_http_buffer_size=MAX_FRAME,
            max_packets=packets.MAX_PACKETS,
            stops_floods=True,
            **options,
        )
        self.sessions: dict[str, Session] = {}
        self.draining = False
        self.violations = 0
        self.forged_acks = 0
        self.tally = Tally()
        self._door = door
        self._arrivals = arrivals
        self._clock = clock
        self._first_namespace_s = first_namespace_s
        self._address_of = address_of
        self.entrance = Entrance(
            door=door,
            arrivals=arrivals,
            admission=admission or Admission(),
            clock=clock,
            end=self.end,
            refusal_s=refusal_s,
        )
        self.eio.admits = self._admits
        self.eio.opened = self._opened
        self.eio.message = self._message
        self.eio.closed = self._closed
        self.eio.violated = self._violated
        self.eio.full = self._full

    def end(
        self, session: Standing, code: str, reason: str, reconnect: str, after_ms: int = 0
    ) -> None:
        if not session.ended:
            self.tally.closings[code] += 1
        session.end(self._clock, code, reason, reconnect, after_ms)

    def _engineio_server_class(self) -> type[EngineServer]:
        return EngineServer

    def _violated(self, socket: EngineSocket, reason: str) -> None:
        self.violations += 1
        session = self.sessions.get(socket.sid)
        if session is not None:
            log.info("protocol_violation", reason=reason, address=session.handshake.address)
            self.end(session, PayloadInvalidError.code, f"Protocol violation: {reason}.", "backoff")
            socket.end()  # one that drains was to live a little longer

    def _full(self, socket: EngineSocket) -> None:
        session = self.sessions.get(socket.sid)
        if session is not None:
            log.info("slow_consumer", user=_name(session))
            self.end(session, "slow_consumer", "This socket reads too slowly.", "now")
            socket.end()  # one that drains would go on with a hole

    def _admits(self, request: web.Request) -> Awaitable[None] | None:
        self.entrance.check_address(self._address_of(request))
        admission = self.entrance.admission
        return admission.look() if admission.is_full else None

    def _opened(self, socket: EngineSocket, request: web.Request) -> None:
        handshake = Handshake.of(request.headers, self._address_of(request))
        session = self.sessions[socket.sid] = Session(socket.sid, socket, handshake)
        self.entrance.opened(session)
        session.expect_namespace(self._first_namespace_s)

    def _closed(self, socket: EngineSocket, reason: str) -> None:
        session = self.sessions.pop(socket.sid, None)
        self.tally.drops[reason] += 1
        self.tally.shed += socket.outbox.dropped
        if session is not None:
            self.entrance.left(session)
            for connection in session.leave():
                self._arrivals.leave(connection)

    def _message(self, socket: EngineSocket, data: str | bytes) -> Awaitable[None] | None:
        session = self.sessions.get(socket.sid)
        if session is None:
            return None
        try:
            connecting = self._take(session, data)
        except ProtocolViolationError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug here costs one connection, and is told
            self._broke(session, error)
            return None
        return None if connecting is None else self._guarded(session, connecting)

    async def _guarded(self, session: Session, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ProtocolViolationError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._broke(session, error)

    def _broke(self, session: Session, error: Exception) -> None:
        log.error("packet_failed", exc_info=error)
        self.end(session, "internal.error", "Something broke here.", "backoff")

    def _take(self, session: Session, data: str | bytes) -> Coroutine[Any, Any, None] | None:
        if isinstance(data, bytes):
            self._take_attachment(session, data)
            return None
        if session.binary is not None:
            raise ProtocolViolationError("text where an attachment was announced")
        packet = packets.decode(data)
        if packet.type == packets.CONNECT:
            return self._handle_connect(session.eio_sid, packet.namespace, packet.text)
        if packet.type == packets.EVENT:
            self._take_event(session, packet)
        elif packet.type == packets.DISCONNECT:
            self._leave(session, packet.namespace)
        elif packet.type == packets.ACK:
            self.forged_acks += 1  # we ask for none
        elif packet.type in (packets.BINARY_EVENT, packets.BINARY_ACK):
            self._announce(session, packet)
        else:
            raise ProtocolViolationError("a packet that only servers send")
        return None

    def _announce(self, session: Session, packet: Received) -> None:
        if packet.namespace not in session.connections:
            raise ProtocolViolationError("binary before the connect")
        parsed = packets.parse(packet.text)
        packets.check_placeholders(parsed, packet.attachments)
        if packet.attachments:
            session.binary = (packet, parsed, 0)
        else:
            self._take_binary(session, packet, parsed)

    def _take_attachment(self, session: Session, data: bytes) -> None:
        if session.binary is None:
            raise ProtocolViolationError("an attachment that nothing announced")
        packet, parsed, size = session.binary
        size += len(data)
        if size > MAX_ATTACHED:
            raise ProtocolViolationError("attachments too large")
        packet = Received(
            packet.type, packet.namespace, packet.id, packet.text, packet.attachments - 1
        )
        session.binary = (packet, parsed, size)
        if packet.attachments == 0:
            session.binary = None
            self._take_binary(session, packet, parsed)

    def _take_binary(self, session: Session, packet: Received, parsed: Any) -> None:
        """Refuse a binary event where it can be told; nothing here takes bytes."""
        if packet.type == packets.BINARY_ACK:
            self.forged_acks += 1
            return
        connection = session.connections.get(packet.namespace)
        name_of_event(parsed)
        if connection is not None and packet.id is not None:
            self._refuse(connection, packet.id, PayloadInvalidError.of("$", "is binary; send text"))

    def _take_event(self, session: Session, packet: Received) -> None:
        connection = session.connections.get(packet.namespace)
        if connection is None:
            if packet.namespace in session.left:
                return  # on its way when the namespace was left
            raise ProtocolViolationError("an event before the connect")
        size = len(packet.text) if packet.text.isascii() else len(packet.text.encode())
        if size > MAX_COMMAND:
            too_large = PayloadTooLargeError(f"A command may have {MAX_COMMAND} bytes.")
            self._refuse(connection, packet.id, too_large)
            self.entrance.offended(session)
            return
        try:
            parsed = packets.parse_event(packet.text)
        except PayloadInvalidError as error:
            self._refuse(connection, packet.id, error)
            self.entrance.offended(session)
            return
        event = name_of_event(parsed)
        # What is no single object is refused by the door, if it knows the name at all.
        payload = parsed[1] if len(parsed) == 2 else None  # noqa: PLR2004 - name and payload
        session.active_at = time.monotonic()
        self._run(session, connection, packet, event, payload, size)

    def _run(
        self,
        session: Session,
        connection: Connection,
        packet: Received,
        event: str,
        payload: object,
        size: int,
    ) -> None:
        """Run a command in its lane and answer it."""

        async def work() -> None:
            CONNECTION.set(connection)
            answer = await self._door.answer(
                connection.principal, connection.namespace, event, payload
            )
            before = turn()
            if before is not None:
                await before
            if packet.id is not None:
                connection.reply(packets.ack_packet(connection.namespace, packet.id, answer))
            if isinstance(answer, Offence):
                self.entrance.offended(session)

        taken = session.lanes.submit(
            lane_of(payload),
            size,
            work,
            overdue=lambda: self._refuse(connection, packet.id, UnavailableError()),
            joins=event in self._door.passed_on,
        )
        if not taken:
            limited = RateLimitedError("Too many commands wait already.", retry_after_ms=1000)
            self._refuse(connection, packet.id, limited)

    def _refuse(self, connection: Connection, ack_id: int | None, error: DomainError) -> None:
        if ack_id is not None:
            answer = orjson.dumps({"ok": False, "error": self._door.refuse(error)})
            connection.reply(packets.ack_packet(connection.namespace, ack_id, answer))

    async def _handle_connect(self, eio_sid: str, namespace: str, data: Any) -> None:
        """Authenticate, subscribe, and only then register: a failure of any kind is a refusal."""
        session = self.sessions[eio_sid]
        if namespace in session.connections or namespace in session.connecting:
            raise ProtocolViolationError("a namespace connected twice")
        auth = packets.parse(data) if data else None
        session.connecting[namespace] = None
        try:
            connection = await self._accept(session, namespace, auth)
        except Refused as refused:
            self._refuse_connect(session, namespace, refused.error)
            return
        except Exception as error:  # noqa: BLE001 - the door tells refusals from bugs
            self._refuse_connect(session, namespace, self._door.refuse(error))
            return
        except BaseException:
            session.connecting.pop(namespace, None)
            raise
        session.connecting.pop(namespace, None)
        if eio_sid not in self.sessions or session.ended:
            self._arrivals.leave(connection)
            return
        session.connections[namespace] = connection
        session.left.pop(namespace, None)
        accepted = packets.control_packet(packets.CONNECT, namespace, connection.greeting())
        if session.in_limbo:
            connection.reply(accepted)
            return
        session.has_namespace()
        connection.open(accepted, self.entrance.ready(connection))
        session.tell_rotated(self._clock)

    async def _accept(self, session: Session, namespace: str, auth: Any) -> Connection:
        if self.draining:
            raise DrainingError(retry_after_ms=1000)
        if namespace not in self.namespaces:
            raise NamespaceUnknownError(where_to(namespace, self.namespaces))
        return await self.entrance.let_in(
            session,
            namespace,
            auth,
            lambda principal: self._arrivals.seat(
                auth,
                namespace,
                principal,
                self.eio.generate_id(),
                session.socket.outbox,
                session,
            ),
        )

    def _refuse_connect(self, session: Session, namespace: str, error: dict[str, Any]) -> None:
        """Answer CONNECT_ERROR, not at once; until then the namespace can't be tried again.

        Guessing gets slow, and a crowd comes back spread.
        """
        self.tally.refusals[error["code"]] += 1
        body = orjson.dumps({"message": error["message"], "data": error})

        def send() -> None:
            session.connecting.pop(namespace, None)
            if not session.ended:
                session.socket.outbox.put_nowait(
                    packets.control_packet(packets.CONNECT_ERROR, namespace, body)
                )

        delay_s = self.entrance.refusal_delay_s()
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, send)
        else:
            send()

    def _leave(self, session: Session, namespace: str) -> None:
        connection = session.connections.pop(namespace, None)
        if connection is None:
            return
        connection.goodbye = True
        session.left[namespace] = None
        self._arrivals.leave(connection)
        if not session.connections:
            session.expect_namespace(self._first_namespace_s)


def _name(session: Session) -> str:
    return session.first.name if session.first is not None else ""
