"""What live delivery lost is found again: a list of what changed, compared with what is here."""

import asyncio
from collections.abc import Callable
from typing import Final
from uuid import UUID

import structlog

from chatserver.kernel.tasks import end
from chatserver.realtime.memberships import Memberships
from chatserver.realtime.ports import Changes, Leader
from chatserver.realtime.recovery import Recovery

log = structlog.get_logger(__name__)

TICK_S: Final = 1.0
LIST_EVERY_S: Final = 5.0
LIST_WITHIN_S: Final = 30.0
DEAF_WITHIN_S: Final = 60.0
# A healthy node that hears no list for so long looks for itself: nobody leads.
SILENCE_S: Final = 15.0
# After so long without a look the list would be longer than all that is here.
SWEEP_AFTER_S: Final = 300.0
SLICE: Final = 1000
SWEEP_SLICE: Final = 5000
REFRESHERS: Final = 4


class Repair:
    """Compares with the truth, once in a while. All is read in slices, never at once."""

    def __init__(
        self,
        *,
        recovery: Recovery,
        memberships: Memberships,
        leader: Leader,
        healthy: Callable[[], bool],
        publish: Callable[[Changes], None],
        tick_s: float = TICK_S,
        list_every_s: float = LIST_EVERY_S,
    ) -> None:
        self.found = 0
        self._recovery = recovery
        self._memberships = memberships
        self._leader = leader
        self._healthy = healthy
        self._publish = publish
        self._tick_s = tick_s
        self._list_every_s = list_every_s
        self._covered_at = 0.0
        self._listed_at = 0.0
        self._was_healthy = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._covered_at = self._listed_at = asyncio.get_running_loop().time()
        self._tasks = [
            asyncio.create_task(self._run()),
            *(asyncio.create_task(self._refresh()) for _ in range(REFRESHERS)),
        ]

    async def stop(self) -> None:
        await end(*self._tasks)
        await self._leader.resign()

    def compare(self, changes: Changes) -> None:
        """Take a list from the node that leads."""
        now = asyncio.get_running_loop().time()
        if now - self._covered_at <= LIST_WITHIN_S:
            # After a longer sleep the list is too short: this node looks further back itself.
            self._covered_at = now
        self._recovery.in_background(self._compare(changes))

    async def look(self, *, within_s: float) -> None:
        """Read the list from the log for this node alone.

        Raises:
            Exception: whatever the log raises when it is away.
        """
        now = asyncio.get_running_loop().time()
        unseen = now - self._covered_at
        if unseen > SWEEP_AFTER_S:
            await self._sweep()
        else:
            changes = await self._recovery.truth.changes(within_s=max(within_s, unseen + within_s))
            await self._compare(changes)
        self._covered_at = now

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                await self._turn()
            except Exception as error:  # noqa: BLE001 - whatever it is, the log is away
                log.warning("repair_failed", error=repr(error))

    async def _turn(self) -> None:
        now = asyncio.get_running_loop().time()
        healthy = self._healthy()
        just_healed = healthy and not self._was_healthy
        if self._was_healthy and not healthy:
            await self._leader.resign()  # a list from a node that can't publish helps nobody
        self._was_healthy = healthy
        if not healthy or just_healed:
            await self.look(within_s=DEAF_WITHIN_S)
        elif now - self._listed_at >= self._list_every_s:
            self._listed_at = now
            if await self._leader.leads():
                changes = await self._recovery.truth.changes(within_s=LIST_WITHIN_S)
                self._publish(changes)
                self.compare(changes)
            if now - self._covered_at > SILENCE_S:
                await self.look(within_s=LIST_WITHIN_S)

    async def _compare(self, changes: Changes) -> None:
        streams, listeners = self._recovery.hub.streams, self._recovery.hub.listeners
        for count, (room_id, last_seq) in enumerate(changes.rooms.items(), 1):
            stream = streams.get(room_id)
            if stream is not None and last_seq > stream.head:
                self.found += 1
                stream.learn(last_seq)
            if count % SLICE == 0:
                await asyncio.sleep(0)
        for count, (user_id, version) in enumerate(changes.users.items(), 1):
            listener = listeners.get(user_id)
            if listener is not None and listener.version is not None and version > listener.version:
                self.found += 1
                self._recovery.suspect(user_id)
            if count % SLICE == 0:
                await asyncio.sleep(0)

    async def _sweep(self) -> None:
        hub = self._recovery.hub
        room_ids = list(hub.streams)
        for start in range(0, len(room_ids), SWEEP_SLICE):
            heads = await self._recovery.truth.heads(room_ids[start : start + SWEEP_SLICE])
            await self._compare(Changes(rooms=heads))
        for user_id in list(hub.listeners):
            self._recovery.suspect(user_id)

    async def _refresh(self) -> None:
        """Read rooms of users again that have changed, a few at a time."""
        recovery = self._recovery
        while True:
            await recovery.stale_found.wait()
            if not recovery.stale:
                recovery.stale_found.clear()
                continue
            await self._refresh_one(recovery.stale.pop())

    async def _refresh_one(self, user_id: UUID) -> None:
        listener = self._recovery.hub.listeners.get(user_id)
        if listener is None or listener.version is None:
            return
        try:
            await self._memberships.refresh(listener)
        except Exception as error:  # noqa: BLE001 - whatever it is, the log is away
            log.warning("rooms_unreadable", error=repr(error))
            self._recovery.suspect(user_id)
            await asyncio.sleep(1)
