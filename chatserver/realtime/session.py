"""One engine connection above its transport: who it belongs to, its namespaces, its commands."""

import asyncio
import contextlib
from typing import Any, Final

from chatserver.kernel.clock import Clock
from chatserver.realtime.engine_socket import EngineSocket
from chatserver.realtime.packets import DISCONNECT, Received, control_packet, event_packet
from chatserver.realtime.ports import Handshake
from chatserver.realtime.standing import Standing, own_fact

# A command takes at most four seconds; see `registry.DEADLINE_S`.
FINISH_S: Final = 4.0


class Session(Standing):
    """What the guard knows about one engine connection."""

    __slots__ = ("_leaving", "binary", "connecting", "eio_sid", "left", "socket")

    def __init__(self, eio_sid: str, socket: EngineSocket, handshake: Handshake) -> None:
        super().__init__(handshake)
        self.eio_sid = eio_sid
        self.socket = socket
        # Dictionaries for sets: an empty one takes a third of the room, and most stay empty.
        self.connecting: dict[str, None] = {}
        self.left: dict[str, None] = {}
        self.binary: tuple[Received, Any, int] | None = None
        self._leaving: asyncio.Task[None] | None = None

    def expect_namespace(self, within_s: float) -> None:
        """Cut the connection unless it connects a namespace in time."""
        if self._deadline is None and not self.ended:
            self._deadline = asyncio.get_running_loop().call_later(within_s, self.socket.end)

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
