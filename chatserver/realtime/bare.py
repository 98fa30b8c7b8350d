"""The engine alone, beneath python-socketio's interface: no product features, handlers as usual."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson
import socketio
import structlog
from aiohttp import web

from chatserver.realtime import handlers, packets
from chatserver.realtime.driver import environ_of
from chatserver.realtime.engine_answers import Origins
from chatserver.realtime.engine_server import EngineServer
from chatserver.realtime.engine_socket import CLIENT_DISCONNECT, SERVER_DISCONNECT, EngineSocket
from chatserver.realtime.errors import ProtocolViolationError
from chatserver.realtime.link import Link
from chatserver.realtime.manager import LocalManager, Member
from chatserver.realtime.packets import Outgoing, Received

log = structlog.get_logger(__name__)

MAX_ATTACHMENTS: Final = 10  # as in the reference implementation's parser
CALL_S: Final = 60.0


class BareServer(socketio.AsyncServer):
    """What `create_server` makes.

    Events of one socket and namespace run one after the other, in the order they came, behind the
    connect; other namespaces and sockets don't wait for them. Acks are taken at once, so a
    handler may `call` its own client.
    """

    manager: LocalManager
    eio: EngineServer

    def __init__(
        self,
        *,
        connect_timeout: float,
        namespaces: Sequence[str] | str | None,
        **engine: Any,
    ) -> None:
        quiet = logging.getLogger("chatserver.realtime.stock")
        quiet.setLevel(logging.CRITICAL)  # it would write session ids, which are credentials
        super().__init__(
            client_manager=LocalManager(),
            namespaces=namespaces if isinstance(namespaces, str) else list(namespaces or ["/"]),
            logger=quiet,
            **engine,
        )
        self.links: dict[str, Link] = {}
        self._connect_timeout = connect_timeout
        self.eio.opened = self._opened
        self.eio.message = self._message
        self.eio.closed = self._closed

    async def call(
        self,
        event: str,
        data: Any = None,
        to: str | None = None,
        sid: str | None = None,
        namespace: str | None = None,
        timeout: float = CALL_S,  # noqa: ASYNC109 - stock
        ignore_queue: bool = False,  # noqa: ARG002, FBT001, FBT002 - stock
    ) -> Any:
        """Send an event to one client and give what it acknowledges it with.

        Raises:
            ValueError: nobody is addressed.
            socketio.exceptions.TimeoutError: the ack didn't come, or there is no such client.
        """
        target = to or sid
        if target is None:
            raise ValueError("Cannot use call() to broadcast.")
        member = self.manager.member(target, namespace or "/")
        if member is None:
            raise socketio.exceptions.TimeoutError
        answered: asyncio.Future[tuple[Any, ...]] = asyncio.get_running_loop().create_future()

        def settle(*args: Any) -> None:
            if not answered.done():
                answered.set_result(args)

        arguments = [event, *(data if isinstance(data, tuple) else () if data is None else (data,))]
        number = self.manager.ask(member, arguments, settle)
        try:
            async with asyncio.timeout(timeout):
                args = await answered
        except TimeoutError as error:
            raise socketio.exceptions.TimeoutError from error
        finally:
            member.callbacks.pop(number, None)
        return args if len(args) > 1 else args[0] if args else None

    async def disconnect(
        self,
        sid: str,
        namespace: str | None = None,
        ignore_queue: bool = False,  # noqa: ARG002, FBT001, FBT002 - stock
    ) -> None:
        """Send a client out of a namespace; its `disconnect` handler has run when this returns."""
        namespace = namespace or "/"
        member = self.manager.member(sid, namespace)
        link = self.links.get(member.socket.sid) if member is not None else None
        if member is None or link is None or member.is_leaving or not member.is_accepted:
            return
        member.send(packets.control_packet(packets.DISCONNECT, namespace))
        link.members.pop(namespace, None)
        link.left[namespace] = None
        link.leaving += 1
        await self._say_goodbye(link, member, SERVER_DISCONNECT)

    def _engineio_server_class(self) -> type[EngineServer]:
        return EngineServer

    async def _send_packet(self, eio_sid: str, pkt: Any) -> None:
        encoded = pkt.encode()
        text, *attachments = encoded if isinstance(encoded, list) else [encoded]
        self.eio.put(eio_sid, Outgoing(b"4" + text.encode(), attachments=attachments))

    def _opened(self, socket: EngineSocket, request: web.Request) -> None:
        link = self.links[socket.sid] = Link(socket)
        self.environ[socket.sid] = environ_of(request)
        if self.eio.message == self._message:  # else it is used for Engine.IO alone
            link.deadline = asyncio.get_running_loop().call_later(self._connect_timeout, socket.end)

    def _closed(self, socket: EngineSocket, reason: str) -> None:
        link = self.links.pop(socket.sid, None)
        if link is None:
            return
        link.is_gone = True
        if link.deadline is not None:
            link.deadline.cancel()
        for namespace in list(link.members):
            self._leave(link, namespace, reason)
        self._let_go(link)

    def _let_go(self, link: Link) -> None:
        if link.is_gone and not link.leaving:
            self.environ.pop(link.socket.sid, None)
            self.eio.forget(link.socket.sid)

    def _message(self, socket: EngineSocket, data: str | bytes) -> Awaitable[None] | None:
        link = self.links.get(socket.sid)
        if link is None:
            return None
        if isinstance(data, bytes):
            self._take_attachment(link, data)
        elif link.binary is not None:
            raise ProtocolViolationError("text where an attachment was announced")
        else:
            self._take(link, packets.decode(data, max_attachments=MAX_ATTACHMENTS))
        return link.lanes.room() if link.lanes.is_full else None

    def _take(self, link: Link, packet: Received) -> None:
        if packet.type == packets.EVENT:
            member = self._member(link, packet)
            data = packets.parse_strict(packet.text)
            if member is not None:
                self._submit(link, member, packet, data)
        elif packet.type == packets.CONNECT:
            self._connect(link, packet)
        elif packet.type == packets.DISCONNECT:
            if packet.text:
                raise ProtocolViolationError("a goodbye says nothing more")
            self._leave(link, packet.namespace, CLIENT_DISCONNECT)
        elif packet.type == packets.ACK:
            member = self._member(link, packet)
            self._acknowledge(link, member, packet, packets.parse_strict(packet.text))
        elif packet.type in (packets.BINARY_EVENT, packets.BINARY_ACK):
            self._member(link, packet)
            data = packets.parse_strict(packet.text)
            packets.check_placeholders(data, packet.attachments)
            link.binary = (packet, data, [])
            if not packet.attachments:
                self._complete(link)
        else:
            raise ProtocolViolationError("a packet that only servers send")

    def _member(self, link: Link, packet: Received) -> Member | None:
        """Give whom a packet is for; None when he left while it was on its way."""
        member = link.members.get(packet.namespace)
        if member is None and packet.namespace not in link.left:
            raise ProtocolViolationError("not connected to this namespace")
        return member

    def _take_attachment(self, link: Link, data: bytes) -> None:
        if link.binary is None:
            raise ProtocolViolationError("an attachment that nothing announced")
        packet, _, attachments = link.binary
        attachments.append(data)
        if len(attachments) == packet.attachments:
            self._complete(link)

    def _complete(self, link: Link) -> None:
        assert link.binary is not None  # noqa: S101 - whoever calls has seen it
        packet, data, attachments = link.binary
        link.binary = None
        data = packets.restore(data, attachments)
        member = link.members.get(packet.namespace)
        if packet.type == packets.BINARY_ACK:
            self._acknowledge(link, member, packet, data)
        elif member is not None:
            self._submit(link, member, packet, data, sum(map(len, attachments)))

    def _acknowledge(self, link: Link, member: Member | None, packet: Received, data: Any) -> None:
        if not isinstance(data, list):
            raise ProtocolViolationError("an ack that is no list")
        callback = member.callbacks.get(packet.id) if member and packet.id is not None else None
        if member is None or callback is None:
            return
        # Beside the lanes of events: a handler may be waiting for just this.
        self._run(link, f"ack {packet.namespace}", 0, self._acked(member, packet.id, data))

    def _acked(
        self, member: Member, number: int | None, data: list[Any]
    ) -> Callable[[], Awaitable[None]]:
        return lambda: self.manager.acknowledge(member, number, data)

    def _connect(self, link: Link, packet: Received) -> None:
        namespace = packet.namespace
        if namespace in link.members:
            raise ProtocolViolationError("a namespace connected twice")
        auth = packets.parse_strict(packet.text) if packet.text else None
        if packet.text and not isinstance(auth, dict):
            raise ProtocolViolationError("a connect whose payload is no object")
        if not self._serves(namespace):
            self._refuse(link, namespace, {"message": "Invalid namespace"})
            return
        member = link.members[namespace] = self.manager.add(namespace, link.socket)
        self._run(link, namespace, len(packet.text), lambda: self._authenticate(link, member, auth))

    def _serves(self, namespace: str) -> bool:
        return (
            self.namespaces == "*"
            or namespace in self.namespaces
            or any(
                namespace in known or "*" in known
                for known in (self.handlers, self.namespace_handlers)
            )
        )

    async def _authenticate(self, link: Link, member: Member, auth: Any) -> None:
        """Run the connect handler. Whatever it raises is a refusal: nobody stays in by accident."""
        refusal: dict[str, Any] | None = None
        try:
            found, args = self._find(
                "connect", member.namespace, member.sid, self.environ.get(link.socket.sid), auth
            )
            if found is not None and await handlers.run_lifecycle(found, args) is False:
                refusal = socketio.exceptions.ConnectionRefusedError().error_args
        except socketio.exceptions.ConnectionRefusedError as error:
            refusal = error.error_args
        except ConnectionRefusedError:
            refusal = {"message": "Connection refused by server"}
        except Exception:
            log.exception("connect_handler_failed")
            refusal = {"message": "Internal server error"}
        if member.is_leaving:
            return  # gone meanwhile
        if refusal is not None:
            link.members.pop(member.namespace, None)
            self.manager.remove(member)
            self._refuse(link, member.namespace, refusal)
            return
        link.left.pop(member.namespace, None)
        if link.deadline is not None:
            link.deadline.cancel()
            link.deadline = None
        welcome = orjson.dumps({"sid": member.sid})
        member.accept(packets.control_packet(packets.CONNECT, member.namespace, welcome))

    def _refuse(self, link: Link, namespace: str, error: dict[str, Any]) -> None:
        body = orjson.dumps(error, default=str)
        link.socket.send(packets.control_packet(packets.CONNECT_ERROR, namespace, body))

    def _submit(
        self, link: Link, member: Member, packet: Received, data: Any, more: int = 0
    ) -> None:
        if not isinstance(data, list) or not data:
            raise ProtocolViolationError("an event that is no list")
        name, *args = data
        if isinstance(name, bool) or not isinstance(name, str | int) or name in packets.RESERVED:
            raise ProtocolViolationError("an event without a name of its own")
        self._run(
            link,
            packet.namespace,
            len(packet.text) + more,
            lambda: self._handle(member, str(name), args, packet.id),
        )

    async def _handle(
        self, member: Member, event: str, args: list[Any], ack_id: int | None
    ) -> None:
        """Run an event's handler; whoever asked for an ack gets one, whatever happens."""
        if not member.is_accepted:
            return  # sent while the connect was being refused
        try:
            found, given = self._find(event, member.namespace, member.sid, *args)
            if found is None:
                answer = [_failure("event.unknown", f"Nothing handles {event!r}.")]
            else:
                answer = _answer(await handlers.run(found, given))
            packet = packets.data_packet(packets.ACK, member.namespace, answer, ack_id)
        except Exception:
            log.exception("event_handler_failed")
            answer = [_failure("internal.error", "The handler failed.")]
            packet = packets.data_packet(packets.ACK, member.namespace, answer, ack_id)
        if ack_id is not None:
            member.send(packet)

    def _leave(self, link: Link, namespace: str, reason: str) -> None:
        member = link.members.pop(namespace, None)
        if member is None:
            return
        link.left[namespace] = None
        member.is_leaving = True
        link.leaving += 1
        self._run(link, namespace, 0, lambda: self._say_goodbye(link, member, reason))

    async def _say_goodbye(self, link: Link, member: Member, reason: str) -> None:
        """Run the disconnect handler, which may still ask for rooms and session, then forget."""
        member.is_leaving = True
        try:
            if member.is_accepted:
                found, args = self._find("disconnect", member.namespace, member.sid, reason)
                if found is not None:
                    await handlers.run_lifecycle(found, args)
        except Exception:
            log.exception("disconnect_handler_failed")
        finally:
            self.manager.remove(member)
            link.leaving -= 1
            self._let_go(link)

    def _find(self, event: str, namespace: str, *args: Any) -> tuple[Any, tuple[Any, ...]]:
        return handlers.find(self.handlers, self.namespace_handlers, event, namespace, args)

    def _run(self, link: Link, lane: str, size: int, work: Callable[[], Awaitable[None]]) -> None:
        link.lanes.submit(lane, size, work, always=True)


def create_server(
    *,
    ping_interval: float = 25,
    ping_timeout: float = 20,
    connect_timeout: float = 45,
    max_http_buffer_size: int = 1_000_000,
    cors_allowed_origins: Origins = None,
    namespaces: Sequence[str] | str | None = None,
) -> socketio.AsyncServer:
    """Make the bare engine: `attach` it to an aiohttp app and register handlers as usual.

    Args:
        ping_interval: seconds between two pings.
        ping_timeout: seconds a client has for its pong.
        connect_timeout: seconds a client has to connect its first namespace.
        max_http_buffer_size: bytes of the largest message, by either transport.
        cors_allowed_origins: pages that may connect: `*` all, None the server's own, otherwise a
            list or a function of the origin.
        namespaces: those that are served even without a handler; `*` for any. `/` if not given.
    """
    return BareServer(
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        connect_timeout=connect_timeout,
        max_http_buffer_size=max_http_buffer_size,
        cors_allowed_origins=cors_allowed_origins,
        namespaces=namespaces,
    )


def _answer(returned: Any) -> list[Any]:
    if returned is None:
        return []
    return list(returned) if isinstance(returned, tuple) else [returned]


def _failure(code: str, message: str) -> dict[str, Any]:
    return {"ok": False, "error": {"code": code, "message": message}}
