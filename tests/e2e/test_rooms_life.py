"""Rooms fall asleep by themselves, wake by a message, and leave nothing behind when deleted."""

import asyncio

from tests.e2e.conftest import MakeCluster
from tests.support.clients import ROOMS, all_see
from tests.support.locks import scalar
from tests.support.nodes import eventually
from tests.support.scene import on_stage

# What the worker needs: its poll, the scheduler's round, and air for two busy cores.
JOB_S = 60.0


async def test_a_room_falls_asleep_is_woken_and_is_purged_when_deleted(
    cluster: MakeCluster,
) -> None:
    processes = cluster()
    nodes = await processes.nodes("a", "b")
    async with on_stage(nodes, processes.database.secrets.operator_key) as scene:
        settings = await scene.api.patch("/client", {"room_deactivation": {"group": 2}})
        assert settings.ok()["room_deactivation"]["group"] == 2
        alice, bob = await scene.device("alice", 0), await scene.device("bob", 1)
        room = await alice.create_room("bob")
        support = await alice.create_room("bob", type="support")
        await alice.say(room["id"], "good night")
        await asyncio.sleep(2.5)
        await processes.workers()

        await bob.has_seq(room["id"], 3, JOB_S)
        asleep = bob.facts(room["id"])[-1]
        assert asleep["type"] == "room.deactivated"
        assert asleep["actor"]["type"] == "system"
        assert asleep["data"]["room"]["is_active"] is False
        shown = (await scene.api.get(f"/rooms/{room['id']}")).ok()
        assert (shown["is_active"], shown["last_seq"]) == (False, 3)
        # Reading goes on, and a message wakes it: first the waking, then the message.
        log = (await (await scene.as_user("bob", 1)).get(f"/rooms/{room['id']}/events")).ok()
        assert [fact["seq"] for fact in log["events"]] == [1, 2, 3]
        message = await bob.say(room["id"], "good morning")
        assert message["seq"] == 5
        await all_see([alice, bob], room["id"], 5)
        assert [fact["type"] for fact in alice.facts(room["id"])][-2:] == [
            "room.reactivated",
            "message.created",
        ]
        woken = (await scene.api.get(f"/rooms/{room['id']}")).ok()
        assert (woken["is_active"], woken["deactivated_at"]) == (True, None)
        # Woken, it ages again.
        await alice.has_seq(room["id"], 6, JOB_S)
        assert alice.facts(room["id"])[-1]["type"] == "room.deactivated"
        assert alice.seqs(support["id"]) == [1]

        deleted = await (await scene.as_user("alice")).delete(f"/rooms/{room['id']}")
        assert deleted.status == 200
        for device in (alice, bob):
            await eventually(lambda device=device: device.of_type("room.deleted", ROOMS))  # type: ignore[misc]
        gone = await alice.refused(ROOMS, "room.get", {"room_id": room["id"]})
        assert gone["code"] == "room.not_found"
        count = "select count(*) from message where room_id = $1::text::uuid"

        async def is_purged() -> bool:
            return await scalar(processes.database, count, room["id"]) == 0

        await eventually(is_purged, within_s=JOB_S, why="the messages are deleted")
        await bob.say(support["id"], "life goes on")
        await all_see([alice, bob], support["id"], 2)
