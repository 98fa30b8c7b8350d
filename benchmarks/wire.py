"""A Socket.IO client made of frames by hand, cheap enough not to be what is measured.

Every text that is sent carries `~sender~number~nanoseconds~`, so that whoever receives it knows at
once how long it took and whether something is missing, came twice or came in another order.
"""

import asyncio
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import orjson

_MARK: Final = b"~"
_ROTATED: Final = b'["auth.rotated"'
_FILLER: Final = "x" * 60
_UPGRADE: Final = (
    "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_TEXT: Final = 0x81
_SHORT: Final = 126
_LONG: Final = 127
_CLOSE: Final = 8
_ORDER_MASK: Final = (1 << 61) - 1
_WAIT_S: Final = 30.0


def frame(text: bytes) -> bytes:
    """A client's text frame. Its mask is zero, which is allowed and changes nothing."""
    size = len(text)
    if size < _SHORT:
        return bytes((_TEXT, 0x80 | size)) + b"\0\0\0\0" + text
    return bytes((_TEXT, 0x80 | _SHORT)) + size.to_bytes(2, "big") + b"\0\0\0\0" + text


@dataclass
class Tally:
    """What all sockets of one run saw together."""

    deliveries: int = 0
    bytes_received: int = 0
    acks: int = 0
    refused: int = 0
    lost: int = 0
    repeated: int = 0
    closed: int = 0
    delivery_ns: "array[int]" = field(default_factory=lambda: array("q"))
    ack_ns: "array[int]" = field(default_factory=lambda: array("q"))

    def reset(self) -> None:
        self.__init__()  # type: ignore[misc]


class Socket(asyncio.Protocol):
    """One connection. `order` is a running hash of what it was told, in the order of telling."""

    def __init__(self, port: int, tally: Tally) -> None:
        self._port = port
        self._tally = tally
        self._rest = b""
        self._is_open = False
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._asked: dict[int, int] = {}
        self._seen: dict[bytes, int] = {}
        self._ack_id = 0
        # The key to come with the next time.
        self.handed_out = ""
        self.order = 0

    async def connect(self, connects: Sequence[tuple[str, Any]], *, ready: bool) -> None:
        """Open the WebSocket and the namespaces; `ready` waits for `session.ready` in each."""
        loop = asyncio.get_running_loop()
        opened = self._expect(b"0{")
        await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        await asyncio.wait_for(opened, _WAIT_S)
        answers = []
        for namespace, auth in connects:
            name = namespace.encode()
            answers.append(self._expect(b"40" + name + b","))
            if ready:
                answers.append(self._expect(b"42" + name + b',["session.ready"'))
            self.send(b"40" + name + b"," + orjson.dumps(auth))
        await asyncio.wait_for(asyncio.gather(*answers), _WAIT_S)

    async def call(self, event: str, payload: Any) -> Any:
        self._ack_id += 1
        head = b"43/chat,%d[" % self._ack_id
        answer = self._expect(head)
        self.send(b"42/chat,%d" % self._ack_id + orjson.dumps([event, payload]))
        return orjson.loads((await asyncio.wait_for(answer, _WAIT_S))[len(head) - 1 :])[0]

    def say(self, sender: int, number: int, event: str, room: str, more: str = "") -> bytes:
        """Give the frame of one message, which is to be acknowledged."""
        self._ack_id += 1
        now = time.monotonic_ns()
        self._asked[self._ack_id] = now
        text = f"~{sender:05d}~{number:07d}~{now:019d}~{_FILLER}"
        return frame(
            f'42/chat,{self._ack_id}["{event}",'
            f'{{"room_id":"{room}","content":"{text}"{more}}}]'.encode()
        )

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def send(self, text: bytes) -> None:
        self._transport.write(frame(text))

    def close(self) -> None:
        self._transport.abort()

    @property
    def unanswered(self) -> int:
        """How many messages wait for their ack."""
        return len(self._asked)

    def forget(self) -> None:
        """Begin to count anew."""
        self.order = 0
        self._asked.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(_UPGRADE.format(port=self._port).encode())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        self._tally.closed += 1
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at = 0
        if not self._is_open:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self._rest = data
                return
            self._is_open = True
        now = time.monotonic_ns()
        size = len(data)
        while size - at >= 2:  # a frame's shortest head
            length = data[at + 1]
            start = at + 2
            if length == _SHORT:
                start += 2
                length = int.from_bytes(data[at + 2 : start], "big")
            elif length == _LONG:
                start += 8
                length = int.from_bytes(data[at + 2 : start], "big")
            end = start + length
            if end > size:
                break
            self._on_text(data[start:end], now)
            at = end
        self._rest = data[at:]

    def _on_text(self, text: bytes, now: int) -> None:
        mark = text.find(_MARK)
        if mark > 0 and text[1] == 0x32:  # "42": an event
            tally = self._tally
            tally.deliveries += 1
            tally.bytes_received += len(text)
            sender = text[mark + 1 : mark + 6]
            number = int(text[mark + 7 : mark + 14])
            tally.delivery_ns.append(now - int(text[mark + 15 : mark + 34]))
            self.order = (self.order * 1000003 + hash(sender) + number) & _ORDER_MASK
            before = self._seen.get(sender, -1)
            if number == before + 1:
                self._seen[sender] = number
            elif number <= before:
                tally.repeated += 1
            else:
                tally.lost += number - before - 1
                self._seen[sender] = number
        elif text.startswith(b"43/chat,"):
            self._on_ack(text, now)
        elif text == b"2":
            self.send(b"3")
        elif text.find(_ROTATED, 0, 40) > 0:
            self.handed_out = orjson.loads(text[text.index(b"[") :])[1]["data"]["key"]
        elif self._waiting:
            self._settle(text)

    def _on_ack(self, text: bytes, now: int) -> None:
        if self._waiting and self._settle(text):
            return
        number = int(text[8 : text.index(b"[")])
        asked = self._asked.pop(number, None)
        if asked is None:
            return
        if b'"ok":true' in text[:64]:
            self._tally.acks += 1
            self._tally.ack_ns.append(now - asked)
        else:
            self._tally.refused += 1

    def _expect(self, start: bytes) -> "asyncio.Future[bytes]":
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[start] = future
        return future

    def _settle(self, text: bytes) -> bool:
        for start, future in self._waiting.items():
            if text.startswith(start):
                del self._waiting[start]
                if not future.done():
                    future.set_result(text)
                return True
        return False
