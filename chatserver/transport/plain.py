"""One plain WebSocket above its frames: its namespaces, its commands, what waits to be sent."""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import WSMsgType, web

from chatserver.kernel.clock import Clock
from chatserver.kernel.errors import (
    DomainError,
    PayloadTooLargeError,
    RateLimitedError,
    UnavailableError,
)
from chatserver.realtime import shapes
from chatserver.realtime.commands import lane_of
from chatserver.realtime.current import CONNECTION
from chatserver.realtime.hub import Connection
from chatserver.realtime.lanes import turn
from chatserver.realtime.packets import Outgoing, event_packet
from chatserver.realtime.ports import Door, Handshake, Offence
from chatserver.realtime.standing import Standing, own_fact

MAX_WAITING: Final = 1 << 20
MAX_COMMAND: Final = 128 * 1024
# Even the smallest frame costs the server about so much.
LEAST: Final = 256
FINISH_S: Final = 2.0
HANDLERS_S: Final = 4.0
TRY_AGAIN: Final = 1012
GONE: Final = 1008


class BadFrameError(Exception):
    """A frame that can't be answered: not JSON, or not an object."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a client sent. `id` is JSON already; `problem` is the field that is wrong, and why."""

    id: bytes | None
    namespace: str | None
    event: str
    data: Any
    size: int
    problem: tuple[str, str] | None = None

    @classmethod
    def of(cls, text: str) -> "Frame":
        """Read a frame.

        Raises:
            BadFrameError: it isn't one JSON object.
        """
        size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        try:
            # As lenient as the other doors: what a command may contain is checked where it is run.
            members = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadFrameError("not JSON") from error
        if not isinstance(members, dict):
            raise BadFrameError("not one JSON object")
        problem = _problem(members)
        event, namespace = members.get("event"), members.get("ns")
        number = members.get("id")
        return cls(
            json.dumps(number).encode() if number is not None and _is_id(number) else None,
            namespace if isinstance(namespace, str) else None,
            event if isinstance(event, str) else "",
            members.get("data", {}),
            size,
            problem,
        )


def _problem(members: dict[str, Any]) -> tuple[str, str] | None:
    unknown = members.keys() - {"id", "ns", "event", "data"}
    if unknown:
        return "$", "has members other than id, ns, event and data"
    if not _is_id(members.get("id")):
        return "id", "must be a string of at most 64 characters, or an integer"
    if not isinstance(members.get("event"), str):
        return "event", "must be a string"
    if not isinstance(members.get("ns", ""), str):
        return "ns", "must be a string"
    if not isinstance(members.get("data", {}), dict):
        return "data", "must be one JSON object"
    return None


def _is_id(value: Any) -> bool:  # noqa: ANN401 - whatever was sent
    if isinstance(value, str):
        return len(value) <= 64  # noqa: PLR2004 - as said in `_problem`
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


class Outlet:
    """What waits for one socket, bounded in bytes: who doesn't read costs nobody else."""

    def __init__(self, on_full: Callable[[], None]) -> None:
        self.bytes = 0
        self.dropped = 0
        self.finished = False
        self.filled = asyncio.Event()
        self._on_full = on_full
        self._waiting: deque[tuple[bytes, bool]] = deque()

    def put_nowait(self, item: Outgoing) -> None:
        """Take an event of the hub's."""
        self.put(shapes.plain(item), ephemeral=item.ephemeral)

    def put(self, frame: bytes, *, ephemeral: bool = False, last: bool = False) -> None:
        if self.finished:
            return
        size = max(LEAST, len(frame))
        if self.bytes + size > MAX_WAITING and not last:
            if ephemeral:
                self.dropped += 1
                return
            self._shed()
            if self.bytes + size > MAX_WAITING:
                self.dropped += len(self._waiting) + 1
                self._waiting.clear()
                self.bytes = 0
                self._on_full()
                return
        self._waiting.append((frame, ephemeral))
        self.bytes += size
        self.filled.set()

    def finish(self) -> None:
        """Take nothing more; what waits is still sent."""
        self.finished = True
        self.filled.set()

    def take(self) -> bytes | None:
        if not self._waiting:
            self.filled.clear()
            return None
        frame, _ = self._waiting.popleft()
        self.bytes -= max(LEAST, len(frame))
        return frame

    def _shed(self) -> None:
        kept = [item for item in self._waiting if not item[1]]
        self.dropped += len(self._waiting) - len(kept)
        self._waiting = deque(kept)
        self.bytes = sum(max(LEAST, len(frame)) for frame, _ in kept)


class PlainSession(Standing):
    """What the server knows about one plain connection; the engine ends it like its own."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        handshake: Handshake,
        door: Door,
    ) -> None:
        super().__init__(handshake)
        self.socket = socket
        self.ending = False
        self.outlet = Outlet(self._full)
        self.on_slow: Callable[[PlainSession], None] = lambda _: None
        self.on_offence: Callable[[PlainSession], None] = lambda _: None
        self._transport = transport
        self._door = door
        self._leaving: asyncio.Task[None] | None = None
        self._code = TRY_AGAIN
        self._writer = asyncio.create_task(self._write())

    def expect_connect(self, within_s: float) -> None:
        """Cut the connection unless it connects a namespace in time."""
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(within_s, self._silent)

    def enter(self, connection: Connection) -> None:
        self.connections[connection.namespace] = connection
        if not self.in_limbo:
            self.has_namespace()

    def run(self, connection: Connection, frame: Frame) -> None:
        """Run a command in its lane and answer it."""
        if frame.size > MAX_COMMAND:
            self.refuse(frame, PayloadTooLargeError(f"A command may have {MAX_COMMAND} bytes."))
            self.on_offence(self)
            return
        self.active_at = time.monotonic()

        async def work() -> None:
            CONNECTION.set(connection)
            answer = await self._door.answer(
                connection.principal, connection.namespace, frame.event, frame.data
            )
            before = turn()
            if before is not None:
                await before
            if frame.id is not None:
                # `answer` is `{"ok": …}` already: the id goes in front.
                self.outlet.put(b'{"id":%b,%b' % (frame.id, answer[1:]))
            if isinstance(answer, Offence):
                self.on_offence(self)

        def overdue() -> None:
            self.refuse(frame, UnavailableError())

        joins = frame.event in self._door.passed_on
        lane = lane_of(frame.data)
        if not self.lanes.submit(lane, frame.size, work, overdue=overdue, joins=joins):
            limited = RateLimitedError("Too many commands wait already.", retry_after_ms=1000)
            self.refuse(frame, limited)

    def answer(self, frame: Frame, data: dict[str, Any]) -> None:
        if frame.id is not None:
            self.outlet.put(b'{"id":%b,"ok":true,"data":%b}' % (frame.id, orjson.dumps(data)))

    def refuse(self, frame: Frame, error: DomainError) -> None:
        self.answer_refusal(frame, self._door.refuse(error))

    def answer_refusal(self, frame: Frame, error: dict[str, Any]) -> None:
        number = frame.id or b"null"
        self.outlet.put(b'{"id":%b,"ok":false,"error":%b}' % (number, orjson.dumps(error)))

    def end(self, clock: Clock, code: str, reason: str, reconnect: str, after_ms: int = 0) -> None:
        """Tell the peer why, then close: 1012 is "come back", 1008 is "don't"."""
        if self.ended:
            return
        self.ended = True
        self.has_namespace()
        first = next(iter(self.connections), None)
        if first is not None:
            told = {"code": code, "reason": reason, "reconnect": reconnect, "after_ms": after_ms}
            fact = own_fact(clock, "session.closing", told)
            self.outlet.put(shapes.plain(event_packet(first, "session.closing", fact)), last=True)
        if reconnect == "never":
            self._code = GONE
        self._leaving = asyncio.create_task(self._end_later(after_ms / 1000))

    async def _end_later(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        if after_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HANDLERS_S):
                    await self.lanes.finish()
        self._end()

    def cut(self) -> None:
        """End it now, whether the peer reads or not."""
        self.ended = self.ending = True
        self.outlet.finish()
        if self._transport is not None:
            self._transport.abort()

    async def refuse_peer(self, code: int, reason: bytes) -> None:
        """Send what waits, then close with a code of one's own."""
        self._code = code
        self.ended = True
        self.outlet.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await asyncio.wait({self._writer})
        await self.socket.close(code=code, message=reason)

    async def close(self) -> None:
        self.outlet.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await asyncio.wait({self._writer})
        self._writer.cancel()
        await self.socket.close()

    def _end(self) -> None:
        if self.ending:
            return
        self.ending = True
        self.outlet.finish()
        asyncio.get_running_loop().call_later(FINISH_S, self.cut)

    def _full(self) -> None:
        self.on_slow(self)
        self._end()

    def _silent(self) -> None:
        self._code = GONE
        self._end()

    async def _write(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while True:
                frame = self.outlet.take()
                if frame is not None:
                    await self.socket.send_frame(frame, WSMsgType.TEXT)
                elif self.outlet.finished:
                    break
                else:
                    await self.outlet.filled.wait()
            if self.ending:
                await self.socket.close(code=self._code)
