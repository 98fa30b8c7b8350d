"""What happens at one room's row: removals against sends, and a session that will not let go."""

import asyncio
from typing import Any

import pytest

from tests.support.clients import CHAT, ROOMS, PythonDevice, all_see
from tests.support.locks import room_held, scalar, waiting_for_locks
from tests.support.nodes import Cluster
from tests.support.scene import Scene

HELD_S = 8.0


@pytest.mark.parametrize("first", ["send", "remove"])
async def test_nothing_of_a_removed_person_comes_after_the_removal(
    scene: Scene, pair: Cluster, first: str
) -> None:
    owner, witness = await scene.device("owner", 0), await scene.device("witness", 1)
    victim = await scene.device("victim", 1)
    room = await owner.create_room("witness", "victim")
    for at in range(4):
        payload = {"room_id": room["id"], "content": f"v{at}", "client_msg_id": f"v{at}"}
        calls = {
            "send": victim.emit(CHAT, "message.send", payload),
            "remove": owner.emit(
                ROOMS, "room.remove", {"room_id": room["id"], "user_id": "victim"}
            ),
        }
        tasks = {}
        async with room_held(pair.database, room["id"]):
            for count, name in enumerate((first, *(set(calls) - {first})), 1):
                tasks[name] = asyncio.create_task(calls[name])
                await waiting_for_locks(pair.database, count)
        sent, removed = await tasks["send"], await tasks["remove"]
        assert removed["ok"]
        await owner.say(room["id"], f"gone {at}")

        (left,) = [fact for fact in await _log(scene, room) if fact["type"] == "member.left"][at:]
        if sent["ok"]:
            assert sent["data"]["message"]["seq"] < left["seq"]
        else:
            assert sent["error"]["code"] == "room.not_member"
        back = {"room_id": room["id"], "user_id": "victim"}
        await owner.call(ROOMS, "room.invite", back)

    log = await _log(scene, room)
    await all_see([owner, witness], room["id"], log[-1]["seq"])
    await victim.has_seq(room["id"], log[-1]["seq"])
    is_member, expected = True, []
    for fact in log:
        about = fact["data"].get("user_id") == "victim"
        assert is_member or fact["actor"]["id"] != "victim"
        is_member = is_member or (about and fact["type"] == "member.joined")
        if is_member:
            expected.append(fact["seq"])
        is_member = is_member and not (about and fact["type"] == "member.left")
    assert victim.seqs(room["id"]) == expected


async def _log(scene: Scene, room: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await scene.api.get(f"/rooms/{room['id']}/events", limit=300)
    facts: list[dict[str, Any]] = answer.ok()["events"]
    return facts


async def test_a_held_room_delays_no_other_room(scene: Scene, pair: Cluster) -> None:
    devices = [await scene.device("alice", 0), await scene.device("bob", 1)]
    held = await devices[0].create_room("bob")
    others = [await devices[0].create_room("bob") for _ in range(20)]
    released = asyncio.Event()

    async def hold() -> None:
        async with room_held(pair.database, held["id"]):
            holding.set()
            await asyncio.sleep(HELD_S)
            released.set()

    async def insist(device: PythonDevice, text: str) -> list[str]:
        """Do as a client does: the same id again until it is taken."""
        answers = []
        payload = {"room_id": held["id"], "content": text, "client_msg_id": text}
        while True:
            ack = await device.emit(CHAT, "message.send", payload)
            answers.append("ok" if ack["ok"] else ack["error"]["code"])
            if ack["ok"]:
                return answers
            assert ack["error"]["retryable"] is True
            await asyncio.sleep(ack["error"]["retry_after_ms"] / 1000)

    holding = asyncio.Event()
    holder = asyncio.create_task(hold())
    await holding.wait()
    stubborn = [
        asyncio.create_task(insist(device, f"{device.name} {at}"))
        for device in devices
        for at in range(3)
    ]
    sent = 0
    while not released.is_set():
        # Each of these acks comes while the room is held: else the next line ends the test.
        async with asyncio.timeout(HELD_S / 2):
            await asyncio.gather(
                *(
                    device.say(room["id"], f"{device.name} {sent}")
                    for room in others
                    for device in devices
                )
            )
        sent += 1
        await asyncio.sleep(0.2)
    await holder
    assert sent >= 3

    answers = await asyncio.gather(*stubborn)
    # Each attempt had an answer, and those while the room was held said so.
    assert all(each[-1] == "ok" for each in answers)
    refusals = [code for each in answers for code in each[:-1]]
    assert set(refusals) == {"unavailable"}
    for room in others:
        await all_see(devices, room["id"], 1 + 2 * sent)
    await all_see(devices, held["id"], 7)
    count = "select count(*) from message where room_id = $1::text::uuid"
    assert await scalar(pair.database, count, held["id"]) == 6
    assert sorted(devices[0].texts(held["id"])) == sorted(
        f"{device.name} {at}" for device in devices for at in range(3)
    )
