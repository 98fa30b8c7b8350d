"""A person is erased while others look on; and gets a copy of everything before."""

import secrets

import orjson
import pytest

from tests.e2e.conftest import MakeCluster
from tests.support.clients import CHAT, all_see
from tests.support.everything import rows_with
from tests.support.nodes import eventually
from tests.support.scene import Scene, on_stage

CANARY = "c4n4ry"


@pytest.mark.timeout(180)
async def test_an_erasure_ends_everything_of_a_person_and_the_others_are_told_once(
    cluster: MakeCluster,
) -> None:
    made = cluster()
    nodes = await made.nodes("a", "b")
    await made.workers()
    async with on_stage(nodes, made.database.secrets.operator_key) as scene:
        profile = {"display_name": f"Ann {CANARY}", "metadata": {"x": CANARY}}
        (await scene.api.put("/users/ann", profile)).ok()
        await scene.people("bob")
        ann = await scene.device("ann", 0)
        bob = await scene.device("bob", 1)
        room = (await ann.create_room("bob", title="Both"))["id"]
        for turn in range(3):
            await ann.say(room, f"{CANARY} {turn}", attachments=[{"url": CANARY}])
            await bob.say(room, f"for ann {turn}", mentions=["ann"])
        await all_see([ann, bob], room, 7)

        asked = await scene.api.delete("/users/ann")
        assert asked.status == 202
        assert asked.ok()["state"] == "queued"
        await eventually(lambda: ann.disconnects, why="her sockets are closed", within_s=10)
        assert (await (await scene.as_user("ann")).get("/me")).status == 401

        async def report() -> object:
            said = (await scene.api.get("/users/ann/erasure")).ok()
            return said if said["state"] == "done" else None

        done = await eventually(report, why="the erasure is done", within_s=60)
        assert done["report"]["erased"]["messages"] == 3
        await bob.has_seq(room, 8)
        [fact] = bob.of_type("messages.erased")
        assert (fact["seq"], fact["data"]) == (
            8,
            {"user_id": "ann", "up_to_seq": 7, "members_count": 1},
        )
        assert bob.seqs(room) == list(range(1, 9))

        epoch = bob.facts(room)[0]["epoch"]
        position = {"room_id": room, "after_seq": 0, "epoch": epoch}
        replayed = await bob.call(CHAT, "room.replay", position)
        assert [event["seq"] for event in replayed["events"]] == list(range(1, 9))
        for said in (
            replayed["events"][:-1],
            await bob.call(CHAT, "message.history", {"room_id": room}),
            (await scene.api.get(f"/rooms/{room}/snapshot")).ok(),
            (await scene.api.get(f"/rooms/{room}/members")).ok(),
            await bob.call(CHAT, "sync", {}),
        ):
            text = orjson.dumps(said).decode()
            assert CANARY not in text
            assert '"ann"' not in text
        assert await rows_with(made.database.admin_url, CANARY) == {}
        for process in made.processes:
            assert CANARY not in process.log_file.read_text(errors="replace")

        (await scene.api.put("/users/ann", {"display_name": "Another Ann"})).ok()
        issued = await scene.login("ann")
        assert issued["user"]["display_name"] == "Another Ann"


class TestExport:
    async def test_it_has_everything_of_the_person_and_nothing_of_others(
        self, scene: Scene
    ) -> None:
        name = f"ann-{secrets.token_hex(3)}"
        (await scene.api.put(f"/users/{name}", {"display_name": "Ann"})).ok()
        await scene.people("bob", name)
        ann = await scene.device(name)
        bob = await scene.device("bob")
        room = (await ann.create_room("bob", title="Both"))["id"]
        await ann.say(room, "mine")
        await bob.say(room, "not hers")

        answer = await (await scene.as_user(name)).get(f"/users/{name}/export")

        assert answer.headers["Content-Type"] == "application/x-ndjson"
        lines = [orjson.loads(line) for line in answer.body.splitlines()]
        assert [line["type"] for line in lines] == ["profile", "key", "membership", "message"]
        assert lines[0]["display_name"] == "Ann"
        assert (lines[2]["room_id"], lines[2]["room_type"]) == (room, "group")
        assert (lines[3]["content"], lines[3]["seq"]) == ("mine", 2)
        assert "not hers" not in answer.body
        key = await scene.key_of(name)
        assert key.split("_")[-1] not in answer.body
        assert "mac" not in lines[1]

    async def test_nobody_else_gets_it(self, scene: Scene) -> None:
        await scene.people("ann", "bob")
        answer = await (await scene.as_user("bob")).get("/users/ann/export")
        assert (answer.status, answer.body["code"]) == (404, "user.not_found")
        (await scene.api.get("/users/ann/export")).ok()
