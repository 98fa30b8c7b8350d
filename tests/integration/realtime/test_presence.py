"""Presence, on two nodes and a real Redis: grace, goodbye, end of life, flush, counts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import orjson
import pytest

from chatserver.kernel.clock import utc_now
from chatserver.realtime import presence, watching
from chatserver.realtime.hub import Connection
from chatserver.realtime.presence import Presence
from chatserver.realtime.shapes import parts
from chatserver.realtime.store import Store
from chatserver.realtime.watching import Watchers
from tests.support.proxy import Proxy
from tests.support.realtime import principal, until, user_id
from tests.support.servers import TestValkey

TICK_S = 0.05


class Node:
    def __init__(self, url: str) -> None:
        self.store = Store(url, prefix="presence-test")
        self.presence = Presence(self.store, tick_s=TICK_S)
        self.watchers = Watchers(self.presence, utc_now)
        self.presence.start()

    def connect(self, name: str, session: object | None = None) -> "Seen":
        seen = Seen(name, session or object())
        self.presence.enter(seen)
        return seen

    def cut(self, connection: Connection, *, goodbye: bool = False) -> None:
        connection.goodbye = goodbye
        self.presence.leave(connection)
        self.watchers.forget(connection)

    async def watch(self, who: "Seen", *names: str) -> dict[str, str]:
        told = await self.watchers.watch(who, {user_id(name): name for name in names}, {})
        return {user["user_id"]: user["status"] for user in told["users"]}

    async def stop(self) -> None:
        await self.presence.stop()
        await self.store.close()


class Seen(Connection):
    def __init__(self, name: str, session: object) -> None:
        self.told: list[dict[str, Any]] = []
        super().__init__("/rooms", principal(name), "sid", self, session)
        self.open()

    def put_nowait(self, item: Any) -> None:
        assert item.ephemeral
        self.told.append(orjson.loads(parts(item.frame)[2])["data"])

    def statuses(self, name: str) -> list[str]:
        return [
            user["status"]
            for told in self.told
            for user in told["users"]
            if user["user_id"] == name
        ]

    def counts(self) -> list[int]:
        return [room["online"] for told in self.told for room in told["rooms"]]


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As slow as a test may be: twenty-five seconds become one, and so on."""
    monkeypatch.setattr(presence, "REFRESH_MS", 400)
    monkeypatch.setattr(presence, "LIFE_MS", 1200)
    monkeypatch.setattr(presence, "GRACE_MS", 600)
    monkeypatch.setattr(watching, "RELOAD_S", 0.2)


@pytest.fixture
async def url(valkey: TestValkey) -> str:
    found = f"redis://127.0.0.1:{valkey.port}/0"
    store = Store(found, prefix="")
    await store.ask(lambda redis: redis.flushall())
    await store.close()
    return found


@pytest.fixture
async def nodes(url: str) -> AsyncIterator[tuple[Node, Node]]:
    made = Node(url), Node(url)
    yield made
    for each in made:
        await each.stop()


class TestPresence:
    async def test_coming_and_a_goodbye_are_told_on_another_node(
        self, nodes: tuple[Node, Node]
    ) -> None:
        a, b = nodes
        ann = a.connect("ann")
        assert await a.watch(ann, "bob") == {"bob": "offline"}
        bob = b.connect("bob")
        await until(lambda: ann.statuses("bob") == ["online"])
        began = asyncio.get_running_loop().time()
        b.cut(bob, goodbye=True)
        await until(lambda: ann.statuses("bob") == ["online", "offline"])
        assert asyncio.get_running_loop().time() - began < 0.5
        assert ann.told[-1]["users"][0]["last_active_at"] is not None

    async def test_an_abrupt_drop_has_a_grace(self, nodes: tuple[Node, Node]) -> None:
        a, b = nodes
        ann, bob = a.connect("ann"), b.connect("bob")
        await asyncio.sleep(0.2)
        assert await a.watch(ann, "bob") == {"bob": "online"}
        b.cut(bob)
        await asyncio.sleep(0.3)
        bob = b.connect("bob")
        await asyncio.sleep(0.8)
        assert ann.statuses("bob") == []
        b.cut(bob)
        await asyncio.sleep(0.4)
        assert ann.statuses("bob") == []
        await until(lambda: ann.statuses("bob") == ["offline"])

    async def test_one_of_several_devices_is_enough(self, nodes: tuple[Node, Node]) -> None:
        a, b = nodes
        ann, phone, desk = a.connect("ann"), a.connect("bob"), b.connect("bob")
        await asyncio.sleep(0.2)
        await a.watch(ann, "bob")
        a.cut(phone, goodbye=True)
        await asyncio.sleep(0.3)
        assert ann.statuses("bob") == []
        b.presence.declare(desk, "away")
        await until(lambda: ann.statuses("bob") == ["away"])
        b.presence.declare(desk, "offline")
        await until(lambda: ann.statuses("bob") == ["away", "offline"])

    async def test_namespaces_of_one_connection_count_once(self, nodes: tuple[Node, Node]) -> None:
        a, _ = nodes
        session = object()
        ann = a.connect("ann")
        rooms, chat = a.connect("bob", session), a.connect("bob", session)
        await asyncio.sleep(0.2)
        await a.watch(ann, "bob")
        a.cut(rooms, goodbye=True)
        await asyncio.sleep(0.3)
        assert ann.statuses("bob") == []
        a.cut(chat, goodbye=True)
        await until(lambda: ann.statuses("bob") == ["offline"])

    async def test_who_never_came_in_takes_nobody_else_away(self, nodes: tuple[Node, Node]) -> None:
        a, _ = nodes
        session = object()
        a.connect("bob", session)
        a.presence.leave(Seen("bob", session))
        assert len(a.presence.entries) == 1

    async def test_a_dead_node_s_users_end_with_their_life(
        self, nodes: tuple[Node, Node], url: str
    ) -> None:
        a, _ = nodes
        dead = Node(url)
        dead.connect("bob")
        ann = a.connect("ann")
        await asyncio.sleep(0.2)
        assert await a.watch(ann, "bob") == {"bob": "online"}
        assert dead.presence._task is not None
        dead.presence._task.cancel()
        await until(lambda: ann.statuses("bob") == ["offline"])
        await dead.store.close()

    async def test_a_flushed_redis_is_filled_again_and_nobody_sees_it(
        self, nodes: tuple[Node, Node]
    ) -> None:
        a, b = nodes
        ann = a.connect("ann")
        b.connect("bob")
        await asyncio.sleep(0.2)
        await a.watch(ann, "bob")
        await a.store.ask(lambda redis: redis.flushall())
        await asyncio.sleep(0.6)
        statuses = await a.presence.read([user_id("bob")])
        assert statuses[user_id("bob")].status == "online"
        await asyncio.sleep(1.2)
        assert ann.statuses("bob") == []

    async def test_an_outage_changes_nothing_and_what_happened_meanwhile_is_told_after(
        self, valkey: TestValkey, nodes: tuple[Node, Node]
    ) -> None:
        assert valkey.port is not None
        async with Proxy("127.0.0.1", valkey.port) as line:
            b = Node(f"redis://127.0.0.1:{line.port}/0")
            a, _ = nodes
            ann, bob = a.connect("ann"), b.connect("bob")
            await asyncio.sleep(0.3)
            assert await a.watch(ann, "bob") == {"bob": "online"}
            line.refuse()
            await asyncio.sleep(0.2)
            b.connect("cid")
            b.cut(bob, goodbye=True)
            await asyncio.sleep(0.3)
            line.heal()
            await until(lambda: ann.statuses("bob") == ["offline"])
            assert await a.watch(ann, "cid") == {"cid": "online"}
            await b.stop()


class TestRooms:
    async def test_above_two_hundred_only_the_number_is_told(
        self, nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watching, "NAMED", 3)
        a, b = nodes
        ann = a.connect("ann")
        names = ["ann", "b", "c", "d", "e"]
        members = {user_id(name): name for name in names}
        room = UUID(int=7)

        async def reload() -> dict[UUID, str]:
            return members

        told = await a.watchers.watch(ann, {}, {room: (members, reload)})
        assert len(told["users"]) == 5
        there = {name: b.connect(name) for name in names[1:]}
        await until(lambda: ann.counts()[-1:] == [5])
        assert ann.told[-1]["users"] == []
        b.cut(there["b"], goodbye=True)
        await until(lambda: ann.counts()[-1:] == [4])
        assert ann.told[-1]["users"] == []
        b.cut(there["c"], goodbye=True)
        await until(lambda: ann.counts()[-1:] == [3])
        assert {user["user_id"] for user in ann.told[-1]["users"]} == set(names)

    async def test_a_room_s_people_are_read_again(self, nodes: tuple[Node, Node]) -> None:
        a, b = nodes
        ann = a.connect("ann")
        b.connect("bob")
        members = {user_id("ann"): "ann"}

        async def reload() -> dict[UUID, str]:
            return dict(members)

        await asyncio.sleep(0.2)
        await a.watchers.watch(ann, {}, {UUID(int=7): (dict(members), reload)})
        members[user_id("bob")] = "bob"
        await until(lambda: ann.counts()[-1:] == [2])
        assert "online" in ann.statuses("bob")
        a.cut(ann, goodbye=True)
        assert a.watchers.users == {}
