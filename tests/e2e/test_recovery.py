"""The JavaScript client's own connection state recovery: on request, exact or not at all."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.clients import CHAT, ROOMS, all_see
from tests.support.javascript import JavaScript, JsDevice
from tests.support.nodes import eventually
from tests.support.scene import Scene

pytestmark = pytest.mark.js


class RecoveringDevice(JsDevice):
    """A stock client that asked for recovery: facts come with an offset."""

    offsets: list[str]

    def note(self, namespace: str, event: str, args: Sequence[Any]) -> None:
        if namespace == CHAT:
            self.offsets = [*getattr(self, "offsets", []), *args[1:]]
        super().note(namespace, event, args[:1])

    async def state(self) -> dict[str, Any]:
        found: dict[str, Any] = await self._js.do("state", self.label, namespace=CHAT)
        return found

    async def use(self, key: str) -> None:
        """Come back with this key."""
        auth = {"token": key, "recovery": True}
        await self._js.do("use", self.label, namespace=CHAT, auth=auth)

    async def again(self) -> dict[str, Any]:
        """Connect after a refusal; whether it was taken, and whether it recovered."""
        found: dict[str, Any] = await self._js.do("again", self.label, namespace=CHAT)
        return found

    def handed_out(self) -> str:
        """Give the key that this client was told to use from now on."""
        key: str = self.of_type("auth.rotated")[-1]["data"]["key"]
        return key

    async def back(self, times: int) -> bool:
        """Wait for the next `session.ready`; whether the client takes itself for recovered."""
        await eventually(
            lambda: len(self.of_type("session.ready")) == times, why=f"{self.name} is back"
        )
        return bool((await self.state())["recovered"])


async def recovering(
    scene: Scene, js: JavaScript, name: str, node: int = 0, **options: Any
) -> RecoveringDevice:
    device = RecoveringDevice(
        js,
        f"recovering-{name}-{node}",
        name,
        scene.nodes[node].url,
        await scene.key_of(name),
        # Time for something to happen while it is away.
        {"reconnectionDelay": 1500, "reconnectionDelayMax": 1500, "randomizationFactor": 0}
        | options,
    )
    js._devices[device.label] = device
    await device.connect(CHAT, auth={"token": device.key, "recovery": True})
    return device


TRANSPORTS = [{"transports": ["websocket"]}, {"transports": ["polling"]}, {}]


class TestRecovery:
    @pytest.mark.parametrize("options", TRANSPORTS, ids=["websocket", "polling", "both"])
    async def test_what_was_missed_comes_in_order_several_times_in_a_row(
        self, scene: Scene, js: JavaScript, options: dict[str, Any]
    ) -> None:
        alice = await scene.device("alice", 1)
        await scene.people("bob")
        room = await alice.create_room("bob")
        bob = await recovering(scene, js, "bob", **options)
        await alice.say(room["id"], "before")
        await bob.has_seq(room["id"], 2)
        seq = 2
        for turn in (2, 3):
            await bob._js.do("lose", bob.label)
            await eventually(lambda t=turn: len(bob.disconnects) == t - 1, why="it is away")  # type: ignore[misc]
            for number in range(5):
                await alice.say(room["id"], f"missed {turn} {number}")
            assert await bob.back(turn) is True
            await alice.say(room["id"], "live")
            seq += 6
            await bob.has_seq(room["id"], seq)
        assert bob.seqs(room["id"]) == list(range(2, seq + 1))
        assert len(set(bob.offsets)) == len(bob.offsets)

    async def test_another_node_goes_on_where_the_first_stopped(
        self, scene: Scene, js: JavaScript
    ) -> None:
        alice = await scene.device("alice", 0)
        await scene.people("bob")
        room = await alice.create_room("bob")
        bob = await recovering(scene, js, "bob", 0)
        for number in range(3):
            await alice.say(room["id"], f"before {number}")
        await bob.has_seq(room["id"], 4)
        await js.do("move", bob.label, url=scene.nodes[1].url)
        other = await alice.create_room("bob", title="made meanwhile")
        await asyncio.gather(*(alice.say(room["id"], f"missed {n}") for n in range(20)))
        assert await bob.back(2) is True
        await alice.say(room["id"], "live")
        await bob.has_seq(room["id"], 25)
        assert bob.seqs(room["id"]) == list(range(2, 26))
        assert bob.seqs(other["id"]) == [1]

    async def test_who_left_a_room_meanwhile_starts_anew(
        self, scene: Scene, js: JavaScript
    ) -> None:
        alice = await scene.device("alice")
        await scene.people("bob")
        room = await alice.create_room("bob")
        bob = await recovering(scene, js, "bob")
        await bob._js.do("lose", bob.label)
        await alice.call(ROOMS, "room.remove", {"room_id": room["id"], "user_id": "bob"})
        assert await bob.back(2) is False
        await alice.say(room["id"], "not for bob")
        await asyncio.sleep(0.3)
        assert bob.texts(room["id"]) == []

    async def test_nobody_goes_on_as_somebody_else(self, scene: Scene, js: JavaScript) -> None:
        alice = await scene.device("alice")
        await scene.people("bob", "eve")
        room = await alice.create_room("bob")
        bob = await recovering(scene, js, "bob", reconnection=False)
        eve = await recovering(scene, js, "eve")
        await js.do("steal", eve.label, namespace=CHAT, **{"from": bob.label})
        await bob._js.do("lose", bob.label)
        await js.do("lose", eve.label)
        await alice.say(room["id"], "secret")
        assert await eve.back(2) is False
        assert eve.facts(room["id"]) == []

    async def test_without_asking_events_have_one_argument_and_nothing_is_recovered(
        self, scene: Scene, js: JavaScript
    ) -> None:
        alice = await scene.device("alice")
        await scene.people("bob")
        room = await alice.create_room("bob")
        bob = js.device("bob", scene.nodes[0].url, await scene.key_of("bob"))
        await bob.connect(CHAT)
        await alice.say(room["id"], "hello")
        await all_see([bob], room["id"], 2, first=2)
        await js.do("lose", bob.label)
        await eventually(lambda: len(bob.of_type("session.ready")) == 2, why="bob is back")
        state = await js.do("state", bob.label, namespace=CHAT)
        assert state["recovered"] is False

    async def test_more_than_a_thousand_missed_facts_are_not_replayed(
        self, scene: Scene, js: JavaScript
    ) -> None:
        alice = await scene.device("alice")
        await scene.people("bob")
        room = await alice.create_room("bob")
        bob = await recovering(scene, js, "bob", reconnectionDelay=6000, reconnectionDelayMax=6000)
        await alice.say(room["id"], "first")
        await bob.has_seq(room["id"], 2)
        await bob._js.do("lose", bob.label)
        await asyncio.gather(*(alice.say(room["id"], f"{number}") for number in range(1001)))
        assert await bob.back(2) is False


class TestKeys:
    async def test_a_client_recovers_with_the_key_that_it_was_handed_out_and_with_the_one_before(
        self, scene: Scene, js: JavaScript
    ) -> None:
        alice = await scene.device("alice", 1)
        await scene.people("bob")
        room = await alice.create_room("bob")
        bob = await recovering(scene, js, "bob")
        await alice.say(room["id"], "before")
        await bob.has_seq(room["id"], 2)
        first, second = bob.key, bob.handed_out()
        assert first is not None
        assert second != first
        # The new one, which retires the old one; then the old one again, in its grace; and on
        # another node.
        for turn, (key, node) in enumerate(((second, 0), (first, 0), (second, 1)), start=2):
            await bob.use(key)
            await js.do("move", bob.label, url=scene.nodes[node].url)
            await alice.say(room["id"], f"missed {turn}")
            assert await bob.back(turn) is True
        await alice.say(room["id"], "live")
        await bob.has_seq(room["id"], 6)
        assert bob.seqs(room["id"]) == [2, 3, 4, 5, 6]
        assert bob.refusals == []

    async def test_a_key_of_another_device_of_the_same_user_goes_on_too(
        self, scene: Scene, js: JavaScript
    ) -> None:
        alice = await scene.device("alice")
        await scene.people("bob")
        room = await alice.create_room("bob")
        bob = await recovering(scene, js, "bob")
        await bob.use((await scene.login("bob", device_id="another"))["key"])
        await js.do("lose", bob.label)
        await alice.say(room["id"], "missed")
        assert await bob.back(2) is True
        await bob.has_seq(room["id"], 2)

    async def test_a_key_revoked_meanwhile_recovers_nothing_and_a_new_one_does(
        self, scene: Scene, js: JavaScript
    ) -> None:
        alice = await scene.device("alice")
        await scene.people("bob")
        room = await alice.create_room("bob")
        bob = await recovering(scene, js, "bob")
        await alice.say(room["id"], "before")
        await bob.has_seq(room["id"], 2)
        await js.do("lose", bob.label)
        await eventually(lambda: len(bob.disconnects) == 1, why="it is away")
        (await scene.api.post("/users/bob/revoke")).ok()
        await alice.say(room["id"], "missed")
        await eventually(lambda: len(bob.refusals) == 1, why="it is refused")
        assert bob.refusals[0]["code"] == "auth.revoked"
        assert bob.seqs(room["id"]) == [2]
        await bob.use((await scene.login("bob"))["key"])
        assert await bob.again() == {"connected": True, "recovered": True}
        await bob.has_seq(room["id"], 3)
        assert bob.seqs(room["id"]) == [2, 3]

    async def test_who_was_cut_off_starts_anew(self, scene: Scene, js: JavaScript) -> None:
        alice = await scene.device("alice")
        await scene.people("bob")
        room = await alice.create_room("bob")
        bob = await recovering(scene, js, "bob")
        await alice.say(room["id"], "before")
        await bob.has_seq(room["id"], 2)
        (await scene.api.post("/users/bob/revoke")).ok()
        await eventually(lambda: len(bob.disconnects) == 1, why="it is cut off")
        assert [fact["data"]["code"] for fact in bob.of_type("session.closing")] == ["auth.revoked"]
        await alice.say(room["id"], "not for bob")
        await bob.use((await scene.login("bob"))["key"])
        assert await bob.again() == {"connected": True, "recovered": False}
        await alice.say(room["id"], "live")
        await bob.has_seq(room["id"], 4)
        assert bob.seqs(room["id"]) == [2, 4]
