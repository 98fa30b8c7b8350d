"""What Redis loses is found again: nothing of it is the truth."""

import asyncio

from tests.support.clients import CHAT, ROOMS, PythonDevice, all_see
from tests.support.lines import REPAIR_S, Line, say_many
from tests.support.nodes import eventually
from tests.support.servers import Servers


class TestDeafNode:
    """The line of alice's node swallows everything; PostgreSQL it can reach."""

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
