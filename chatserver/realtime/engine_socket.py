"""One Engine.IO connection: parsed by hand, over polls or a WebSocket, upgraded from one to other.

Nothing waits for a peer here, and nothing a peer sends is believed.
"""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from aiohttp import web

from chatserver.realtime import engine_answers as answers
from chatserver.realtime.driver import Handed, on_lost, read_body, take_over
from chatserver.realtime.errors import ProtocolViolationError
from chatserver.realtime.outbox import Outbox
from chatserver.realtime.packets import (
    CLOSE,
    NOOP,
    PING,
    Outgoing,
    decode_frame,
    split_payload,
)
from chatserver.realtime.probe import Probe
from chatserver.realtime.wire import WebSocketWire

if TYPE_CHECKING:
    from chatserver.realtime.engine_server import EngineServer

CUT_AFTER_S: Final = 2.0
NOOP_PAUSE_S: Final = 0.1
# python-engineio's own client refuses more; JavaScript's takes any number.
PACKETS_PER_POLL: Final = 16
FRAMES: Final = 10_000
FRAMES_S: Final = 5.0

CLIENT_DISCONNECT: Final = "client disconnect"
SERVER_DISCONNECT: Final = "server disconnect"
PING_TIMEOUT: Final = "ping timeout"
TRANSPORT_CLOSE: Final = "transport close"
TRANSPORT_ERROR: Final = "transport error"


class EngineSocket:
    """`server` is told of messages, of violations, of full outboxes, and of the end."""

    __slots__ = (
        "__weakref__", "_frames", "_frames_since", "_is_polling", "_is_posting", "_reason",
        "_waiter", "closed", "due", "ending", "is_pinged", "live", "outbox", "server", "sid",
        "upgraded", "upgrading",
    )  # fmt: skip

    def __init__(self, server: "EngineServer", sid: str) -> None:
        self.server = server
        self.sid = sid
        self.outbox = Outbox(server.writer)
        self.outbox.on_full = self._full
        self.outbox.wake = self._wake
        self.live: asyncio.Transport | None = None
        self.closed = False
        self.ending = False
        self.upgraded = False
        self.upgrading = False
        self.due = 0.0
        self.is_pinged = False
        self._reason = TRANSPORT_CLOSE
        self._is_polling = False
        self._is_posting = False
        self._waiter: asyncio.Future[None] | None = None
        self._frames = 0
        self._frames_since = asyncio.get_running_loop().time()

    @property
    def transport(self) -> str:
        return "websocket" if self.upgraded else "polling"

    def send(self, packet: Outgoing) -> None:
        self.outbox.put_nowait(packet)

    def ping(self) -> None:
        self.outbox.put_nowait(PING)

    def silent(self) -> None:
        """Hear that no pong came in time."""
        self.close(PING_TIMEOUT, CLOSE)

    def end(self, *last: Outgoing, after_s: float = 0, reason: str = SERVER_DISCONNECT) -> None:
        """Send these even if the outbox is full, and close so that a stock client connects again.

        A WebSocket is closed, a poll is refused. The engine's own CLOSE would do for JavaScript's
        client, but Python's takes it for good.
        """
        if self.closed or self.ending:
            return
        self._reason = reason
        self.outbox.last(*last)
        if after_s:
            asyncio.get_running_loop().call_later(after_s, self._end)
        else:
            self._end()

    def cut(self) -> None:
        """End it now, whether the peer reads or not."""
        if self.live is not None:
            self.live.abort()
        self.close(self._reason)

    def abandon(self) -> None:
        """Say goodbye without waiting for an answer: aiohttp reads nothing while it shuts down."""
        live = self.live
        self.close(TRANSPORT_CLOSE, CLOSE)
        if live is not None:
            self.outbox.flush()
            live.close()

    def close(self, reason: str, *last: Outgoing) -> None:
        """Be gone for everyone at once; a poll or WebSocket that still stands hears `last`."""
        if self.closed:
            return
        self.closed = True
        self.server.sockets.pop(self.sid, None)
        if not self.outbox.finished:
            self.outbox.finish(*(() if self.upgraded else last))
        if self.live is not None:
            # Closed with the handshake that is due; whoever doesn't take part is cut.
            asyncio.get_running_loop().call_later(CUT_AFTER_S, self.live.abort)
        self.server.closed(self, reason)

    def take(self, frame: str | bytes) -> Awaitable[None] | None:
        """Handle one packet; what comes back is to be awaited before the next.

        Raises:
            ProtocolViolationError: it may not be here.
        """
        self._frames += 1
        if self._frames > FRAMES:
            self._check_flood()
        kind, data = decode_frame(frame)
        if kind == "4":
            return self.server.message(self, data)
        if kind == "3":
            if self.is_pinged:
                self.server.heartbeat.rest(self)
        elif kind == "1":
            self.close(CLIENT_DISCONNECT, NOOP)
        else:
            raise ProtocolViolationError("an Engine.IO packet out of place")
        return None

    async def poll(self, request: web.Request) -> web.Response:
        if self._is_polling:
            self.server.violated(self, "two polls at once")
            return answers.refused(answers.BAD_REQUEST)
        self._is_polling = True
        try:
            if self.upgrading:
                await asyncio.sleep(NOOP_PAUSE_S)
                packets = [NOOP]
            else:
                packets = await self._packets(request)
        finally:
            self._is_polling = False
        if self.ending and not self.outbox:
            self.close(self._reason)
        return answers.payload(b"\x1e".join([packet.polled for packet in packets]))

    async def post(self, request: web.Request) -> web.Response:
        if self._is_posting:
            self.server.violated(self, "two posts at once")
            return answers.refused(answers.BAD_REQUEST)
        self._is_posting = True
        try:
            body = await read_body(request, self.server.max_http_buffer_size)
            for part in split_payload(body, max_packets=self.server.max_packets):
                if self.closed or self.ending:
                    break
                waiting = self.take(part)
                if waiting is not None:
                    await waiting
        except ProtocolViolationError as error:
            self.server.violated(self, str(error))
            return answers.refused(answers.BAD_REQUEST)
        finally:
            self._is_posting = False
        return answers.taken()

    def serve(self, request: web.Request) -> web.StreamResponse:
        """Be a WebSocket from the start."""
        try:
            wire = take_over(request, self.server.max_http_buffer_size, self)
        except (web.HTTPException, OSError):
            self.close(TRANSPORT_ERROR)
            return answers.refused(answers.BAD_REQUEST)
        self.begin(wire)
        return Handed()

    def upgrade(self, request: web.Request) -> web.StreamResponse:
        """Become a WebSocket, if this one speaks as it should and is the first to."""
        probe = Probe(self)
        try:
            wire = take_over(request, self.server.max_http_buffer_size, probe)
        except (web.HTTPException, OSError):
            return answers.refused(answers.BAD_REQUEST)
        probe.start(wire)
        return Handed()

    def receive(self, message: str | bytes) -> Awaitable[None] | None:
        """Handle what a WebSocket brought."""
        if self.closed or self.ending:
            return None  # until the peer has closed, too
        try:
            waiting = self.take(message)
        except ProtocolViolationError as error:
            self.server.violated(self, str(error))
            return None
        return None if waiting is None else self._settle(waiting)

    def tick(self) -> None:
        self._frames += 1
        if self._frames > FRAMES:
            try:
                self._check_flood()
            except ProtocolViolationError as error:
                self.server.violated(self, str(error))

    def gone(self, farewell: bytes) -> None:
        self.live = None
        self.close(self._reason)
        self.outbox.flush(farewell)

    @property
    def is_settled(self) -> bool:
        """Whether it is too late for another WebSocket."""
        return self.upgraded or self.upgrading or self.ending or self.closed

    def begin(self, wire: WebSocketWire) -> None:
        """Go on over a WebSocket."""
        self.upgraded = True
        wire.talk_to(self)
        self.live = wire.transport
        self.outbox.connect(wire.transport)
        self.outbox.flush()  # in one write with the handshake's answer
        self._wake()

    def hurry(self) -> None:
        """Have a poll that waits answered: the client comes back over its WebSocket."""
        if self._is_polling:
            self.outbox.put_nowait(NOOP)

    async def _settle(self, waiting: Awaitable[None]) -> None:
        try:
            await waiting
        except ProtocolViolationError as error:
            self.server.violated(self, str(error))

    def _end(self) -> None:
        if self.closed or self.ending:
            return
        self.ending = True
        self.outbox.finish()
        asyncio.get_running_loop().call_later(CUT_AFTER_S, self.cut)

    def _full(self) -> None:
        self.server.full(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _packets(self, request: web.Request) -> list[Outgoing]:
        on_lost(request, self._hung_up)
        outbox = self.outbox
        while not outbox and not outbox.finished and not self.upgraded:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self.upgraded:
            return [NOOP]
        return outbox.take(PACKETS_PER_POLL) or [NOOP]

    def _hung_up(self, _: BaseException) -> None:
        """Hear that a poll's peer has gone: what it would have been told would be lost."""
        if self._waiter is not None and not self.upgraded:
            self.close(TRANSPORT_ERROR)

    def _check_flood(self) -> None:
        now = asyncio.get_running_loop().time()
        is_flood = now - self._frames_since < FRAMES_S
        self._frames, self._frames_since = 0, now
        if is_flood and self.server.stops_floods:
            raise ProtocolViolationError("too many packets")
