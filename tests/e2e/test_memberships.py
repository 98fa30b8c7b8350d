"""Membership is the subscription: whoever comes and goes, wherever, sees exactly his part."""

import asyncio
import random

import pytest

from tests.support.clients import CHAT, ROOMS, PythonDevice, all_see
from tests.support.logs import log_of, stays_of
from tests.support.nodes import eventually
from tests.support.scene import Scene

FIRST = {"user-0", "user-1"}


@pytest.mark.parametrize("seed", [1, 2])
async def test_everyone_sees_exactly_what_the_log_says_of_his_time(scene: Scene, seed: int) -> None:
    chance = random.Random(seed)
    names = [f"user-{at}" for at in range(6)]
    await scene.people("owner", *names)
    owner = await scene.device("owner", 0)
    devices = [await scene.device(name, at % 2) for at, name in enumerate(names)]
    rooms = [(await owner.create_room(*FIRST))["id"] for _ in range(3)]
    refusals: set[str] = set()

    async def act(device: PythonDevice) -> None:
        for at in range(60):
            room_id = chance.choice(rooms)
            who = {"room_id": room_id, "user_id": chance.choice(names)}
            what = chance.random()
            if what < 0.7:
                content = {"content": f"{at}", "client_msg_id": f"{room_id} {at}"}
                ack = await device.emit(CHAT, "message.send", {"room_id": room_id, **content})
            elif what < 0.8:
                ack = await device.emit(ROOMS, "room.leave", {"room_id": room_id})
            elif what < 0.92:
                ack = await owner.emit(ROOMS, "room.invite", who)
            else:
                ack = await owner.emit(ROOMS, "room.remove", who)
            if not ack["ok"]:
                refusals.add(ack["error"]["code"])

    await asyncio.gather(*(act(device) for device in devices))
    assert refusals <= {"room.not_found", "room.not_member", "member.not_found"}
    for room_id in rooms:
        await owner.say(room_id, "the end")
        log = await log_of(scene.api, room_id)
        await all_see([owner], room_id, len(log))
        for device in devices:
            stays, is_in = stays_of(log, device.name, was_first=device.name in FIRST)
            mine = [seq for stay in stays for seq in stay]
            if mine:
                await device.has_seq(room_id, mine[-1])
            assert device.seqs(room_id) == mine, (device.name, room_id)
            lobby = [fact["seq"] for fact in log if fact["type"] != "message.created"]
            await eventually(
                lambda it=device, room=room_id, seqs=mine, known=lobby: (  # type: ignore[misc]
                    it.seqs(room, ROOMS) == [seq for seq in seqs if seq in known]
                ),
                within_s=10,
                why=f"{device.name} sees the same in /rooms",
            )
            shown = (await (await scene.as_user(device.name)).get("/rooms")).ok()["items"]
            assert (room_id in {room["id"] for room in shown}) is is_in


async def test_a_channel_is_joined_watched_and_left_on_another_node(scene: Scene) -> None:
    owner = await scene.device("owner", 0)
    member, guest = await scene.device("member", 1), await scene.device("guest", 1)
    channel = await owner.create_room(type="channel", title="News")
    where = {"room_id": channel["id"]}
    joined = await member.call(ROOMS, "room.join", where)
    assert joined["added"] == ["member"]
    watching = await guest.call(CHAT, "room.watch", where)
    assert watching["last_seq"] == 1
    await owner.say(channel["id"], "first")
    # Joins of a channel are not in its log.
    for device in (owner, member, guest):
        await device.has_seq(channel["id"], 2)
    refused = await guest.refused(
        CHAT, "message.send", {**where, "content": "x", "client_msg_id": "x"}
    )
    assert refused["code"] == "room.not_member"
    await guest.call(CHAT, "room.unwatch", where)
    await member.call(ROOMS, "room.leave", where)
    await owner.say(channel["id"], "second")
    await owner.has_seq(channel["id"], 3)
    later = await owner.create_room("guest", "member", title="after it")
    await guest.has_seq(later["id"], 1)
    await member.has_seq(later["id"], 1)
    assert member.seqs(channel["id"]) == [2]
    assert guest.seqs(channel["id"]) == [2]


async def test_a_private_room_cannot_be_watched_or_joined(scene: Scene) -> None:
    owner, stranger = await scene.device("owner", 0), await scene.device("stranger", 1)
    room = await owner.create_room()
    for namespace, command in ((CHAT, "room.watch"), (ROOMS, "room.watch"), (ROOMS, "room.join")):
        error = await stranger.refused(namespace, command, {"room_id": room["id"]})
        assert error["code"] == "room.not_found"
    await owner.say(room["id"], "secret")
    await owner.has_seq(room["id"], 2)
    assert stranger.seqs(room["id"]) == []


async def test_700_people_come_in_at_once_in_two_facts(scene: Scene) -> None:
    owner = await scene.device("owner", 0)
    names = [f"p-{at}" for at in range(700)]
    for start in range(0, 700, 50):
        made = await asyncio.gather(
            *(scene.api.put(f"/users/{name}") for name in names[start : start + 50])
        )
        assert all(each.status == 201 for each in made)
    last = await scene.device("p-699", 1)
    room = await owner.create_room()
    added = await scene.api.post(f"/rooms/{room['id']}/members", {"user_ids": names})
    assert added.ok()["members_count"] == 701
    await owner.say(room["id"], "welcome")
    await all_see([owner], room["id"], 4)
    facts = owner.facts(room["id"])
    assert [len(fact["data"].get("user_ids", [])) for fact in facts] == [0, 500, 200, 0]
    await last.has_seq(room["id"], 4)
    assert last.seqs(room["id"]) == [3, 4]


async def test_history_from_the_join_on_shows_nothing_before(scene: Scene) -> None:
    owner, late = await scene.device("owner", 0), await scene.device("late", 1)
    room = await owner.create_room(history="joined")
    await owner.say(room["id"], "before her time")
    await owner.call(ROOMS, "room.invite", {"room_id": room["id"], "user_id": "late"})
    await owner.say(room["id"], "in her time")
    await late.has_seq(room["id"], 4)
    assert late.seqs(room["id"]) == [3, 4]
    where = {"room_id": room["id"]}
    read = await late.call(CHAT, "message.history", where)
    assert [each["content"] for each in read["items"]] == ["in her time"]
    told = await late.refused(CHAT, "room.replay", {**where, "after_seq": 0})
    assert told["code"] == "history.truncated"
    api = await scene.as_user("late", 1)
    answers = [
        await api.get(f"/rooms/{room['id']}/{path}") for path in ("messages", "snapshot", "events")
    ]
    assert all("before her time" not in str(answer.body) for answer in answers)
    (hidden,) = [
        fact["data"]["message"]["id"] for fact in owner.facts(room["id"]) if fact["seq"] == 2
    ]
    assert (await api.get(f"/messages/{hidden}")).body["code"] == "message.not_found"
