"""One engine connection above its transport: who it belongs to, its namespaces, its commands."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Final

from chatserver.kernel.clock import Clock
from chatserver.kernel.events import SYSTEM, encode
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.realtime.engine_socket import EngineSocket
from chatserver.realtime.hub import Connection
from chatserver.realtime.lanes import Lanes
from chatserver.realtime.packets import DISCONNECT, Received, control_packet, event_packet
from chatserver.realtime.ports import Handshake

# A command takes at most four seconds; see `registry.DEADLINE_S`.
FINISH_S: Final = 4.0


class Session:
    """What the guard knows about one engine connection."""

    __slots__ = (
        "_deadline", "_leaving", "binary", "connecting", "connections", "eio_sid", "ended",
        "first", "handshake", "lanes", "left", "socket", "verified",
    )  # fmt: skip

    def __init__(self, eio_sid: str, socket: EngineSocket, handshake: Handshake) -> None:
        self.eio_sid = eio_sid
        self.socket = socket
        self.handshake = handshake
        self.connections: dict[str, Connection] = {}
        # Dictionaries for sets: an empty one takes a third of the room, and most stay empty.
        self.connecting: dict[str, None] = {}
        self.left: dict[str, None] = {}
        self.verified: dict[tuple[str, object], Principal] = {}
        self.first: Principal | None = None
        self.lanes = Lanes()
        self.binary: tuple[Received, Any, int] | None = None
        self.ended = False
        self._deadline: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Task[None] | None = None

    def expect_namespace(self, within_s: float) -> None:
        """Cut the connection unless it connects a namespace in time."""
        if self._deadline is None and not self.ended:
            self._deadline = asyncio.get_running_loop().call_later(within_s, self.socket.end)

    def has_namespace(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def end(self, clock: Clock, code: str, reason: str, reconnect: str, after_ms: int = 0) -> None:
        """Tell the peer why, then close so that a stock client does as `reconnect` says."""
        if self.ended:
            return
        self.ended = True
        self.has_namespace()
        first = next(iter(self.connections.values()), None)
        last = []
        if first is not None:
            told = {
                "code": code,
                "reason": reason,
                "reconnect": reconnect,
                "after_ms": after_ms,
            }
            last.append(
                event_packet(
                    first.namespace, "session.closing", own_fact(clock, "session.closing", told)
                )
            )
        if reconnect == "never":
            last += [control_packet(DISCONNECT, namespace) for namespace in self.connections]
        if after_ms:
            self.socket.outbox.last(*last)
            self._leaving = asyncio.create_task(self._end_later(after_ms / 1000))
        else:
            self.socket.end(*last)

    async def _end_later(self, after_s: float) -> None:
        """Close when it is time, with everything answered that is being done."""
        await asyncio.sleep(after_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self.lanes.finish()
        self.socket.end()

    def principals(self) -> list[Principal]:
        """Whose credentials this connection was accepted with."""
        return list(self.verified.values())

    def leave(self) -> Iterator[Connection]:
        """Forget all namespaces, giving each."""
        self.ended = True
        self.has_namespace()
        connections, self.connections = self.connections, {}
        yield from connections.values()


def own_fact(clock: Clock, name: str, data: dict[str, Any]) -> bytes:
    """Write a fact about the connection itself; no log has it, and no clock but ours stamps it."""
    return encode(
        type=name,
        id=uuid7(),
        room_id=None,
        epoch=None,
        seq=None,
        ts=clock(),
        actor=SYSTEM,
        data=data,
    )
