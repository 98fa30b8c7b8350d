"""The Socket.IO server: python-socketio's, failing closed, answering everything, bounded."""

import asyncio
import logging
import time
from typing import Any, Final, Protocol

import engineio
import orjson
import socketio
import structlog

from chatserver.kernel.clock import Clock
from chatserver.kernel.errors import (
    DomainError,
    DrainingError,
    PayloadInvalidError,
    PayloadTooLargeError,
    RateLimitedError,
    UnavailableError,
)
from chatserver.kernel.principal import Principal
from chatserver.realtime import packets
from chatserver.realtime.admission import Places
from chatserver.realtime.census import RETRY_S, Census
from chatserver.realtime.commands import lane_of, name_of_event, where_to
from chatserver.realtime.current import CONNECTION
from chatserver.realtime.driver import AddressOf, handshake_of, remote_of
from chatserver.realtime.engine_server import MAX_FRAME, EngineServer
from chatserver.realtime.errors import NamespaceUnknownError, ProtocolViolationError
from chatserver.realtime.hub import Connection
from chatserver.realtime.packets import Received
from chatserver.realtime.ports import Accepted, Door, Offence, Refused
from chatserver.realtime.session import Session, connected, own_fact, refuse_connect

log = structlog.get_logger(__name__)

MAX_COMMAND: Final = 128 * 1024
MAX_ATTACHED: Final = 512 * 1024
FIRST_NAMESPACE_S: Final = 10.0
CONNECT_S: Final = 5.0
LIMBO_S: Final = 10.0


class Arrivals(Protocol):
    """What the guard tells of connections that it has accepted, and that have gone."""

    async def enter(self, connection: Connection) -> None:
        """Subscribe a connection; raises when that can't be done now."""
        ...

    def leave(self, connection: Connection) -> None: ...


class GuardedServer(socketio.AsyncServer):
    """Every way into a handler leads through here. No principal, no dispatch, no room."""

    def __init__(
        self,
        *,
        door: Door,
        arrivals: Arrivals,
        namespaces: tuple[str, ...],
        clock: Clock,
        first_namespace_s: float = FIRST_NAMESPACE_S,
        places: Places | None = None,
        refusal_s: float = 0.0,
        address_of: AddressOf = remote_of,
        **options: Any,
    ) -> None:
        quiet = logging.getLogger("chatserver.realtime.stock")
        quiet.setLevel(logging.CRITICAL)  # it would write session ids, which are credentials
        super().__init__(
            async_mode="aiohttp",
            async_handlers=False,
            namespaces=list(namespaces),
            logger=quiet,
            engineio_logger=quiet,
            cors_allowed_origins="*",
            cors_credentials=False,
            http_compression=False,
            max_http_buffer_size=MAX_FRAME,
            **options,
        )
        self.sessions: dict[str, Session] = {}
        self.draining = False
        self.violations = 0
        self.forged_acks = 0
        self._door = door
        self._arrivals = arrivals
        self._clock = clock
        self._first_namespace_s = first_namespace_s
        self._places = places or Places()
        self._refusal_s = refusal_s
        self.census: Census | None = None
        self.eio.message = self._handle_eio_message
        self.eio.violated = self._violated
        self.eio.full = self._full
        self.eio.admits = self._admits
        self.eio.reads_addresses_with(address_of)

    def end(
        self, session: Session, code: str, reason: str, reconnect: str, after_ms: int = 0
    ) -> None:
        session.end(self._clock, code, reason, reconnect, after_ms)

    def _engineio_server_class(self) -> type[engineio.AsyncServer]:
        return EngineServer

    def _violated(self, eio_sid: str, reason: str) -> None:
        self.violations += 1
        session = self.sessions.get(eio_sid)
        if session is not None:
            log.info("protocol_violation", reason=reason, address=session.handshake.address)
            self.end(session, PayloadInvalidError.code, f"Protocol violation: {reason}.", "backoff")

    def _full(self, eio_sid: str) -> None:
        session = self.sessions.get(eio_sid)
        if session is not None:
            log.info("slow_consumer", user=_name(session))
            self.end(session, "slow_consumer", "This socket reads too slowly.", "now")

    async def _admits(self, address: str) -> float:
        """Tell after how many seconds a peer may try again that may not open a connection now."""
        if self.census is not None and not self.census.may_open(address):
            return RETRY_S
        return 0 if await self._places.look() else self._places.retry_after_s

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> None:
        await super()._handle_eio_connect(eio_sid, environ)
        handshake = handshake_of(environ)
        session = Session(eio_sid, self.eio.sockets[eio_sid], handshake)
        self.sessions[eio_sid] = session
        if self.census is not None:
            self.census.opened(session)
        session.expect_namespace(self._first_namespace_s)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:  # noqa: ARG002 - stock
        session = self.sessions.pop(eio_sid, None)
        self.environ.pop(eio_sid, None)
        if session is not None:
            if self.census is not None:
                self.census.left(session)
            for connection in session.leave():
                await self._forget(connection)

    async def _handle_eio_message(self, eio_sid: str, data: str | bytes) -> None:
        session = self.sessions.get(eio_sid)
        if session is None or session.socket.ending:
            return
        try:
            await self._take(session, data)
        except ProtocolViolationError:
            raise
        except Exception:
            log.exception("packet_failed")
            self.end(session, "internal.error", "Something broke here.", "backoff")

    async def _take(self, session: Session, data: str | bytes) -> None:
        if isinstance(data, bytes):
            self._take_attachment(session, data)
            return
        if session.binary is not None:
            raise ProtocolViolationError("text where an attachment was announced")
        packet = packets.decode(data)
        if packet.type == packets.CONNECT:
            await self._handle_connect(session.eio_sid, packet.namespace, packet.text)
        elif packet.type == packets.DISCONNECT:
            await self._handle_disconnect(session.eio_sid, packet.namespace)
        elif packet.type == packets.EVENT:
            self._take_event(session, packet)
        elif packet.type == packets.ACK:
            self.forged_acks += 1  # we ask for none
        elif packet.type in (packets.BINARY_EVENT, packets.BINARY_ACK):
            if packet.namespace not in session.connections:
                raise ProtocolViolationError("binary before the connect")
            parsed = packets.parse(packet.text)
            packets.check_placeholders(parsed, packet.attachments)
            if packet.attachments:
                session.binary = (packet, parsed, 0)
            else:
                self._take_binary(session, packet, parsed)
        else:
            raise ProtocolViolationError("a packet that only servers send")

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
            self._offended(session)
            return
        parsed = packets.parse(packet.text)
        event = name_of_event(parsed)
        payload = parsed[1] if len(parsed) == 2 else None  # noqa: PLR2004 - name and payload
        if not isinstance(payload, dict):
            invalid = PayloadInvalidError.of("$", "must be exactly one JSON object")
            self._refuse(connection, packet.id, invalid)
            self._offended(session)
            return
        session.active_at = time.monotonic()

        async def work() -> None:
            CONNECTION.set(connection)
            answer = await self._door.answer(
                connection.principal, connection.namespace, event, payload
            )
            if packet.id is not None:
                connection.reply(packets.ack_packet(connection.namespace, packet.id, answer))
            if isinstance(answer, Offence):
                self._offended(session)

        if not session.lanes.submit(lane_of(payload), size, work):
            limited = RateLimitedError("Too many commands wait already.", retry_after_ms=1000)
            self._refuse(connection, packet.id, limited)

    def _refuse(self, connection: Connection, ack_id: int | None, error: DomainError) -> None:
        if ack_id is not None:
            answer = orjson.dumps({"ok": False, "error": self._door.refuse(error)})
            connection.reply(packets.ack_packet(connection.namespace, ack_id, answer))

    def _offended(self, session: Session) -> None:
        if self.census is not None and session.offences.add(self.census.offences(session.first)):
            log.info("too_many_offences", address=session.handshake.address)
            reason = "Too many commands that make no sense."
            self.end(session, RateLimitedError.code, reason, "backoff")

    async def _handle_connect(self, eio_sid: str, namespace: str, data: Any) -> None:
        """Authenticate, subscribe, and only then register: a failure of any kind is a refusal."""
        session = self.sessions[eio_sid]
        if namespace in session.connections or namespace in session.connecting:
            raise ProtocolViolationError("a namespace connected twice")
        auth = packets.parse(data) if data else None
        session.connecting.add(namespace)
        try:
            connection = await self._accept(session, namespace, auth)
        except Refused as refused:
            refuse_connect(session, namespace, refused.error, self._refusal_s)
            return
        except Exception as error:  # noqa: BLE001 - the door tells refusals from bugs
            refuse_connect(session, namespace, self._door.refuse(error), self._refusal_s)
            return
        session.connecting.discard(namespace)
        if eio_sid not in self.sessions or session.ended:
            await self._forget(connection)
            return
        session.connections[namespace] = connection
        session.left.discard(namespace)
        accepted = packets.control_packet(
            packets.CONNECT, namespace, connected(connection.session_id)
        )
        if session.in_limbo:
            connection.reply(accepted)
            return
        session.has_namespace()
        connection.open(accepted, self._ready(connection))
        session.tell_rotated(self._clock)

    def _ready(self, connection: Connection) -> packets.Outgoing:
        welcome = self._door.welcome(connection.principal, connection.session_id)
        fact = own_fact(self._clock, "session.ready", welcome)
        return packets.event_packet(connection.namespace, "session.ready", fact)

    async def renew(
        self, session: Session, shown: tuple[str, object], principal: Principal
    ) -> None:
        """Put another credential of the same user in the place of all that a connection has.

        Raises:
            Exception: the connection was in limbo, and its rooms can't be read now.
        """
        if session.in_limbo:
            for connection in list(session.connections.values()):
                connection.principal = principal
                await self._arrivals.enter(connection)
                if session.connections.get(connection.namespace) is not connection:
                    self._arrivals.leave(connection)  # it left meanwhile
        session.first = principal
        session.verified = {shown: principal}
        session.expiry_told = None
        was_in_limbo, session.in_limbo = session.in_limbo, False
        session.has_namespace()
        for connection in session.connections.values():
            connection.principal = principal
            if was_in_limbo:
                connection.open(self._ready(connection))
            else:
                connection.open()

    async def _accept(self, session: Session, namespace: str, auth: Any) -> Connection:
        if self.draining:
            raise DrainingError
        if namespace not in self.namespaces:
            raise NamespaceUnknownError(where_to(namespace, self.namespaces))
        async with self._places.taken():
            return await self._let_in(session, namespace, auth)

    async def _let_in(self, session: Session, namespace: str, auth: Any) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_S):
                principal = await self._authenticate(session, namespace, auth)
                sid = await self.manager.pre_connect(session.eio_sid, namespace)
                connection = Connection(namespace, principal, sid, session.socket.queue, session)
                await self.manager.connect(sid, namespace)
                try:
                    if not session.in_limbo:
                        await self._arrivals.enter(connection)
                except BaseException:
                    await self._forget(connection)
                    raise
        except TimeoutError as error:
            raise UnavailableError from error
        return connection

    async def _authenticate(self, session: Session, namespace: str, auth: Any) -> Principal:
        shown = None
        if isinstance(auth, dict) and isinstance(auth.get("token"), str):
            client = auth.get("client")
            shown = (auth["token"], client if isinstance(client, str) else None)
            known = session.verified.get(shown)
            if known is not None and (session.in_limbo or not self._is_over(known)):
                return known
        accepted = await self._door.accept(namespace, session.handshake, auth, session.first)
        if session.first is None and self.census is not None:
            self.census.enter(session, accepted.principal)
        self._note(session, accepted)
        if shown is not None:
            session.verified[shown] = accepted.principal
        return accepted.principal

    def _note(self, session: Session, accepted: Accepted) -> None:
        session.first = session.first or accepted.principal
        session.rotated = session.rotated or accepted.rotated
        if accepted.in_limbo:
            session.enter_limbo(
                LIMBO_S,
                lambda: self.end(session, "auth.expired", "The key has expired.", "never"),
            )

    def _is_over(self, principal: Principal) -> bool:
        ends = principal.expires_at
        return ends is not None and ends <= self._clock().timestamp()

    async def _handle_disconnect(
        self,
        eio_sid: str,
        namespace: str,
        reason: str | None = None,  # noqa: ARG002 - stock
    ) -> None:
        session = self.sessions.get(eio_sid)
        connection = session.connections.pop(namespace, None) if session is not None else None
        if session is None or connection is None:
            return
        session.left.add(namespace)
        await self._forget(connection)
        if not session.connections:
            session.expect_namespace(self._first_namespace_s)

    async def _forget(self, connection: Connection) -> None:
        self._arrivals.leave(connection)
        await self.manager.disconnect(connection.session_id, connection.namespace)


def _name(session: Session) -> str:
    return session.first.name if session.first is not None else ""
