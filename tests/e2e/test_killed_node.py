"""A node dies in the worst moment: what was acknowledged is there, once and in order."""

import asyncio

import pytest
from socketio.exceptions import SocketIOError

from tests.support.clients import CHAT, all_see
from tests.support.lines import REPAIR_S, Line, say_many
from tests.support.locks import room_held, scalar, waiting_for_locks
from tests.support.nodes import Cluster, eventually


class TestKilledNode:
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

    async def test_what_was_committed_and_neither_published_nor_acknowledged_is_there_once(
        self, line: Line, own_cluster: Cluster
    ) -> None:
        """`kill -9` between commit and ack: the node is frozen while PostgreSQL commits."""
        alice = await line.scene.device("alice", 0)
        bob = await line.scene.device("bob", 1)
        room = await alice.create_room("bob")
        payload = {"room_id": room["id"], "content": "sure?", "client_msg_id": "sure"}
        count = "select count(*) from message where room_id = $1::text::uuid"
        async with room_held(own_cluster.database, room["id"]):
            unanswered = asyncio.create_task(alice.emit(CHAT, "message.send", payload))
            await waiting_for_locks(own_cluster.database, 1)
            line.cut_off.pause()

        async def is_committed() -> bool:
            return await scalar(own_cluster.database, count, room["id"]) == 1

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
