"""What Redis loses is found again: nothing of it is the truth."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import pytest
from socketio.exceptions import SocketIOError

from tests.support.clients import CHAT, ROOMS, PythonDevice, all_see
from tests.support.locks import room_held, scalar, waiting_for_locks
from tests.support.nodes import Cluster, Node, eventually
from tests.support.proxy import Proxy
from tests.support.scene import Scene, on_stage
from tests.support.servers import Servers

# Two missed heartbeats, a look at the log, and air for two busy cores.
REPAIR_S = 45.0


@pytest.fixture(scope="module")
def own_servers() -> Iterator[Servers]:
    with Servers(tcp=True) as started:
        yield started


@pytest.fixture
def cluster(own_servers: Servers) -> Iterator[Cluster]:
    database = own_servers.fresh_database()
    made = Cluster(database)
    yield made
    made.close()
    own_servers.drop(database)


class Line:
    """Two nodes; the line of one of them to Redis can be hurt."""

    def __init__(self, proxy: Proxy, nodes: list[Node], scene: Scene) -> None:
        self.proxy = proxy
        self.cut_off, self.other = nodes
        self.scene = scene

    async def is_healthy(self) -> bool:
        return await self.cut_off.is_ready()


@pytest.fixture
async def line(cluster: Cluster) -> AsyncIterator[Line]:
    redis = urlsplit(cluster.database.redis_url)
    async with Proxy("127.0.0.1", redis.port or 0) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        made = [cluster.node("a", REDIS_URL=url, QUEUE_REDIS_URL=url), cluster.node("b")]
        await asyncio.gather(*(node.start() for node in made))
        async with on_stage(made, cluster.database.secrets.operator_key) as scene:
            yield Line(proxy, made, scene)


async def say_many(device: PythonDevice, room_id: str, texts: list[str]) -> None:
    for text in texts:
        await device.say(room_id, text)


class TestKilledNode:
    @pytest.mark.timeout(120)
    async def test_what_was_committed_and_never_published_arrives_once_and_in_order(
        self, line: Line
    ) -> None:
        """`kill -9` between commit and broadcast: the line swallows what would be published."""
        alice = await line.scene.device("alice", 0)
        bob = await line.scene.device("bob", 1)
        rooms = [await alice.create_room("bob") for _ in range(3)]
        for room in rooms:
            await say_many(alice, room["id"], ["1", "2", "3"])
        await asyncio.gather(*(bob.has_seq(room["id"], 4) for room in rooms))

        line.proxy.blackhole()
        for room in rooms:
            await say_many(alice, room["id"], ["4", "5", "6"])
        line.cut_off.kill()
        # Acknowledged, and yet not heard of by anyone else: this is the moment that is meant.
        assert all(bob.seqs(room["id"]) == [1, 2, 3, 4] for room in rooms)

        # In the second room somebody goes on, so that the hole is seen at once.
        await bob.say(rooms[1]["id"], "7")
        await asyncio.gather(*(bob.has_seq(room["id"], 7, REPAIR_S) for room in rooms))
        await bob.say(rooms[2]["id"], "7")
        await bob.has_seq(rooms[2]["id"], 8)
        for room, last in zip(rooms, (7, 8, 8), strict=True):
            await all_see([bob], room["id"], last)
            assert bob.texts(room["id"]) == [f"{at}" for at in range(1, last)]

        # The sender's next life: a retry of an acknowledged message changes nothing.
        again = await line.scene.device("alice", 1)
        log = await again.call(CHAT, "message.history", {"room_id": rooms[0]["id"]})
        assert [each["content"] for each in log["items"]] == [f"{at}" for at in range(1, 7)]
        retry = {
            "room_id": rooms[0]["id"],
            "content": "6",
            "client_msg_id": log["items"][-1]["client_msg_id"],
        }
        assert (await again.call(CHAT, "message.send", retry))["duplicate"] is True
        assert bob.seqs(rooms[0]["id"]) == list(range(1, 8))

    @pytest.mark.timeout(120)
    async def test_what_was_committed_and_neither_published_nor_acknowledged_is_there_once(
        self, line: Line, cluster: Cluster
    ) -> None:
        """`kill -9` between commit and ack: the node is frozen while PostgreSQL commits."""
        alice = await line.scene.device("alice", 0)
        bob = await line.scene.device("bob", 1)
        room = await alice.create_room("bob")
        payload = {"room_id": room["id"], "content": "sure?", "client_msg_id": "sure"}
        count = "select count(*) from message where room_id = $1::text::uuid"
        async with room_held(cluster.database, room["id"]):
            unanswered = asyncio.create_task(alice.emit(CHAT, "message.send", payload))
            await waiting_for_locks(cluster.database, 1)
            line.cut_off.pause()

        async def is_committed() -> bool:
            return await scalar(cluster.database, count, room["id"]) == 1

        await eventually(is_committed)
        line.cut_off.kill()
        unanswered.cancel()

        again = await line.scene.device("alice", 1)
        answer = await again.call(CHAT, "message.send", payload)
        assert answer["duplicate"] is True
        await all_see([bob], room["id"], 2, within_s=REPAIR_S)
        await again.say(room["id"], "yes")
        await all_see([bob], room["id"], 3)
        assert bob.texts(room["id"]) == ["sure?", "yes"]

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("how", ["kill", "drain"])
    async def test_senders_that_go_elsewhere_and_insist_lose_and_repeat_nothing(
        self, line: Line, how: str
    ) -> None:
        listener = await line.scene.device("listener", 1)
        names = [f"user-{at}" for at in range(5)]
        await line.scene.people(*names)
        room = await listener.create_room(*names)
        ended = asyncio.Event()

        async def talk(name: str) -> list[str]:
            device, node = await line.scene.device(name, 0), 0
            said: list[str] = []
            left = 20
            while left:
                text = f"{name} {len(said)}"
                payload = {"room_id": room["id"], "content": text, "client_msg_id": text}
                while True:
                    try:
                        ack = await device.client.call(
                            "message.send", payload, namespace=CHAT, timeout=2
                        )
                        if ack["ok"]:
                            break
                        assert ack["error"]["retryable"], ack
                    except SocketIOError:
                        pass  # no answer: what became of it is unknown
                    if node == 0 and not device.client.connected:
                        await ended.wait()
                        device, node = await line.scene.device(name, 1), 1
                said.append(text)
                left -= node  # as many again once the first node is gone
                await asyncio.sleep(0.01)
            return said

        talking = [asyncio.create_task(talk(name)) for name in names]
        await listener.has_seq(room["id"], 30)
        if how == "kill":
            line.cut_off.kill()
        else:
            assert await line.cut_off.terminate() == 0
        ended.set()
        said = dict(zip(names, await asyncio.gather(*talking), strict=True))
        total = sum(len(texts) for texts in said.values())
        await all_see([listener], room["id"], 1 + total, within_s=REPAIR_S)
        heard = listener.texts(room["id"])
        for name, texts in said.items():
            assert [text for text in heard if text.startswith(f"{name} ")] == texts

    @pytest.mark.timeout(120)
    async def test_a_node_that_froze_for_seconds_goes_on_without_a_hole(self, line: Line) -> None:
        alice = await line.scene.device("alice", 0)
        bob = await line.scene.device("bob", 1)
        room = await bob.create_room("alice")
        line.cut_off.pause()
        try:
            await say_many(bob, room["id"], [f"{at}" for at in range(20)])
            invited = await bob.create_room("alice")
            await asyncio.sleep(6)
        finally:
            line.cut_off.resume()
        await all_see([alice, bob], room["id"], 21, within_s=REPAIR_S)
        await all_see([alice, bob], invited["id"], 1, within_s=REPAIR_S)
        await alice.say(room["id"], "I am back")
        await all_see([alice, bob], room["id"], 22)


class TestDeafNode:
    """The line of alice's node swallows everything; PostgreSQL it can reach."""

    @pytest.mark.timeout(120)
    async def test_memberships_given_and_taken_meanwhile_arrive_with_what_belongs_to_them(
        self, line: Line
    ) -> None:
        alice = await line.scene.device("alice", 0)
        bob = await line.scene.device("bob", 1)
        taken = await bob.create_room("alice", title="taken away")
        await bob.say(taken["id"], "while she is in it")
        await alice.has_seq(taken["id"], 2)
        invited = await bob.create_room(title="given")
        await bob.say(invited["id"], "before her time")

        line.proxy.blackhole()
        new = await bob.create_room("alice", title="made meanwhile")
        await bob.call(ROOMS, "room.invite", {"room_id": invited["id"], "user_id": "alice"})
        await bob.call(ROOMS, "room.remove", {"room_id": taken["id"], "user_id": "alice"})
        for room in (new, invited, taken):
            await bob.say(room["id"], "what followed")
        heard = [alice.seqs(room["id"]) for room in (new, invited, taken)]
        assert heard == [[], [], [1, 2]]
        line.proxy.heal()

        await all_see([alice], new["id"], 2, within_s=REPAIR_S)
        await alice.has_seq(invited["id"], 4, REPAIR_S)
        await alice.has_seq(taken["id"], 3, REPAIR_S)
        # Of the room she was invited to: her own coming, and what followed.
        assert [fact["type"] for fact in alice.facts(invited["id"])] == [
            "member.joined",
            "message.created",
        ]
        await eventually(line.is_healthy, why="the deaf node hears again")
        for room in (new, invited, taken):
            await bob.say(room["id"], "and on")
        await asyncio.gather(alice.has_seq(new["id"], 3), alice.has_seq(invited["id"], 5))
        assert alice.seqs(invited["id"]) == [3, 4, 5]
        # And of the room that she was removed from nothing after that.
        assert alice.seqs(taken["id"]) == [1, 2, 3]
        assert alice.facts(taken["id"])[-1]["type"] == "member.left"
        removed = await alice.refused(CHAT, "message.history", {"room_id": taken["id"]})
        assert removed["code"] == "room.not_member"

    @pytest.mark.timeout(120)
    async def test_it_looks_for_itself_as_long_as_it_is_deaf(self, line: Line) -> None:
        alice = await line.scene.device("alice", 0)
        bob = await line.scene.device("bob", 1)
        room = await bob.create_room("alice")
        line.proxy.refuse()
        await bob.say(room["id"], "can you hear me?")
        await alice.say(room["id"], "yes")
        added = await bob.create_room("alice", title="made meanwhile")
        await all_see([alice, bob], room["id"], 3, within_s=REPAIR_S)
        await all_see([alice], added["id"], 1, within_s=REPAIR_S)
        line.proxy.heal()
        await eventually(line.is_healthy)
        await say_many(alice, room["id"], ["1", "2"])
        await all_see([alice, bob], room["id"], 5)


@pytest.mark.timeout(120)
async def test_redis_killed_for_seconds_during_sends_costs_nothing(
    line: Line, own_servers: Servers
) -> None:
    devices = [await line.scene.device(f"user-{at}", at % 2) for at in range(4)]
    room = await devices[0].create_room(*(device.name for device in devices[1:]))
    stopping = False

    async def talk(device: PythonDevice) -> int:
        sent = 0
        while not stopping:
            # Each must succeed: Redis is needed for none of it.
            await device.say(room["id"], f"{device.name} {sent}")
            sent += 1
            await asyncio.sleep(0.05)
        return sent

    talking = [asyncio.create_task(talk(device)) for device in devices]
    await asyncio.sleep(1)
    own_servers.valkey.kill()
    try:
        await asyncio.sleep(6)
        for node in (line.cut_off, line.other):
            status, body = await node.health()
            assert (status, body["status"], body["degraded"]) == (200, "degraded", ["bus"])
        late = await line.scene.device("user-0", 1)
        added = await devices[0].create_room("user-1", title="made without Redis")
        await all_see(devices[:2], added["id"], 1, within_s=REPAIR_S)
        await all_see([late], added["id"], 1, within_s=REPAIR_S)
    finally:
        own_servers.valkey.start()
    for node in (line.cut_off, line.other):
        await eventually(node.is_ready)
    await asyncio.sleep(1)
    stopping = True
    sent = sum(await asyncio.gather(*talking))
    assert sent > 40
    await all_see(devices, room["id"], 1 + sent, within_s=REPAIR_S)
    await late.has_seq(room["id"], 1 + sent)
    heard = late.seqs(room["id"])
    assert heard == list(range(heard[0], 2 + sent))
