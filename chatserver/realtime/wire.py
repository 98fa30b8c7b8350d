"""A WebSocket after its handshake (RFC 6455): frames in, messages out, and nobody who waits.

aiohttp keeps a task, a request, a response, a queue and two parsers for every WebSocket. Here is
one object, which the transport tells what came: it needs a quarter of the memory, and a message is
handled in the turn that brought it.
"""

import asyncio
import time
from collections.abc import Awaitable
from struct import Struct
from typing import Final, Protocol

import structlog
from aiohttp._websocket.helpers import websocket_mask

from chatserver.realtime.packets import CLOSE_FRAME, websocket_frame

log = structlog.get_logger(__name__)

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

PROTOCOL_ERROR: Final = 1002
NOT_UTF_8: Final = 1007
TOO_BIG: Final = 1009

# What a peer may send while its last packet is still being handled.
READ_AHEAD: Final = 64 * 1024
# However many frames one segment brings, others have their turn; looked at every so many frames.
TURN_S: Final = 0.002
LOOK_EVERY: Final = 32
# A peer that doesn't read is not told that it is heard.
PONG_BELOW: Final = 64 * 1024
# So long a peer may take to answer a close, then it is cut.
HANG_UP_S: Final = 2.0
_FINAL: Final = 0x80
_RESERVED: Final = 0x70
_OPCODE: Final = 0x0F
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_SHORT: Final = 125
_MEDIUM: Final = 126
_HEAD: Final = 2
_MASK: Final = 4
_U16 = Struct(">H").unpack_from
_U64 = Struct(">Q").unpack_from
_CLOSE_HEAD = Struct(">BBH").pack


class Peer(Protocol):
    """Whose WebSocket it is."""

    def receive(self, message: str | bytes) -> Awaitable[None] | None:
        """Take a message; what comes back is awaited before the next is read."""
        ...

    def tick(self) -> None:
        """Hear of a frame that is no message: too many of them are as bad as too many messages."""
        ...

    def gone(self, farewell: bytes) -> None:
        """Hear, once, that nothing more will come: say what is to be said, and this frame."""
        ...


class WebSocketFault(Exception):  # noqa: N818 - it is the peer's
    """A frame that the protocol forbids; `code` says what about it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class WebSocketWire(asyncio.Protocol):
    """Reads frames for a peer. Whoever writes to the transport writes whole frames."""

    __slots__ = (
        "_busy", "_deaf", "_is_text", "_limit", "_need", "_parts", "_peer", "_rest", "transport",
    )  # fmt: skip

    def __init__(self, transport: asyncio.Transport, limit: int, peer: Peer) -> None:
        """`limit`: the largest message, in bytes; `peer` may be exchanged, see `talk_to`."""
        self.transport = transport
        self._limit = limit
        self._peer: Peer | None = peer
        # What of a frame has come so far; `_need` is how much of it is needed to go on.
        self._rest: bytes | bytearray = b""
        self._need = _HEAD
        self._parts: bytearray | None = None
        self._is_text = True
        self._busy: asyncio.Task[None] | None = None
        self._deaf = False

    def talk_to(self, peer: Peer) -> None:
        self._peer = peer

    def hang_up(self) -> None:
        """Say goodbye, and wait for the answer only so long."""
        if not self.transport.is_closing():
            self.transport.write(CLOSE_FRAME)
        self._leave()

    def data_received(self, data: bytes) -> None:
        if self._peer is None:
            return
        if self._busy is not None or self._rest:
            if not isinstance(self._rest, bytearray):
                self._rest = bytearray(self._rest)
            self._rest += data
            if self._busy is not None:
                if len(self._rest) > READ_AHEAD:
                    self.transport.pause_reading()
                return
            if len(self._rest) < self._need:
                return
            data, self._rest = bytes(self._rest), b""
        waiting = self._read(data)
        if waiting is not None:
            self._busy = asyncio.create_task(self._settle(waiting))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._rest, self._parts = b"", None
        self._part()

    def _read(self, data: bytes) -> Awaitable[None] | None:
        """Take frames off `data` until something is to be awaited, or there are no more."""
        try:
            self._rest, waiting = self._frames(data)
        except WebSocketFault as fault:
            self._refuse(fault.code)
            return None
        return waiting

    def _frames(self, data: bytes) -> tuple[bytes, Awaitable[None] | None]:
        at, size, taken = 0, len(data), 0
        began = time.monotonic()
        while True:
            if size - at < _HEAD:
                self._need = _HEAD
                return data[at:], None
            first, second = data[at], data[at + 1]
            start = at + _HEAD
            length = second & _LENGTH
            if length > _SHORT:
                width = 2 if length == _MEDIUM else 8
                if size - start < width:
                    self._need = _HEAD + width
                    return data[at:], None
                (length,) = _U16(data, start) if width == 2 else _U64(data, start)  # noqa: PLR2004
                start += width
            self._check(first, second, length)
            end = start + _MASK + length
            if end > size:
                self._need = end - at
                return data[at:], None
            payload = bytearray(data[start + _MASK : end])
            websocket_mask(data[start : start + _MASK], payload)
            at = end
            waiting = self._take(first, payload)
            if self._peer is None:
                return b"", waiting
            taken += 1
            if waiting is None and taken % LOOK_EVERY == 0 and time.monotonic() - began >= TURN_S:
                waiting = asyncio.sleep(0)
            if waiting is not None:
                return data[at:], waiting

    def _check(self, first: int, second: int, length: int) -> None:
        """Look at a frame's head: nothing of what it announces is read if it may not be."""
        if first & _RESERVED or not second & _MASKED:
            raise WebSocketFault(PROTOCOL_ERROR)
        opcode = first & _OPCODE
        if opcode >= CLOSE:
            if not first & _FINAL or length > _SHORT or opcode > PONG:
                raise WebSocketFault(PROTOCOL_ERROR)
        elif opcode > BINARY or (opcode == CONTINUATION) == (self._parts is None):
            raise WebSocketFault(PROTOCOL_ERROR)
        elif length + (len(self._parts) if self._parts is not None else 0) > self._limit:
            raise WebSocketFault(TOO_BIG)

    def _take(self, first: int, payload: bytearray) -> Awaitable[None] | None:
        opcode = first & _OPCODE
        if first & _FINAL and TEXT <= opcode <= BINARY:
            return self._hand_on(payload, is_text=opcode == TEXT)
        if opcode <= BINARY:
            return self._collect(first, opcode, payload)
        if opcode == CLOSE:
            self._hear_close(payload)
        else:
            self._tick()
            if opcode == PING and not self._deaf:
                self._answer(payload)
        return None

    def _collect(self, first: int, opcode: int, payload: bytearray) -> Awaitable[None] | None:
        """Put a message together that comes in several frames."""
        self._tick()
        if self._parts is None:
            self._parts, self._is_text = payload, opcode == TEXT
        else:
            self._parts += payload
        if not first & _FINAL:
            return None
        whole, self._parts = self._parts, None
        return self._hand_on(whole, is_text=self._is_text)

    def _hand_on(self, payload: bytearray, *, is_text: bool) -> Awaitable[None] | None:
        if self._deaf or self._peer is None:
            return None
        if not is_text:
            return self._peer.receive(bytes(payload))
        try:
            text = payload.decode()
        except UnicodeDecodeError as error:
            raise WebSocketFault(NOT_UTF_8) from error
        return self._peer.receive(text)

    def _tick(self) -> None:
        if self._peer is not None:
            self._peer.tick()

    def _answer(self, payload: bytearray) -> None:
        if self.transport.get_write_buffer_size() < PONG_BELOW:
            self.transport.write(websocket_frame(bytes(payload), _FINAL | PONG))

    def _hear_close(self, payload: bytearray) -> None:
        if len(payload) == 1:
            raise WebSocketFault(PROTOCOL_ERROR)
        self._part()
        self.transport.close()

    async def _settle(self, waiting: Awaitable[None] | None) -> None:
        """Go on until nothing is to be awaited any more; what comes meanwhile is put aside."""
        try:
            while waiting is not None:
                await waiting
                waiting = None
                if self._peer is not None:
                    data, self._rest = bytes(self._rest), b""
                    if len(data) > READ_AHEAD and not self.transport.is_closing():
                        self.transport.resume_reading()
                    waiting = self._read(data)
        except Exception:
            log.exception("packet_failed")
            self.transport.abort()
        finally:
            self._busy = None

    def _refuse(self, code: int) -> None:
        """End a connection whose frames can't be told apart any more."""
        self._part(_CLOSE_HEAD(_FINAL | CLOSE, 2, code))
        self._leave()

    def _part(self, farewell: bytes = CLOSE_FRAME) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.gone(farewell)

    def _leave(self) -> None:
        self._deaf = True
        asyncio.get_running_loop().call_later(HANG_UP_S, self.transport.abort)
