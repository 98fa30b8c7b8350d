"""One node of the realtime engine without sockets and without a bus, to be driven step by step."""

import asyncio
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import orjson

from chatserver.kernel.ids import uuid7
from chatserver.realtime.fanout import Fanout
from chatserver.realtime.hub import Connection, Hub
from chatserver.realtime.memberships import Memberships
from chatserver.realtime.packets import Outgoing
from chatserver.realtime.recovery import Recovery
from chatserver.realtime.repair import Repair
from tests.support.realtime import VIEWS, Always, Truth, principal

ROOM = uuid7()


class Buckets:
    """A bus that is subscribed to everything at once."""

    def retain_room(self, room_id: UUID) -> None: ...
    def release_room(self, room_id: UUID) -> None: ...
    def retain_user(self, user_id: UUID) -> None: ...
    def release_user(self, user_id: UUID) -> None: ...

    async def confirm_user(self, user_id: UUID) -> bool:
        return True

    async def confirm_rooms(self, room_ids: Iterable[UUID]) -> bool:
        return True

    def is_confirmed(self, room_id: UUID) -> bool:
        return True


class Seen(Connection):
    """A connection that keeps what it is sent."""

    def __init__(self, name: str, namespace: str = "/chat") -> None:
        self.facts: list[dict[str, Any]] = []
        super().__init__(namespace, principal(name), uuid7().hex, self)
        self.open()

    def put_nowait(self, item: Outgoing) -> None:
        text = item.frame.decode()
        self.facts.append(orjson.loads(text[text.index(",[") + 1 :])[1])

    def seqs(self, room: UUID = ROOM) -> list[int]:
        return [fact["seq"] for fact in self.facts if fact.get("room_id") == str(room)]


class World:
    """One node without sockets and without a bus."""

    def __init__(self, truth: Truth, patience_s: float = 30, hold_s: float = 0.0) -> None:
        self.truth = truth
        self.closed: list[tuple[str, str]] = []
        buckets = Buckets()
        self.hub = Hub(buckets)
        self.fanout = Fanout()
        self.recovery = Recovery(
            hub=self.hub,
            truth=truth,
            fanout=self.fanout,
            views=VIEWS,
            end=self._end,
            patience_s=patience_s,
            hold_s=hold_s,
        )
        self.memberships = Memberships(self.recovery, buckets)
        self.repair = Repair(
            recovery=self.recovery,
            memberships=self.memberships,
            leader=Always(False),
            healthy=lambda: True,
            publish=lambda _: None,
        )

    def _end(
        self, connections: Iterable[Connection], code: str, reason: str, reconnect: str
    ) -> None:
        self.closed += [(connection.principal.external_id, code) for connection in connections]

    async def connect(self, name: str, namespace: str = "/chat") -> Seen:
        seen = Seen(name, namespace)
        await self.memberships.settle(self.hub.add(seen))
        return seen

    async def settle(self) -> None:
        """Give the node the change list until it has nothing left to find."""
        changes = await self.truth.changes(within_s=30)
        await self.repair._compare(changes)
        for _ in range(200):
            while self.recovery.stale:
                await self.repair._refresh_one(self.recovery.stale.pop())
            await asyncio.sleep(0)
            if not self.recovery.stale and all(
                stream.head == len(self.truth.facts[room])
                for room, stream in self.hub.streams.items()
            ):
                return
        raise AssertionError("the node does not settle")

    def stop(self) -> None:
        self.recovery.stop()
