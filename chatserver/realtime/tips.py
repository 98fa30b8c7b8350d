"""`sync.tips`: where rooms' logs end, told now and then, so that no client misses a last fact."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

import structlog

from chatserver.kernel.clock import Clock
from chatserver.realtime.hub import Hub, Listener
from chatserver.realtime.packets import event_packet
from chatserver.realtime.recovery import Recovery
from chatserver.realtime.standing import own_fact

log = structlog.get_logger(__name__)

EVERY_S: Final = 20
SLICE: Final = 500


class Tips:
    """Tells each user every 20 s which of his rooms moved, at a second of his own.

    Nothing moved, nothing said. What was sent and lost on the way is found by the client itself.
    """

    def __init__(
        self,
        *,
        recovery: Recovery,
        namespace: str,
        clock: Clock,
        every_s: int = EVERY_S,
        tick_s: float = 1.0,
    ) -> None:
        self.told = 0
        self._recovery = recovery
        self._hub: Hub = recovery.hub
        self._namespace = namespace
        self._clock = clock
        self._every = every_s
        self._tick_s = tick_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                await self._turn()
            except Exception:
                log.exception("tips_failed")

    async def _turn(self) -> None:
        self._recovery.tick += 1
        tick = self._recovery.tick
        slot = tick % self._every
        due = [
            listener
            for listener in self._hub.listeners.values()
            if listener.user_id.int % self._every == slot
        ]
        for count, listener in enumerate(due, 1):
            self._tell(listener, tick - self._every - 1)
            if count % SLICE == 0:
                await asyncio.sleep(0)

    def _tell(self, listener: Listener, since: int) -> None:
        connections = listener.in_namespace(self._namespace)
        if not connections:
            return
        moved = self._moved(listener.rooms, since)
        packet = self._packet(moved) if moved else None
        self.told += packet is not None
        for connection in connections:
            watched = self._moved(connection.watched.keys() - listener.rooms, since)
            if watched:
                connection.send(self._packet(moved | watched))
            elif packet is not None:
                connection.send(packet)

    def _moved(self, rooms: Iterable[UUID], since: int) -> dict[str, Any]:
        streams = self._hub.streams
        return {
            str(room_id): {"last_seq": streams[room_id].head}
            for room_id in rooms
            if room_id in streams and streams[room_id].moved_at > since
        }

    def _packet(self, rooms: dict[str, Any]) -> Any:
        fact = own_fact(self._clock, "sync.tips", {"rooms": rooms})
        return event_packet(self._namespace, "sync.tips", fact, ephemeral=True)
