"""Random operations and random faults against a model of what must have become of them."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.chaos import nemesis
from tests.chaos.checker import Truth
from tests.chaos.stage import Stage, Tenant

# Short ones: what is tried is how they meet the operations, not how long they last.
FAULTS = {
    nemesis.flush_redis: 0.0,
    nemesis.kick_subscribers: 0.0,
    nemesis.lose_all: 0.0,
    nemesis.deafen_node: 1.5,
    nemesis.pause_node: 1.0,
    nemesis.kill_redis: 1.0,
    nemesis.kill_node: 0.3,
}
OPERATIONS = {"send": 12, "intrude": 1, "invite": 3, "remove": 2, "create": 1, "fault": 2}


@dataclass
class Room:
    """What the model knows: `sent` by client_msg_id, with what the sender was told."""

    tenant: Tenant
    members: set[str]
    sent: dict[str, dict[str, Any]] = field(default_factory=dict)


class Model:
    """`run` plays, `faults` compares. The same seed plays the same plan."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._random = stage.random
        self.rooms = {
            room: Room(tenant, set(tenant.keys))
            for tenant in stage.tenants
            for room in tenant.rooms
        }
        self.done: Counter[str] = Counter()
        self._sends: list[asyncio.Task[None]] = []

    async def run(self, steps: int) -> None:
        for _ in range(steps):
            (name,) = self._random.choices(list(OPERATIONS), list(OPERATIONS.values()))
            room_id = self._random.choice(list(self.rooms))
            await getattr(self, f"_{name}")(room_id, self.rooms[room_id])
            self.done[name] += 1
        async with asyncio.timeout(60):
            await asyncio.gather(*self._sends)

    def faults(self, truth: Truth) -> list[str]:
        found = []
        for room_id, room in self.rooms.items():
            if truth.members.get(room_id, set()) != room.members:
                found.append(f"{room_id} has other members than the model")
            stored = {cmid for known, cmid in truth.messages if known == room_id}
            acked = {cmid for cmid, answer in room.sent.items() if answer["ok"]}
            if stored != acked:
                found.append(
                    f"{room_id}: only stored {stored - acked}, only acked {acked - stored}"
                )
        return found

    async def _send(self, room_id: str, room: Room) -> None:
        """Not waited for: it may meet whatever comes next, its own sender's removal included."""
        reachable = sorted(room.members & set(room.tenant.users))
        if reachable:
            self._begin(room_id, room, self._random.choice(reachable))

    async def _intrude(self, room_id: str, room: Room) -> None:
        strangers = sorted(set(room.tenant.users) - room.members)
        if strangers:
            self._begin(room_id, room, self._random.choice(strangers))

    def _begin(self, room_id: str, room: Room, user: str) -> None:
        async def send() -> None:
            cmid, answer = await self._stage.send_named(room.tenant, room_id, user)
            room.sent[cmid] = answer

        self._sends.append(asyncio.create_task(send()))

    async def _invite(self, room_id: str, room: Room) -> None:
        others = sorted(set(room.tenant.users) - room.members)
        if others:
            user = self._random.choice(others)
            added = await room.tenant.api.post(f"/rooms/{room_id}/members", {"user_ids": [user]})
            added.ok()
            room.members.add(user)

    async def _remove(self, room_id: str, room: Room) -> None:
        inside = sorted(room.members & set(room.tenant.users))
        if len(inside) > 1:
            user = self._random.choice(inside)
            (await room.tenant.api.delete(f"/rooms/{room_id}/members/{user}")).ok()
            room.members.discard(user)

    async def _create(self, _: str, room: Room) -> None:
        members = self._random.sample(room.tenant.users, 2)
        body = {"type": "group", "member_ids": members}
        made = (await room.tenant.api.post("/rooms", body)).ok()
        self.rooms[made["id"]] = Room(room.tenant, set(members))

    async def _fault(self, _: str, __: Room) -> None:
        fault = self._random.choice(list(FAULTS))
        self.done[fault.__name__] += 1
        await fault(self._stage, FAULTS[fault])
