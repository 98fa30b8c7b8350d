"""Stock clients converse across two nodes, whatever they are written in and connected by."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import pytest

from tests.support.clients import (
    CHAT,
    ROOMS,
    Device,
    PythonDevice,
    RefusedError,
    all_see,
)
from tests.support.javascript import JavaScript
from tests.support.nodes import eventually
from tests.support.scene import Scene

Make = Callable[[str, int], Any]

KINDS: Final[dict[str, dict[str, Any]]] = {
    "js, polling then upgrade": {},
    "js, websocket only": {"transports": ["websocket"]},
    "js, polling only": {"transports": ["polling"]},
    "python, polling then upgrade": {"transports": None},
    "python, websocket only": {"transports": ["websocket"]},
    "python, polling only": {"transports": ["polling"]},
}


@pytest.fixture(
    params=[pytest.param(kind, marks=pytest.mark.js) if "js" in kind else kind for kind in KINDS]
)
async def make(request: pytest.FixtureRequest, scene: Scene) -> AsyncIterator[Make]:
    """Make devices of one kind on a node."""
    options = KINDS[request.param]
    if not request.param.startswith("js"):

        async def python(name: str, node: int) -> Device:
            url, key = scene.nodes[node].url, await scene.key_of(name)
            return scene.keep(PythonDevice(name, url, key, **options))

        yield python
        return
    async with JavaScript() as js:

        async def javascript(name: str, node: int) -> Device:
            return js.device(name, scene.nodes[node].url, await scene.key_of(name), **options)

        yield javascript


class TestConversation:
    async def test_two_nodes_tell_everyone_the_same(self, make: Make, scene: Scene) -> None:
        alice: Device = await (await make("alice", 0)).connect()
        bob: Device = await (await make("bob", 1)).connect()

        room = await alice.create_room("bob", title="Both")
        assert room["created"] is True
        assert room["members_count"] == 2
        for turn in range(4):
            speaker = (alice, bob)[turn % 2]
            message = await speaker.say(room["id"], f"turn {turn}")
            assert message["sender_id"] == speaker.name
            assert message["seq"] == turn + 2
        left = await bob.call(ROOMS, "room.leave", {"room_id": room["id"]})
        assert left["members_count"] == 1

        await all_see([alice, bob], room["id"], 6)
        types = [fact["type"] for fact in alice.facts(room["id"])]
        assert types == ["room.created", *["message.created"] * 4, "member.left"]
        log = (await scene.api.get(f"/rooms/{room['id']}/events")).ok()["events"]
        assert [_identity(fact) for fact in log] == [
            _identity(fact) for fact in bob.facts(room["id"])
        ]
        # `/rooms` is the same without the messages.
        await eventually(lambda: len(alice.facts(room["id"], ROOMS)) == 2)
        assert alice.seqs(room["id"], ROOMS) == [1, 6]
        assert alice.facts(room["id"], ROOMS)[0] == alice.facts(room["id"])[0]

    async def test_a_message_of_20000_characters_passes(self, make: Make) -> None:
        alice: Device = await (await make("alice", 0)).connect()
        bob: Device = await (await make("bob", 1)).connect()
        room = await alice.create_room("bob")
        long = "".join(chr(0x4E00 + at % 2000) for at in range(20_000))
        message = await alice.say(room["id"], long)
        assert message["content"] == long
        await all_see([alice, bob], room["id"], 2)
        assert bob.texts(room["id"]) == [long]
        error = await alice.refused(
            CHAT,
            "message.send",
            {"room_id": room["id"], "content": long + "!", "client_msg_id": "longer"},
        )
        assert error["code"] == "message.too_long"


def _identity(fact: dict[str, Any]) -> tuple[Any, ...]:
    return fact["type"], fact["id"], fact["seq"], fact["epoch"]


@pytest.mark.js
class TestJavaScript:
    async def test_the_default_transport_is_upgraded_and_stays_usable(
        self, js: JavaScript, scene: Scene
    ) -> None:
        alice = js.device("alice", scene.nodes[0].url, await scene.key_of("alice"))
        await alice.connect()
        await alice.upgraded()
        room = await alice.create_room()
        await alice.say(room["id"], "over WebSocket")
        await all_see([alice], room["id"], 2)

    @pytest.mark.parametrize("transports", [["polling", "websocket"], ["polling"], ["websocket"]])
    async def test_40_emits_before_the_upgrade_arrive_in_order(
        self, js: JavaScript, scene: Scene, transports: list[str]
    ) -> None:
        await scene.people("alice", "bob")
        bob = await scene.device("bob", 1)
        room = (
            await scene.api.post("/rooms", {"type": "group", "member_ids": ["alice", "bob"]})
        ).ok()
        alice = js.device(
            "alice", scene.nodes[0].url, await scene.key_of("alice"), transports=transports
        )
        payloads = [
            {"room_id": room["id"], "content": f"{at}", "client_msg_id": f"{at}"}
            for at in range(40)
        ]
        acks = await alice.connect_and_emit(CHAT, "message.send", payloads)
        assert [ack["data"]["message"]["content"] for ack in acks] == [f"{at}" for at in range(40)]
        await bob.has_seq(room["id"], 41)
        assert bob.texts(room["id"]) == [f"{at}" for at in range(40)]
        assert bob.seqs(room["id"]) == list(range(1, 42))

    async def test_a_client_that_lost_its_line_comes_back_and_catches_up(
        self, js: JavaScript, scene: Scene
    ) -> None:
        alice = js.device(
            "alice", scene.nodes[0].url, await scene.key_of("alice"), reconnectionDelay=1500
        )
        await alice.connect()
        bob = await scene.device("bob", 1)
        room = await alice.create_room("bob")
        synced = await alice.call(CHAT, "sync", {})
        await alice.lose()
        await eventually(lambda: len(alice.disconnects) == 2)
        await bob.say(room["id"], "while you were away")
        await eventually(lambda: len(alice.of_type("session.ready")) == 2)
        there = await alice.call(
            CHAT,
            "sync",
            {
                "cursor": synced["cursor"],
                "rooms": {room["id"]: {"epoch": room["epoch"], "seq": room["last_seq"]}},
            },
        )
        (missed,) = there["rooms"][room["id"]]["events"]
        assert missed["data"]["message"]["content"] == "while you were away"
        await bob.say(room["id"], "and now")
        await eventually(lambda: alice.texts(room["id"])[-1:] == ["and now"])


class TestRefusals:
    @pytest.fixture(params=[pytest.param("js", marks=pytest.mark.js), "python"])
    async def refused(
        self, request: pytest.FixtureRequest, scene: Scene
    ) -> AsyncIterator[Callable[..., Any]]:
        """Connect with some `auth` and give the refusal."""

        async def refusal(device: Any, namespace: str, auth: Any) -> RefusedError:
            with pytest.raises(RefusedError) as caught:
                await device.connect(namespace, auth=auth)
            assert device.events == {}
            return caught.value

        if request.param == "python":
            yield lambda namespace, auth: refusal(
                scene.keep(PythonDevice("nobody", scene.nodes[0].url, None)), namespace, auth
            )
            return
        async with JavaScript() as js:
            yield lambda namespace, auth: refusal(
                js.device("nobody", scene.nodes[0].url, None), namespace, auth
            )

    async def test_the_root_namespace_is_refused_with_a_sentence_that_names_the_three(
        self, refused: Any, scene: Scene
    ) -> None:
        found = await refused("/", {"token": await scene.key_of("alice")})
        assert found.error["code"] == "namespace.unknown"
        assert all(name in found.error["message"] for name in ("/rooms", "/chat", "/notifications"))

    @pytest.mark.parametrize(
        ("auth", "code"),
        [
            ({}, "auth.missing"),
            ({"token": ""}, "auth.missing"),
            ({"token": "nonsense"}, "auth.invalid"),
            ({"token": 7}, "auth.invalid"),
        ],
    )
    async def test_no_key_and_no_real_key_are_refused(
        self, refused: Any, auth: Any, code: str
    ) -> None:
        for namespace in (ROOMS, CHAT):
            found = await refused(namespace, auth)
            assert found.error["code"] == code
            assert found.error["status"] in {401, 422}

    async def test_a_key_with_a_wrong_secret_is_invalid(self, refused: Any, scene: Scene) -> None:
        key = await scene.key_of("alice")
        forged = key[:-8] + ("A" * 8 if not key.endswith("A" * 8) else "B" * 8)
        assert (await refused(CHAT, {"token": forged})).error["code"] == "auth.invalid"

    async def test_a_master_key_is_refused_on_a_socket(self, refused: Any, scene: Scene) -> None:
        assert (await refused(CHAT, {"token": scene.master_key})).error["code"] == "auth.invalid"

    async def test_a_revoked_key_is_refused(self, refused: Any, scene: Scene) -> None:
        key = await scene.key_of("alice")
        (await scene.api.post("/users/alice/revoke")).ok()
        assert (await refused(CHAT, {"token": key})).error["code"] == "auth.revoked"

    async def test_a_refused_connect_hears_nothing_and_can_do_nothing(
        self, refused: Any, scene: Scene
    ) -> None:
        # `refused` asserts that not one event came, and this that others go on meanwhile.
        alice = await scene.device("alice")
        room = await alice.create_room()
        talking = asyncio.create_task(_talk(alice, room["id"]))
        await refused(CHAT, {"token": "nonsense"})
        await talking
        await all_see([alice], room["id"], 21)


async def _talk(device: Device, room_id: str) -> None:
    for at in range(20):
        await device.say(room_id, f"{at}")


async def test_revoking_a_key_ends_its_sockets_on_every_node(scene: Scene) -> None:
    devices = [await scene.device("alice", 0), await scene.device("alice", 1)]
    bob = await scene.device("bob", 1)
    (await scene.api.post("/users/alice/revoke")).ok()
    for device in devices:
        await eventually(lambda it=device: not it.client.connected)  # type: ignore[misc]
        closings = device.of_type("session.closing", ROOMS) + device.of_type("session.closing")
        assert [closing["data"]["code"] for closing in closings] == ["auth.revoked"]
    assert bob.client.connected


async def test_devices_of_one_user_see_what_one_of_them_does(scene: Scene) -> None:
    phone, laptop = await scene.device("alice", 0), await scene.device("alice", 1)
    room = await phone.create_room()
    await phone.say(room["id"], "from my phone")
    await laptop.say(room["id"], "from my laptop")
    await all_see([phone, laptop], room["id"], 3)
