"""One `client_msg_id` is one message, however often, where and how closely together it is sent."""

import asyncio
from typing import Any

import pytest

from tests.support.clients import CHAT, PythonDevice, all_see
from tests.support.locks import room_held, scalar, waiting_for_locks
from tests.support.nodes import Cluster
from tests.support.scene import Scene


@pytest.fixture
async def alices(scene: Scene) -> list[PythonDevice]:
    """One user on both nodes."""
    return [await scene.device("alice", 0), await scene.device("alice", 1)]


def sending(room_id: str, content: str = "once", **more: Any) -> dict[str, Any]:
    return {"room_id": room_id, "content": content, "client_msg_id": "the one", **more}


async def stored(pair: Cluster, room_id: str) -> int:
    return await scalar(
        pair.database, "select count(*) from message where room_id = $1::text::uuid", room_id
    )


class TestOverlap:
    async def test_two_nodes_that_retry_one_id_at_once_get_the_same_message(
        self, alices: list[PythonDevice], scene: Scene, pair: Cluster
    ) -> None:
        bob = await scene.device("bob", 1)
        room = await alices[0].create_room("bob")
        for at in range(5):
            payload = sending(room["id"], f"round {at}", client_msg_id=f"round-{at}")
            async with room_held(pair.database, room["id"]):
                both = [
                    asyncio.create_task(alice.call(CHAT, "message.send", payload))
                    for alice in alices
                ]
                await waiting_for_locks(pair.database, 2)
            first, second = await asyncio.gather(*both)
            assert first["message"] == second["message"]
            assert sorted([first["duplicate"], second["duplicate"]]) == [False, True]
            assert first["message"]["seq"] == at + 2
        await bob.say(room["id"], "after")
        await all_see([*alices, bob], room["id"], 7)
        assert bob.texts(room["id"]) == [*(f"round {at}" for at in range(5)), "after"]

    async def test_one_id_twice_in_one_batch_is_one_message(
        self, scene: Scene, pair: Cluster
    ) -> None:
        alices = [await scene.device("alice", 0) for _ in range(2)]
        room = await alices[0].create_room()
        async with room_held(pair.database, room["id"]):
            both = [
                asyncio.create_task(alice.call(CHAT, "message.send", sending(room["id"])))
                for alice in alices
            ]
            await waiting_for_locks(pair.database, 1)
        first, second = await asyncio.gather(*both)
        assert first["message"] == second["message"]
        assert sorted([first["duplicate"], second["duplicate"]]) == [False, True]
        await alices[0].say(room["id"], "after")
        await all_see(alices, room["id"], 3)

    async def test_one_id_with_two_contents_in_one_batch_is_a_conflict_for_one(
        self, scene: Scene, pair: Cluster
    ) -> None:
        alices = [await scene.device("alice", 0) for _ in range(2)]
        room = await alices[0].create_room()
        async with room_held(pair.database, room["id"]):
            both = [
                asyncio.create_task(alice.emit(CHAT, "message.send", sending(room["id"], text)))
                for alice, text in zip(alices, ("this", "that"), strict=True)
            ]
            await waiting_for_locks(pair.database, 1)
        acks = await asyncio.gather(*both)
        assert sorted(ack["ok"] for ack in acks) == [False, True]
        (refused,) = (ack["error"] for ack in acks if not ack["ok"])
        assert refused["code"] == "idempotency.conflict"
        assert await stored(pair, room["id"]) == 1

    async def test_50_parallel_sends_over_two_nodes_are_one_message(
        self, alices: list[PythonDevice], scene: Scene, pair: Cluster
    ) -> None:
        room = await alices[0].create_room()
        path = f"/rooms/{room['id']}/messages"
        body = {"content": "once", "client_msg_id": "the one"}
        over_rest = [await scene.as_user("alice", node) for node in (0, 1)]
        answers = await asyncio.gather(
            *(over_rest[at % 2].post(path, body) for at in range(30)),
            *(alices[at % 2].call(CHAT, "message.send", sending(room["id"])) for at in range(20)),
        )
        sent = [answer.ok() for answer in answers[:30]] + list(answers[30:])
        assert [each["duplicate"] for each in sent].count(False) == 1
        assert {each["message"]["id"] for each in sent} == {sent[0]["message"]["id"]}
        assert all(each["message"] == sent[0]["message"] for each in sent)
        assert await stored(pair, room["id"]) == 1
        await alices[1].say(room["id"], "after")
        await all_see(alices, room["id"], 3)


class TestLater:
    async def test_a_retry_is_answered_with_the_first_message_and_tells_nobody(
        self, alices: list[PythonDevice], scene: Scene
    ) -> None:
        room = await alices[0].create_room()
        first = await alices[0].call(CHAT, "message.send", sending(room["id"]))
        for alice in (*alices, alices[0]):
            again = await alice.call(CHAT, "message.send", sending(room["id"]))
            assert again == {"message": first["message"], "duplicate": True}
        error = await alices[1].refused(CHAT, "message.send", sending(room["id"], "other"))
        assert error["code"] == "idempotency.conflict"
        await alices[0].say(room["id"], "after")
        await all_see(alices, room["id"], 3)

    async def test_the_same_id_of_another_sender_or_room_is_another_message(
        self, alices: list[PythonDevice], scene: Scene
    ) -> None:
        bob = await scene.device("bob", 1)
        room = await alices[0].create_room("bob")
        other = await alices[0].create_room("bob")
        sent = [
            await alices[0].call(CHAT, "message.send", sending(room["id"])),
            await bob.call(CHAT, "message.send", sending(room["id"])),
            await alices[0].call(CHAT, "message.send", sending(other["id"])),
        ]
        assert [each["duplicate"] for each in sent] == [False] * 3
        assert len({each["message"]["id"] for each in sent}) == 3


class TestSystemMessages:
    async def test_a_system_message_twice_is_one(
        self, alices: list[PythonDevice], scene: Scene
    ) -> None:
        room = await alices[0].create_room()
        path = f"/rooms/{room['id']}/messages"
        body = {"content": "The office is closed.", "client_msg_id": "closed-2026"}
        apis = [scene.api, scene.api.at(scene.nodes[1].url)]
        first = await apis[0].post(path, body)
        assert first.status == 201
        assert first.body["message"]["sender"] == "system"
        assert first.body["message"]["sender_id"] is None
        again = await apis[1].post(path, body)
        assert again.status == 200
        assert again.body == {"message": first.body["message"], "duplicate": True}
        parallel = await asyncio.gather(*(apis[at % 2].post(path, body) for at in range(10)))
        assert all(each.ok() == again.body for each in parallel)
        await alices[0].say(room["id"], "after")
        await all_see(alices, room["id"], 3)
        assert alices[1].facts(room["id"])[1]["actor"]["type"] == "system"

    async def test_an_idempotency_key_returns_the_first_answer(self, scene: Scene) -> None:
        await scene.people("alice")
        room = (await scene.api.post("/rooms", {"type": "group", "member_ids": ["alice"]})).ok()
        path = f"/rooms/{room['id']}/messages"
        body, headers = {"content": "hello"}, {"Idempotency-Key": "k-1"}
        first = await scene.api.send("POST", path, body, headers=headers)
        again = await scene.api.at(scene.nodes[1].url).send("POST", path, body, headers=headers)
        assert again.body == first.body
        assert again.headers["Idempotency-Replayed"] == "true"
        other = await scene.api.send("POST", path, {"content": "other"}, headers=headers)
        assert (other.status, other.body["code"]) == (422, "idempotency.conflict")
        log = (await scene.api.get(f"/rooms/{room['id']}/events")).ok()
        assert log["last_seq"] == 2
