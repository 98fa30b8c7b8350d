"""Stock JavaScript clients on two nodes edit, delete, react, pin, read and type; REST agrees."""

from typing import Any

import pytest

from tests.support.clients import CHAT, ROOMS, Device, all_see
from tests.support.javascript import JavaScript, JsDevice
from tests.support.nodes import eventually
from tests.support.scene import Scene

pytestmark = pytest.mark.js


async def pair(js: JavaScript, scene: Scene) -> tuple[JsDevice, JsDevice, str]:
    """Two people on two nodes, and a room of theirs."""
    alice, bob = [
        js.device(name, scene.nodes[node].url, await scene.key_of(name))
        for node, name in enumerate(("alice", "bob"))
    ]
    await alice.connect()
    await bob.connect()
    room = await alice.create_room("bob")
    return alice, bob, room["id"]


def last(device: Device, fact_type: str) -> dict[str, Any]:
    found: dict[str, Any] = device.of_type(fact_type)[-1]
    return found


async def test_what_one_changes_all_see_alike_live_and_later(js: JavaScript, scene: Scene) -> None:
    alice, bob, room = await pair(js, scene)
    message = await alice.say(room, "helo", mentions=["bob", "!here"])
    ref = {"message_id": message["id"]}
    edited = await alice.call(CHAT, "message.edit", {**ref, "content": "hello", "if_version": 1})
    assert (edited["message"]["content"], edited["message"]["version"]) == ("hello", 2)
    conflict = await alice.refused(
        CHAT, "message.edit", {**ref, "content": "hallo", "if_version": 1}
    )
    assert (conflict["code"], conflict["status"]) == ("message.conflict", 409)
    assert conflict["details"] == {"version": 2}
    foreign = await bob.refused(CHAT, "message.edit", {**ref, "content": "mine"})
    assert (foreign["code"], foreign["status"]) == ("message.not_yours", 403)
    await bob.call(CHAT, "message.react", {**ref, "emoji": "👍"})
    await alice.call(CHAT, "message.react", {**ref, "emoji": "👍"})
    await bob.call(CHAT, "message.react", {**ref, "emoji": "party"})
    back = await bob.call(CHAT, "message.unreact", {**ref, "emoji": "party"})
    assert back["counts"] == {"👍": 2}
    await bob.call(CHAT, "message.pin", ref)
    reply = await bob.say(room, "hi", reply_to=message["id"])
    assert reply["thread_id"] == message["id"]
    second = await bob.say(room, "never mind")
    await bob.call(CHAT, "message.delete", {"message_id": second["id"]})
    await bob.call(CHAT, "message.unpin", ref)
    await all_see([alice, bob], room, 12)
    assert [fact["type"] for fact in alice.facts(room)[1:]] == [
        "message.created",
        "message.updated",
        *["reaction.changed"] * 4,
        "pin.changed",
        *["message.created"] * 2,
        "message.deleted",
        "pin.changed",
    ]
    changed = last(alice, "reaction.changed")
    assert changed["data"] == {
        "message_id": message["id"],
        "emoji": "party",
        "user_id": "bob",
        "op": "remove",
        "counts": {"👍": 2},
    }
    # Who comes later gets the same log, with nothing of what was deleted or written over.
    log = (await scene.api.get(f"/rooms/{room}/events")).ok()["events"]
    assert [(fact["seq"], fact["id"]) for fact in log] == [
        (fact["seq"], fact["id"]) for fact in bob.facts(room)
    ]
    assert "helo" not in str(log)
    assert "never mind" not in str(log)
    api = await scene.as_user("bob", 1)
    seen = (await api.get(f"/messages/{message['id']}")).ok()
    assert seen["reactions"] == [{"emoji": "👍", "count": 2, "me": True}]
    assert (seen["reply_count"], seen["mentions"]) == (1, ["bob", "!here"])
    assert (await api.get(f"/messages/{second['id']}")).ok()["content"] == ""


async def test_pointers_and_typing_across_nodes(js: JavaScript, scene: Scene) -> None:
    alice, bob, room = await pair(js, scene)
    phone = js.device("bob", scene.nodes[0].url, await scene.key_of("bob"), label="phone")
    await phone.connect()
    timings = alice.of_type("session.ready")[0]["data"]["limits"]["typing"]
    assert timings["ttl_ms"] == 7000
    assert alice.of_type("session.ready")[0]["data"]["features"]["typing"] is True

    started = await alice.call(CHAT, "typing.start", {"room_id": room})
    assert started == {"throttled": False}
    assert await alice.call(CHAT, "typing.start", {"room_id": room}) == {"throttled": True}
    await eventually(lambda: bob.of_type("typing.state"), why="bob sees alice typing")
    assert last(bob, "typing.state")["data"] == {"users": ["alice"], "count": 1}
    await alice.say(room, "there", mentions=["bob"])
    await eventually(lambda: last(bob, "typing.state")["data"]["count"] == 0)
    assert all(not fact["data"]["users"] for fact in alice.of_type("typing.state"))
    await alice.call(CHAT, "typing.start", {"room_id": room})
    await eventually(lambda: last(bob, "typing.state")["data"]["count"] == 1)
    await alice.close()
    await eventually(lambda: last(bob, "typing.state")["data"]["count"] == 0)

    await bob.has_seq(room, 2)
    marked = await bob.call(CHAT, "read.mark", {"room_id": room, "seq": 2})
    assert (marked["read_seq"], marked["unread"], marked["mentions"]) == (2, 0, 0)
    await eventually(lambda: phone.of_type("read.updated"), why="the other device is told")
    assert last(phone, "read.updated")["data"] == {
        "user_id": "bob",
        "read_seq": 2,
        "unread": 0,
        "mentions": 0,
        "marked_unread": False,
        "total_unread": 0,
    }
    assert "seq" not in last(phone, "read.updated")
    flagged = await phone.call(CHAT, "read.unmark", {"room_id": room})
    assert flagged["marked_unread"] is True
    await eventually(lambda: last(bob, "read.updated")["data"].get("marked_unread") is True)


async def test_others_are_told_how_far_one_has_read(js: JavaScript, scene: Scene) -> None:
    alice, bob, room = await pair(js, scene)
    for text in "123":
        await alice.say(room, text)
    await bob.has_seq(room, 4)
    for seq in (2, 3, 4):
        await bob.call(CHAT, "read.mark", {"room_id": room, "seq": seq})
    await eventually(lambda: alice.of_type("read.updated"), why="alice hears of it")
    assert [fact["data"] for fact in alice.of_type("read.updated")] == [
        {"user_id": "bob", "read_seq": 4}
    ]
    synced = await alice.call(CHAT, "sync", {"rooms": {room: {"epoch": "1.1", "seq": 4}}})
    assert {"user_id": "bob", "read_seq": 4} in synced["rooms"][room]["reads"]


async def test_order_is_kept_by_moderators(js: JavaScript, scene: Scene) -> None:
    alice, bob, room = await pair(js, scene)
    who = {"room_id": room, "user_id": "bob"}
    await alice.call(ROOMS, "room.mute", {**who, "for_s": 60})
    muted = await bob.refused(
        CHAT, "message.send", {"room_id": room, "content": "x", "client_msg_id": "m"}
    )
    assert (muted["code"], muted["status"]) == ("room.muted", 403)
    assert 50_000 < muted["retry_after_ms"] <= 60_000
    await alice.call(ROOMS, "room.unmute", who)
    await alice.call(ROOMS, "room.update", {"room_id": room, "slow_mode_s": 30})
    await bob.say(room, "1")
    slow = await bob.refused(
        CHAT, "message.send", {"room_id": room, "content": "2", "client_msg_id": "s"}
    )
    assert (slow["code"], slow["status"], slow["retryable"]) == ("message.slow_mode", 429, True)
    assert 20_000 < slow["retry_after_ms"] <= 30_000
    await alice.call(
        ROOMS, "room.update", {"room_id": room, "slow_mode_s": 0, "post_role": "moderator"}
    )
    quiet = await bob.refused(
        CHAT, "message.send", {"room_id": room, "content": "3", "client_msg_id": "q"}
    )
    assert quiet["code"] == "room.read_only"
    await alice.call(ROOMS, "room.ban", {**who, "reason": "enough"})
    await eventually(lambda: any(f["type"] == "member.left" for f in bob.facts(room)))
    api = await scene.as_user("alice")
    again = await api.put(f"/rooms/{room}/members/bob")
    assert (again.status, again.body["code"]) == (403, "room.banned")
    assert [ban["user_id"] for ban in (await api.get(f"/rooms/{room}/bans")).ok()["items"]] == [
        "bob"
    ]
    (await api.delete(f"/rooms/{room}/bans/bob")).ok()
    (await api.put(f"/rooms/{room}/members/bob")).ok()


async def test_the_trace_says_how_far_a_message_came(js: JavaScript, scene: Scene) -> None:
    alice, bob, room = await pair(js, scene)
    message = await alice.say(room, "where is it?")
    await bob.has_seq(room, 2)
    await bob.call(CHAT, "read.mark", {"room_id": room, "seq": 2})
    api = await scene.as_user("alice")
    trace = (await api.get(f"/messages/{message['id']}/trace")).ok()
    assert (trace["seq"], trace["members_count"]) == (2, 2)
    assert trace["fact_id"] == last(bob, "message.created")["id"]
    assert (trace["read_count"], trace["read_by"]) == (2, ["alice", "bob"])
    nodes = {each["node"]: each for each in trace["nodes"]}
    assert len(nodes) == 2
    assert {each["sockets"] for each in nodes.values()} == {1}
    assert {each["head"] for each in nodes.values()} == {2}
    # The same on the socket, and why somebody did not get it.
    await scene.people("carol")
    room2 = (await alice.create_room("bob", "carol"))["id"]
    lost = await alice.say(room2, "nobody tells carol")
    hook = {"url": "https://8.8.8.8/hook", "events": ["message.*"], "room_ids": [room]}
    (await scene.api.post("/webhooks/endpoints", hook)).ok()
    own: dict[str, Any] = {}

    async def says_who_is_there() -> bool:
        own.update(await alice.call(CHAT, "message.trace", {"message_id": lost["id"]}))
        statuses = {each["user_id"]: each["status"] for each in own["unread_by"]}
        return statuses == {"bob": "online", "carol": "offline"}

    # Nodes tell each other once a second who has come.
    await eventually(says_who_is_there, why="the trace says who is there")
    assert "webhooks" not in own
    whole = (await scene.api.get(f"/messages/{lost['id']}/trace")).ok()
    assert [each["state"] for each in whole["webhooks"]] == ["not_wanted"]
    assert whole["notifications"] == []
    refused = await (await scene.as_user("bob", 1)).get(f"/messages/{message['id']}/trace")
    assert (refused.status, refused.body["code"]) == (403, "message.not_yours")


async def test_the_rest_is_the_same_by_either_door(js: JavaScript, scene: Scene) -> None:
    """What the others above do by one door alone: here the JavaScript client, and REST."""
    alice, bob, room = await pair(js, scene)
    rest = {"alice": await scene.as_user("alice"), "bob": await scene.as_user("bob", 1)}
    here = {"room_id": room}

    first = await alice.say(room, "one")
    await bob.say(room, "reply", reply_to=first["id"])
    ref = {"message_id": first["id"]}
    await alice.call(CHAT, "message.edit", {**ref, "content": "two", "if_version": 1})
    (await rest["alice"].patch(f"/messages/{first['id']}", {"content": "three"})).ok()
    (await rest["bob"].put(f"/messages/{first['id']}/reactions/party")).ok()
    for command, path in (
        ("message.get", ""),
        ("message.thread", "/thread"),
        ("message.edits", "/edits"),
        ("reaction.list", "/reactions"),
    ):
        by_rest = (await rest["alice"].get(f"/messages/{first['id']}{path}")).ok()
        assert await alice.call(CHAT, command, ref) == by_rest, command
    reacted = await bob.call(CHAT, "reaction.list", ref)
    assert [(it["user_id"], it["emoji"]) for it in reacted["items"]] == [("bob", "party")]
    past = await alice.call(CHAT, "message.edits", ref)
    assert [(it["version"], it["content"]) for it in past["items"]] == [(1, "one"), (2, "two")]
    closed = await alice.refused(CHAT, "message.edit", {**ref, "content": "x", "attachments": []})
    assert (closed["code"], closed["details"][0]["field"]) == ("payload.invalid", "attachments")

    own = {**here, "user_id": "bob"}
    liked = await bob.call(
        ROOMS, "member.update", {**own, "is_favorite": True, "notification_level": "none"}
    )
    assert (liked["is_favorite"], liked["notification_level"]) == (True, "none")
    seen = await alice.call(ROOMS, "member.list", here)
    assert all("is_favorite" not in each for each in seen["items"])  # private
    mine = (await rest["bob"].get(f"/rooms/{room}")).ok()["me"]
    assert (mine["is_favorite"], mine["notification_level"]) == (True, "none")
    assert (
        await bob.call(ROOMS, "member.list", here)
        == (await rest["bob"].get(f"/rooms/{room}/members")).ok()
    )
    assert await bob.call(CHAT, "read.summary", {}) == (await rest["bob"].get("/me/unread")).ok()


async def test_invites_flags_and_tickets_by_either_door(js: JavaScript, scene: Scene) -> None:
    alice, bob, room = await pair(js, scene)
    rest = {"alice": await scene.as_user("alice")}
    here = {"room_id": room}
    first = await alice.say(room, "one")
    ref = {"message_id": first["id"]}
    invite = await alice.call(ROOMS, "invite.create", {**here, "max_uses": 1})
    carol = await js.device("carol", scene.nodes[1].url, await scene.key_of("carol")).connect()
    seen = await carol.call(ROOMS, "invite.preview", {"code": invite["code"]})
    assert (seen["room_id"], seen["is_member"]) == (room, False)
    await carol.call(ROOMS, "invite.accept", {"code": invite["code"]})
    await scene.people("dave")
    late = await (await scene.as_user("dave")).post(f"/invites/{invite['code']}/accept")
    assert (late.status, late.body["code"]) == (410, "invite.ended")
    await carol.say(room, "let me in")

    await carol.call(CHAT, "message.flag", {**ref, "reason": "rude"})
    [flag] = (await alice.call(CHAT, "flag.list", here))["items"]
    assert (flag["message_id"], flag["flagged_by"]) == (first["id"], "carol")
    done = await rest["alice"].post(f"/moderation/flags/{flag['id']}/resolve", {"action": "delete"})
    assert done.status == 200
    assert (await alice.call(CHAT, "message.get", ref))["deleted_at"] is not None

    ticket = (await carol.create_room(type="support", title="help"))["id"]
    await scene.api.post(f"/rooms/{ticket}/members", {"user_ids": ["alice"], "role": "moderator"})
    await carol.say(ticket, "it does not work")
    [item] = (await alice.call(ROOMS, "support.queue", {}))["items"]
    assert (item["room"]["id"], item["status"], item["requester_id"]) == (ticket, "open", "carol")
    await alice.call(ROOMS, "support.assign", {"room_id": ticket, "user_id": "alice"})
    (await rest["alice"].post(f"/rooms/{ticket}/close")).ok()
    [shut] = (await rest["alice"].get("/support/queue", status="closed")).ok()["items"]
    assert shut["assignee_id"] == "alice"

    await alice.call(ROOMS, "room.update", {**here, "is_archived": True})
    refused = await (await scene.as_user("bob")).post(f"/rooms/{room}/messages", {"content": "x"})
    assert (refused.status, refused.body["code"]) == (409, "room.archived")
    assert (
        await alice.call(ROOMS, "ban.list", here)
        == (await rest["alice"].get(f"/rooms/{room}/bans")).ok()
    )
    await alice.call(ROOMS, "room.delete", here)
    await eventually(lambda: any(f["type"] == "room.deleted" for f in bob.facts(room)))
