"""What survives when every process of ours ends: everything."""

import asyncio
from typing import Any

import pytest

from tests.e2e.conftest import MakeCluster
from tests.support.clients import CHAT, ROOMS, all_see
from tests.support.javascript import JavaScript
from tests.support.nodes import eventually
from tests.support.scene import on_stage


@pytest.mark.js
async def test_a_restart_of_both_nodes_keeps_everything(
    cluster: MakeCluster, js: JavaScript
) -> None:
    processes = cluster()
    nodes = await processes.nodes("a", "b")
    async with on_stage(nodes, processes.database.secrets.operator_key) as scene:
        # One stock client stays open over the restart, one is away meanwhile.
        alice = js.device("alice", nodes[0].url, await scene.key_of("alice"), reconnectionDelay=200)
        await alice.connect()
        bob = await scene.device("bob", 1)
        room = await alice.create_room("bob", metadata={"colour": "blue"}, title="Kept")
        leaving = await alice.create_room("bob", title="bob is removed from it")
        for at in range(5):
            await alice.say(room["id"], f"before {at}")
        before = await bob.call(CHAT, "sync", {})
        known = {
            room_id: {"epoch": known["epoch"], "seq": known["last_seq"]}
            for room_id, known in before["rooms"].items()
        }
        history = await bob.call(CHAT, "message.history", {"room_id": room["id"]})
        await bob.close()

        joining = await alice.create_room("bob", title="bob is new in it")
        gone = {"room_id": leaving["id"], "user_id": "bob"}
        await alice.call(ROOMS, "room.remove", gone)
        await alice.say(room["id"], "while bob was away")

        assert await asyncio.gather(*(node.terminate() for node in nodes)) == [0, 0]
        closings = alice.of_type("session.closing", ROOMS)
        assert [closing["data"]["code"] for closing in closings] == ["server.draining"]
        await asyncio.gather(*(node.start() for node in nodes))

        # The stock client comes back by itself, with the same key.
        await eventually(lambda: len(alice.of_type("session.ready")) == 2)
        await alice.say(room["id"], "after")

        bob = await scene.device("bob", 1)
        synced = await bob.call(CHAT, "sync", {"cursor": before["cursor"], "rooms": known})
        assert {each["room"]["id"] for each in synced["joined"]} == {joining["id"]}
        assert [(each["room_id"], each["reason"]) for each in synced["removed"]] == [
            (leaving["id"], "removed")
        ]
        missed = synced["rooms"][room["id"]]["events"]
        assert _contents(missed) == ["while bob was away", "after"]

        replay = await bob.call(
            CHAT, "room.replay", {"room_id": room["id"], "epoch": room["epoch"], "after_seq": 0}
        )
        assert [fact["seq"] for fact in replay["events"]] == list(range(1, 9))
        assert replay["complete"] is True
        assert _identities(replay["events"]) == _identities(alice.facts(room["id"]))
        again = await bob.call(
            CHAT, "message.history", {"room_id": room["id"], "before_seq": 7, "limit": 100}
        )
        assert again["items"] == history["items"]
        kept = await bob.call(ROOMS, "room.get", {"room_id": room["id"]})
        assert (kept["title"], kept["metadata"]) == ("Kept", {"colour": "blue"})

        await bob.say(room["id"], "and on")
        await eventually(lambda: alice.texts(room["id"])[-1:] == ["and on"])
        await all_see([bob], room["id"], 9, first=9)


def _contents(events: list[dict[str, Any]]) -> list[str]:
    return [fact["data"]["message"]["content"] for fact in events]


def _identities(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(fact["type"], fact["id"], fact["seq"], fact["epoch"]) for fact in events]


async def test_a_retry_after_the_restart_is_still_the_first_message(cluster: MakeCluster) -> None:
    processes = cluster()
    (node,) = await processes.nodes("a")
    async with on_stage([node], processes.database.secrets.operator_key) as scene:
        alice = await scene.device("alice")
        room = await alice.create_room()
        payload = {"room_id": room["id"], "content": "once", "client_msg_id": "for ever"}
        first = await alice.call(CHAT, "message.send", payload)
        node.kill()
        await node.start()
        alice = await scene.device("alice")
        again = await alice.call(CHAT, "message.send", payload)
        assert again == {"message": first["message"], "duplicate": True}
