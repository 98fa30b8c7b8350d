"""What waits for one socket, bounded in bytes: who doesn't read costs nobody else.

There is no task and no queue object per connection. What one turn of the loop produces for a
socket is joined into one write at its end.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from chatserver.realtime.packets import CLOSE_FRAME, Outgoing

MAX_BYTES: Final = 1 << 20
# A transport that holds more than this is left alone until it holds less: what still waits with
# us can be shed, what a transport has can not.
HIGH_WATER: Final = 64 * 1024
SLICE: Final = 500
LATER_S: Final = 0.02


class Writer:
    """Writes what a turn of the loop has left in outboxes, all of a node's in one go."""

    def __init__(self) -> None:
        self._marked: list[Outbox] = []
        self._congested: set[Outbox] = set()
        self._is_scheduled = False

    def mark(self, outbox: "Outbox") -> None:
        self._marked.append(outbox)
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def later(self, outbox: "Outbox") -> None:
        """Come back to an outbox whose transport is full."""
        if not self._congested:
            asyncio.get_running_loop().call_later(LATER_S, self._retry)
        self._congested.add(outbox)

    def _turn(self) -> None:
        batch, self._marked = self._marked[:SLICE], self._marked[SLICE:]
        for outbox in batch:
            outbox.flush()
        self._is_scheduled = bool(self._marked)
        if self._is_scheduled:
            asyncio.get_running_loop().call_soon(self._turn)

    def _retry(self) -> None:
        congested, self._congested = self._congested, set()
        for outbox in congested:
            outbox.flush()


class Outbox:
    """The packets of one engine socket. Nothing ever waits to put something in.

    Its bound counts what the transport still holds, too. When it is reached, ephemeral packets go
    first; if that isn't enough, everything goes, nothing more is taken, and `on_full` is told to
    end the socket. Without a transport, `take` fetches packets and `wake` is told that it can.
    """

    __slots__ = (
        "_is_marked", "_room", "_transport", "_waiting", "_writer", "bytes", "dropped",
        "finished", "limit", "on_full", "wake",
    )  # fmt: skip

    def __init__(self, writer: Writer, limit: int = MAX_BYTES) -> None:
        self.limit = limit
        self.bytes = 0
        self.dropped = 0
        self.finished = False
        self.on_full: Callable[[], None] | None = None
        self.wake: Callable[[], None] | None = None
        self._writer = writer
        self._transport: asyncio.Transport | None = None
        self._waiting: list[Outgoing] = []
        self._room = limit
        self._is_marked = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def held(self) -> int:
        """Count the bytes that wait here and in the transport."""
        held = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self.bytes + held

    def connect(self, transport: asyncio.Transport) -> None:
        """Write to a WebSocket's transport from now on."""
        self._transport = transport
        self._mark()

    def put_nowait(self, packet: Outgoing) -> None:
        if self.finished:
            return
        cost = packet.cost
        if self.bytes + cost > self._room and not self._make_room(packet):
            return
        self.bytes += cost
        self._waiting.append(packet)
        if not self._is_marked:
            self._is_marked = True
            self._writer.mark(self)

    def last(self, *packets: Outgoing) -> None:
        """Add packets whatever waits already: what a peer must be told before it is left."""
        if self.finished:
            return
        for packet in packets:
            self._waiting.append(packet)
            self.bytes += packet.cost
        self._mark()

    def finish(self, *packets: Outgoing) -> None:
        """Add the last packets; a WebSocket is closed behind them, and nothing comes after."""
        if not self.finished:
            self.last(*packets)
            self.finished = True
            self._mark()

    def take(self, most: int) -> list[Outgoing]:
        """Give what a poll is answered with: so many packets, but at least one message."""
        taken: list[Outgoing] = []
        count = 0
        for packet in self._waiting:
            if taken and count + packet.count > most:
                break
            taken.append(packet)
            count += packet.count
            self.bytes -= packet.cost
        del self._waiting[: len(taken)]
        return taken

    def flush(self, farewell: bytes = CLOSE_FRAME) -> None:
        """Write what waits, or what the transport has room for; `farewell` ends the last of it."""
        self._is_marked = False
        transport = self._transport
        if transport is None:
            if self.wake is not None and (self._waiting or self.finished):
                self.wake()
            return
        if transport.is_closing():
            self._waiting.clear()
            self.bytes = 0
            return
        held = transport.get_write_buffer_size()
        if held > HIGH_WATER:
            self._room = self.limit - held
            self._writer.later(self)
            return
        waiting = self._waiting
        if not waiting and not self.finished:
            return
        if self.finished:
            data = b"".join([*(packet.wire for packet in waiting), farewell])
            self._transport = None
        elif len(waiting) == 1:
            data = waiting[0].wire
        else:
            data = b"".join([packet.wire for packet in waiting])
        waiting.clear()
        self.bytes = 0
        self._room = self.limit - held - len(data)
        transport.write(data)

    def _mark(self) -> None:
        if not self._is_marked:
            self._is_marked = True
            self._writer.mark(self)

    def _make_room(self, packet: Outgoing) -> bool:
        self._room = self.limit
        if self._transport is not None:
            self._room -= self._transport.get_write_buffer_size()
        if self.bytes + packet.cost <= self._room:
            return True
        if packet.ephemeral:
            self.dropped += 1
            return False
        kept = [each for each in self._waiting if not each.ephemeral]
        self.dropped += len(self._waiting) - len(kept)
        self._waiting = kept
        self.bytes = sum(each.cost for each in kept)
        if self.bytes + packet.cost <= self._room:
            return True
        self.dropped += len(kept) + 1
        self._waiting = []
        self.bytes = 0
        if self.on_full is None:
            self.finish()
        else:
            self.on_full()
        return False
