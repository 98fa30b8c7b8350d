"""Random operations between random faults, against a model of what must have become of them."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.chaos import nemesis
from tests.chaos.checker import Truth
from tests.chaos.stage import UNAVAILABLE, Stage, Tenant
from tests.support.clients import Answer

# Short ones: what is tried is how they meet the operations, not how long they last.
FAULTS = {
    nemesis.flush_redis: 0.0,
    nemesis.kick_subscribers: 0.0,
    nemesis.lose_all: 0.0,
    nemesis.deafen_node: 1.5,
    nemesis.pause_node: 1.0,
    nemesis.kill_redis: 1.0,
    nemesis.kill_node: 0.3,
    nemesis.restart_postgres: 0.5,
}
OPERATIONS = {
    "send": 12,
    "intrude": 1,
    "edit": 3,
    "delete": 1,
    "pin": 2,
    "invite": 3,
    "remove": 2,
    "create": 1,
    "fault": 2,
}
# Nobody knows whether it was done who heard nothing: he asks again.
LOST = (aiohttp.ClientError, TimeoutError, OSError)
AGAIN_S = 0.2
SETTLED_S = 60.0


@dataclass
class Room:
    """What the model knows: `sent` by client_msg_id, with what the sender was told; texts and
    pins by message id, as they were asked for last."""

    tenant: Tenant
    members: set[str]
    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    pins: dict[str, bool] = field(default_factory=dict)


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
        self._trouble: asyncio.Task[None] | None = None

    async def run(self, steps: int) -> None:
        """Operations go on while a fault lasts; the next fault waits for its end."""
        for _ in range(steps):
            (name,) = self._random.choices(list(OPERATIONS), list(OPERATIONS.values()))
            room_id = self._random.choice(list(self.rooms))
            async with asyncio.timeout(SETTLED_S):
                await getattr(self, f"_{name}")(room_id, self.rooms[room_id])
            self.done[name] += 1
        async with asyncio.timeout(SETTLED_S):
            if self._trouble is not None:
                await self._trouble
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
            texts = {message: truth.texts.get(message) for message in room.texts}
            if texts != room.texts:
                found.append(f"{room_id}: has the texts {texts}, the model {room.texts}")
            pinned = {message for message, is_pinned in room.pins.items() if is_pinned}
            if truth.pinned & room.pins.keys() != pinned:
                found.append(f"{room_id} has other pins than the model")
        return found

    async def _insist(self, ask: Callable[[], Coroutine[Any, Any, Answer]], *done: int) -> Any:
        """Ask until there is an answer that stays. `done`: how one is answered who asks for what
        an attempt of his has already achieved, without his hearing of it."""
        first = True
        while True:
            try:
                answer = await ask()
            except LOST:
                await asyncio.sleep(AGAIN_S)
            else:
                if answer.status != UNAVAILABLE:
                    return None if answer.status in done and not first else answer.ok()
                await asyncio.sleep(answer.body["retry_after_ms"] / 1000)
            first = False

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

    def _choose(self, room: Room) -> str | None:
        """Choose a message that its sender was told of and nobody deleted."""
        known = sorted(answer["message"] for answer in room.sent.values() if answer["ok"])
        there = [message for message in known if room.texts.get(message) != ""]
        return self._random.choice(there) if there else None

    async def _edit(self, _: str, room: Room) -> None:
        if message := self._choose(room):
            text = f"{room.tenant.canary} edited {self._random.randrange(1_000_000)}"
            change = {"content": text}
            await self._insist(lambda: room.tenant.api.patch(f"/messages/{message}", change))
            room.texts[message] = text

    async def _delete(self, _: str, room: Room) -> None:
        if message := self._choose(room):
            await self._insist(lambda: room.tenant.api.delete(f"/messages/{message}"))
            room.texts[message] = ""
            room.pins.pop(message, None)

    async def _pin(self, _: str, room: Room) -> None:
        if message := self._choose(room):
            is_pinned = room.pins.get(message, False)
            ask = room.tenant.api.delete if is_pinned else room.tenant.api.put
            await self._insist(lambda: ask(f"/messages/{message}/pin"))
            room.pins[message] = not is_pinned

    async def _invite(self, room_id: str, room: Room) -> None:
        others = sorted(set(room.tenant.users) - room.members)
        if others:
            user = self._random.choice(others)
            body = {"user_ids": [user]}
            await self._insist(lambda: room.tenant.api.post(f"/rooms/{room_id}/members", body))
            room.members.add(user)

    async def _remove(self, room_id: str, room: Room) -> None:
        inside = sorted(room.members & set(room.tenant.users))
        if len(inside) > 1:
            user = self._random.choice(inside)
            where = f"/rooms/{room_id}/members/{user}"
            await self._insist(lambda: room.tenant.api.delete(where), 404)
            room.members.discard(user)

    async def _create(self, room_id: str, room: Room) -> None:
        members = self._random.sample(room.tenant.users, 2)
        named = f"of-{room_id}-{self._random.randrange(1_000_000)}"
        body = {"type": "group", "member_ids": members, "external_id": named}
        made = await self._insist(lambda: room.tenant.api.post("/rooms", body))
        self.rooms[made["id"]] = Room(room.tenant, set(members))

    async def _fault(self, _: str, __: Room) -> None:
        if self._trouble is not None:
            await self._trouble
        fault = self._random.choice(list(FAULTS))
        self.done[fault.__name__] += 1
        begun = fault(self._stage, FAULTS[fault])
        self._trouble = asyncio.ensure_future(begun)
