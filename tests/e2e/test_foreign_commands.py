"""A walk over every command with ids that are none of the caller's business.

A new command without an entry here fails.
"""

from typing import Any, Final

import pytest

from chatserver.operations import NAMESPACES, build_registry
from tests.support.clients import CHAT, ROOMS, PythonDevice
from tests.support.houses import UNKNOWN, House
from tests.support.locks import value
from tests.support.nodes import Cluster

REGISTRY: Final = build_registry()
COMMANDS: Final = [
    (namespace, operation.name)
    for operation in REGISTRY.operations.values()
    for namespace in operation.namespaces
]
IDS: Final = {"room_id", "message_id", "user_id", "member_ids", "rooms", "room_ids", "key_id"}
BAD_IDS: Final[tuple[Any, ...]] = ("nonsense!", "", 7, None, True, {}, "0" * 5000)


def payload_of(command: str, ids: dict[str, str]) -> dict[str, Any]:
    """Give a right payload for a command, about the given things."""
    room = {"room_id": ids["room"]}
    message = {"message_id": ids["message"]}
    payloads: dict[str, dict[str, Any]] = {
        "room.create": {"type": "group", "member_ids": [ids["user"]]},
        "room.get": room,
        "room.list": {},
        "room.update": {**room, "title": "taken over"},
        "room.join": room,
        "room.leave": room,
        "room.invite": {**room, "user_id": "onlyb"},
        "room.remove": {**room, "user_id": ids["user"]},
        "room.mute": {**room, "user_id": ids["user"]},
        "room.unmute": {**room, "user_id": ids["user"]},
        "room.ban": {**room, "user_id": ids["user"]},
        "room.unban": {**room, "user_id": ids["user"]},
        "room.deactivate": room,
        "room.reactivate": room,
        "room.watch": room,
        "room.unwatch": room,
        "message.send": {**room, "content": "I was here", "client_msg_id": "intruder"},
        "message.history": room,
        "message.search": {**room, "q": "own"},
        "message.get": message,
        "message.thread": message,
        "message.edits": message,
        "message.trace": message,
        "reaction.list": message,
        "read.summary": {},
        "member.list": room,
        "member.update": {**room, "user_id": ids["user"], "role": "guest"},
        "ban.list": room,
        "room.delete": room,
        "message.edit": {**message, "content": "I was here"},
        "message.delete": message,
        "message.react": {**message, "emoji": "👍"},
        "message.unreact": {**message, "emoji": "👍"},
        "message.pin": message,
        "message.unpin": message,
        "read.mark": room,
        "read.unmark": room,
        "typing.start": room,
        "typing.stop": room,
        "sync": {"rooms": {ids["room"]: {"epoch": "1.1", "seq": 0}}},
        "room.replay": {**room, "after_seq": 0},
        "presence.set": {"status": "online"},
        "presence.watch": {"room_ids": [ids["room"]]},
        "room.bots": room,
        "room.add_bot": {**room, "bot_id": ids["bot"]},
        "room.remove_bot": {**room, "bot_id": ids["bot"]},
        "assistant.ask": {**room, "content": "I was here", "client_msg_id": "intruder"},
        "assistant.cancel": {"message_id": ids["answer"]},
        "assistant.catch_up": {"message_id": ids["answer"]},
        "assistant.resume": {"message_id": ids["answer"]},
        "invite.create": room,
        "invite.list": room,
        "invite.revoke": {**room, "invite_id": ids["invite"]},
        "invite.preview": {"code": ids["code"]},
        "invite.accept": {"code": ids["code"]},
        "support.queue": {},
        "support.assign": {**room, "user_id": None},
        "support.close": room,
        "support.reopen": room,
        "message.flag": message,
        "flag.list": room,
        "flag.resolve": {"flag_id": ids["flag"], "action": "dismiss"},
        "notification.list": {},
        "notification.ack": {"ids": [ids["notification"]]},
        "notification.read": {"ids": [ids["notification"]]},
        "notification.read_all": {},
        "auth.confirm": {"key_id": ids["user key"]},
        "auth.refresh": {"token": "nobody's"},
    }
    return payloads[command]


# These do not fail for what is not one's own: they list, compare, or find nothing to end.
SUCCEEDING: Final = {
    *("room.list", "sync", "room.unwatch", "presence.set", "support.queue", "flag.list"),
    "read.summary",
    *("notification.list", "notification.ack", "notification.read", "notification.read_all"),
}
# Whoever of the client holds a code comes in by it: that is what it is for. Of another client's
# code tests/integration/invites/test_service.py.
BY_CODE: Final = {"invite.preview", "invite.accept"}
# About one's own credential: nothing that could be there or not.
REFUSING: Final = {"auth.confirm": 422, "auth.refresh": 401}


# Their ids may be left out, and so be null.
OPTIONAL: Final = {"message.search", "support.assign", "flag.list"}


def log_end(state: list[Any]) -> int:
    [log] = [each for each in state if isinstance(each, dict) and "last_seq" in each]
    end: int = log["last_seq"]
    return end


class TestCommands:
    @pytest.fixture
    async def spies(self, theirs: House, mine: House) -> list[PythonDevice]:
        return [
            await mine.scene.device("onlyb", namespaces=NAMESPACES),
            await theirs.scene.device("stranger", 1, namespaces=NAMESPACES),
        ]

    async def test_foreign_and_unknown_ids_are_the_same_refusal(
        self, theirs: House, spies: list[PythonDevice]
    ) -> None:
        before = await theirs.state()
        watching = await theirs.scene.device(theirs.ids["user"], 1)
        for namespace, command in COMMANDS:
            for spy in spies:
                if command in BY_CODE and spy.name == "stranger":
                    continue
                acks = []
                for ids in (theirs.ids, UNKNOWN):
                    ack = await spy.emit(namespace, command, payload_of(command, ids))
                    assert theirs.canary not in str(ack), (command, ack)
                    ack.get("error", {}).pop("trace_id", None)
                    acks.append(ack)
                if command in SUCCEEDING:
                    assert all(ack["ok"] for ack in acks), (command, acks)
                    continue
                if command == "room.create" and spy.name == "stranger":
                    continue  # a person of the same client may be invited
                assert acks[0] == acks[1], (namespace, command)
                assert acks[0]["error"]["status"] == REFUSING.get(command, 404), (command, acks)
        for spy in spies:
            synced = await spy.call(CHAT, "sync", payload_of("sync", theirs.ids))
            compared = synced["rooms"][theirs.ids["room"]]
            assert compared == {"error": compared["error"]}
            assert compared["error"]["code"] == "room.not_found"

        # The owner of the room says something: whoever tried to watch it hears nothing.
        said = await theirs.scene.api.post(
            f"/rooms/{theirs.ids['room']}/messages", {"content": f"{theirs.canary} again"}
        )
        await watching.has_seq(theirs.ids["room"], said.ok()["message"]["seq"])
        for spy in spies:
            assert theirs.canary not in str(dict(spy.events))
            assert spy.seqs(theirs.ids["room"]) == []
        assert log_end(await theirs.state()) == log_end(before) + 1

    async def test_malformed_ids_are_named(self, spies: list[PythonDevice]) -> None:
        for namespace, command in COMMANDS:
            payload = payload_of(command, UNKNOWN)
            for field in IDS & set(payload):
                for bad in BAD_IDS:
                    if bad is None and command in OPTIONAL:
                        continue
                    wrong = bad
                    if field in {"member_ids", "room_ids"}:
                        wrong = [bad]
                    elif field == "rooms":
                        wrong = {"nonsense!": bad}
                    error = await spies[0].refused(namespace, command, {**payload, field: wrong})
                    assert error["code"] == "payload.invalid", (command, field, bad, error)
                    named = [issue["field"].partition(".")[0] for issue in error["details"]]
                    assert field in named or (field == "user_id" and bad is None), (command, error)
        assert await spies[0].create_room()


async def test_no_answer_and_no_fact_names_a_person_by_a_server_id(
    mine: House, pair: Cluster
) -> None:
    person, room = mine.ids["user"], {"room_id": mine.ids["room"]}
    server_id = await value(
        pair.database,
        "select id::text from app_user where external_id = $1 and client_id = $2::text::uuid",
        person,
        mine.ids["client"],
    )
    device = await mine.scene.device(person)
    api = await mine.scene.as_user(person)
    told: list[Any] = [
        await device.create_room("stranger"),
        await device.say(mine.ids["room"], "hello"),
        await device.call(CHAT, "sync", {}),
        await device.call(CHAT, "room.replay", {**room, "after_seq": 0}),
        await device.call(CHAT, "message.history", room),
        await device.call(ROOMS, "room.get", room),
        await device.call(ROOMS, "room.leave", room),
        await mine.state(),
    ]
    for path in ("/me", f"/users/{person}", f"/users/{person}/keys", "/rooms"):
        told += [(await api.get(path)).ok()]
    for path in ("events", "snapshot", "members", "messages"):
        told += [(await mine.scene.api.get(f"/rooms/{mine.ids['room']}/{path}")).ok()]
    await device.has_seq(mine.ids["room"], 5)
    assert len(server_id) == 36
    assert server_id not in str(told)
    assert server_id not in str(dict(device.events))
