"""One Engine.IO connection: python-engineio's socket, with its holes closed."""

import asyncio
import contextlib
import time
from typing import Any, Final

from aiohttp import WSMsgType, web
from engineio import exceptions, packet
from engineio.async_socket import AsyncSocket

from chatserver.realtime.errors import ProtocolViolationError
from chatserver.realtime.packets import Outgoing, decode_frame, decode_payload
from chatserver.realtime.queue import OutQueue

PROBE_S: Final = 10.0
CUT_AFTER_S: Final = 2.0
NOOP_PAUSE_S: Final = 0.1
# python-engineio's own client refuses more; JavaScript's takes any number.
PACKETS_PER_POLL: Final = 16
FRAMES_PER_S: Final = 2000
FRAMES_BURST: Final = 10_000
TELLING: Final = frozenset({WSMsgType.TEXT, WSMsgType.BINARY})


class EngineSocket(AsyncSocket):
    """What differs from stock: nothing waits for a peer, nothing a peer sends is believed.

    `server` is `EngineServer`; it is told of messages, of violations and of full queues.
    """

    queue: OutQueue
    connected: bool
    upgrading: bool
    upgraded: bool
    closing: bool
    closed: bool

    def __init__(self, server: Any, sid: str) -> None:
        super().__init__(server, sid)
        self.queue.on_full = lambda: server.full(sid)
        self.live: asyncio.BaseTransport | None = None
        self.ending = False
        self._polling = False
        self._posting = False
        self._frames = float(FRAMES_BURST)
        self._frames_at = time.monotonic()

    def end(self, *last: packet.Packet, after_s: float = 0) -> None:
        """Send these even if the queue is full, and close so that a stock client connects again.

        A WebSocket is closed, a poll is refused. The engine's own CLOSE would do for JavaScript's
        client, but Python's takes it for good.
        """
        if self.closed or self.ending:
            return
        self.queue.last(*last)
        if after_s:
            asyncio.get_running_loop().call_later(after_s, self._end)
        else:
            self._end()

    def _end(self) -> None:
        if self.closed or self.ending:
            return
        self.ending = True
        self.queue.finish()
        asyncio.get_running_loop().call_later(CUT_AFTER_S, self.cut)

    def cut(self) -> None:
        """End it now, whether the peer reads or not."""
        if self.live is not None:
            self.live.abort()  # type: ignore[attr-defined]  # the reader then closes the rest
        if not self.closed and not self.closing:
            self.server.start_background_task(self.close, abort=True)

    async def close(
        self,
        wait: bool = True,  # noqa: ARG002, FBT001, FBT002 - stock
        abort: bool = False,  # noqa: FBT001, FBT002 - stock
        reason: str | None = None,
    ) -> None:
        if self.closed or self.closing:
            return
        self.closing = True
        try:
            await self.server._trigger_event(
                "disconnect",
                self.sid,
                reason or self.server.reason.SERVER_DISCONNECT,
                run_async=False,
            )
        finally:
            self.closed = True
            self.server.sockets.pop(self.sid, None)
            self.queue.finish(*(() if abort else (packet.Packet(packet.CLOSE),)))
            if self.live is not None:
                asyncio.get_running_loop().call_later(CUT_AFTER_S, self.live.abort)  # type: ignore[attr-defined]

    async def take(self, received: packet.Packet) -> None:
        """Handle one packet.

        Raises:
            ProtocolViolationError: it may not be here.
        """
        self._count()
        if received.packet_type == packet.MESSAGE:
            await self.server.message(self.sid, received.data)
        elif received.packet_type == packet.PONG:
            self.schedule_ping()
        elif received.packet_type == packet.CLOSE:
            await self.close(abort=True, reason=self.server.reason.CLIENT_DISCONNECT)
        else:
            raise ProtocolViolationError("an Engine.IO packet out of place")

    async def handle_get_request(self, environ: dict[str, Any]) -> Any:
        if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
            return await self._upgrade_websocket(environ)
        if self._polling:
            self.server.violated(self.sid, "two polls at once")
            raise exceptions.EngineIOError
        self._polling = True
        try:
            if self.upgrading:
                await asyncio.sleep(NOOP_PAUSE_S)
                return [packet.Packet(packet.NOOP)]
            packets = await self.poll()
        finally:
            self._polling = False
        if self.ending and self.queue.empty() and not self.closed:
            await self.close(abort=True)
        return packets

    async def handle_post_request(self, environ: dict[str, Any]) -> None:
        if self._posting:
            self.server.violated(self.sid, "two posts at once")
            raise self._refused()
        self._posting = True
        try:
            for received in decode_payload(await environ["wsgi.input"].read()):
                if self.closed or self.ending:
                    break
                await self.take(received)
        except ProtocolViolationError as error:
            self.server.violated(self.sid, str(error))
            raise self._refused() from error
        finally:
            self._posting = False

    def _refused(self) -> Exception:
        # The stock server answers 400 only for a sid that it still knows; without it, it crashes.
        self.server.sockets.setdefault(self.sid, self)
        refused: Exception = exceptions.EngineIOError()
        return refused

    async def poll(self) -> list[packet.Packet]:
        """Wait for packets, and give as many as a stock client of any language takes at once."""
        try:
            async with asyncio.timeout(self.server.ping_interval + self.server.ping_timeout):
                packets = [await self.queue.get()]
        except TimeoutError as error:
            raise exceptions.QueueEmpty from error
        while len(packets) < PACKETS_PER_POLL and not self.queue.empty():
            packets.append(self.queue.get_nowait())
        return [each for each in packets if each is not None]

    async def _upgrade_websocket(self, environ: dict[str, Any]) -> Any:
        if self.upgraded or self.upgrading or self.ending:
            return await self.server.refuse(environ, "Upgraded already")
        request: web.Request = environ["aiohttp.request"]
        socket = web.WebSocketResponse(
            max_msg_size=self.server.max_http_buffer_size, compress=False, timeout=CUT_AFTER_S
        )
        await socket.prepare(request)
        try:
            if not self.connected or await self._probe(socket):
                # After an upgrade the request knows no transport: this is what `cut` aborts.
                self.live = request.transport
                await self._serve(socket)
        finally:
            await socket.close()
        return socket

    async def _probe(self, socket: web.WebSocketResponse) -> bool:
        """Do the upgrade's handshake; a WebSocket that stays silent holds nothing up."""
        try:
            async with asyncio.timeout(PROBE_S):
                if (await socket.receive()).data != "2probe" or self.upgraded or self.upgrading:
                    return False
                self.upgrading = True
                await socket.send_str("3probe")
                if self._polling:
                    self.queue.put_nowait(packet.Packet(packet.NOOP))
                if (await socket.receive()).data != "5" or self.closed:
                    return False
                self.upgraded = True
                return True
        except (TimeoutError, OSError):
            return False
        finally:
            self.upgrading = False

    async def _serve(self, socket: web.WebSocketResponse) -> None:
        self.connected = self.upgraded = True
        writer = asyncio.create_task(self._write(socket))
        try:
            await self._read(socket)
        finally:
            self.queue.finish()
            try:
                async with asyncio.timeout(CUT_AFTER_S):
                    await asyncio.wait({writer})
            except TimeoutError:
                writer.cancel()
            await self.close(abort=True, reason=self.server.reason.TRANSPORT_CLOSE)

    async def _read(self, socket: web.WebSocketResponse) -> None:
        while not self.closed and not self.ending:
            message = await socket.receive()
            if message.type not in TELLING:
                return
            try:
                await self.take(decode_frame(message.data))
            except ProtocolViolationError as error:
                self.server.violated(self.sid, str(error))

    async def _write(self, socket: web.WebSocketResponse) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while (item := await self.queue.get()) is not None:
                frame = item.frame if isinstance(item, Outgoing) else item.encode().encode()
                await socket.send_frame(frame, WSMsgType.TEXT)
            await socket.close()

    def _count(self) -> None:
        now = time.monotonic()
        self._frames = min(FRAMES_BURST, self._frames + (now - self._frames_at) * FRAMES_PER_S)
        self._frames_at = now
        if self._frames < 1:
            raise ProtocolViolationError("too many packets")
        self._frames -= 1
