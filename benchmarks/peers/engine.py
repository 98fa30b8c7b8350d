"""This project's realtime engine with its hub and bus, but no database: prints its port.

A `say` is shown to its room as a fact without a seq, as typing is: nothing is stored, numbered or
repaired. It is what a delivery costs before PostgreSQL has a part in it.
"""

import asyncio
import os
import uuid
from collections.abc import Sequence
from typing import Any

import orjson
import uvloop
from aiohttp import web

from chatserver.kernel.events import Committed
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Caller, Principal
from chatserver.realtime.engine import Realtime
from chatserver.realtime.hub import Views
from chatserver.realtime.ports import Accepted, Changes, Handshake, Seat, Subscriptions
from chatserver.realtime.publisher import BusSettings

CLIENT = uuid.UUID(int=7)


class Memory:
    """Rooms without a log: who is in them was said at the connect."""

    def __init__(self) -> None:
        self.rooms: dict[uuid.UUID, list[uuid.UUID]] = {}

    async def read(self, *_: Any, **__: Any) -> list[Committed]:
        return []

    async def heads(self, room_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, int]:
        return dict.fromkeys(room_ids, 0)

    async def subscriptions(self, user_id: uuid.UUID) -> Subscriptions:
        seats = {room: Seat(0, 0) for room in self.rooms.get(user_id, ())}
        return Subscriptions(0, seats)

    async def changes(self, **_: Any) -> Changes:
        return Changes()


class Follower:
    async def leads(self) -> bool:
        return False

    async def resign(self) -> None:
        return


class OpenDoor:
    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.passed_on: frozenset[str] = frozenset()
        self.realtime: Realtime

    async def accept(
        self, _namespace: str, _handshake: Handshake, auth: Any, first: Principal | None
    ) -> Accepted:
        if first is not None:
            return Accepted(principal=first)
        user = uuid7()
        self.memory.rooms[user] = [uuid.UUID(room) for room in auth.get("rooms", ())]
        who = Principal(caller=Caller.USER, client_id=CLIENT, user_id=user, external_id=str(user))
        return Accepted(principal=who)

    async def answer(
        self, _principal: Principal, _namespace: str, _event: str, payload: Any
    ) -> bytes:
        room = uuid.UUID(payload["room_id"])
        body = orjson.dumps(payload)
        fact = Committed(client_id=CLIENT, room_id=room, seq=None, type="said", body=body)
        self.realtime.publish([fact])
        return b'{"ok":true}'

    def refuse(self, error: Exception) -> dict[str, Any]:
        return {"code": "refused", "message": str(error)}

    def welcome(self, _: Principal, session_id: str) -> dict[str, Any]:
        return {"session_id": session_id}


async def serve() -> None:
    memory = Memory()
    door = OpenDoor(memory)
    redis = os.environ.get("BENCH_REDIS") or "redis://127.0.0.1:1/0"
    realtime = Realtime(
        door=door,
        truth=memory,
        leader=Follower(),
        bus=BusSettings(url=redis, key=b"benchmark", prefix="bench"),
        node_id=os.environ.get("BENCH_NODE", "a"),
        views=Views("/chat", {}),
    )
    door.realtime = realtime
    app = web.Application()
    realtime.attach(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    await realtime.start()
    port = runner.addresses[0][1]
    print(f"port {port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve())
