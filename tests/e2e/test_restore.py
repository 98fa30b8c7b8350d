"""Back up, lose, restore: by the script of the documents, and what clients see of it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from chatserver.chat.schemas import Replay, Sync
from chatserver.dev.postgres_cluster import postgres_binary
from chatserver.infra.storage_s3 import S3Store
from chatserver.rooms.schemas import RoomRef
from tests.support.clients import CHAT, ROOMS
from tests.support.nodes import ROOT, Cluster, eventually
from tests.support.object_stores import ACCESS, s3_server, s3_store
from tests.support.scene import Scene
from tests.support.servers import Database, Servers
from tests.support.talk import Talk

SCRIPT = ROOT / "docs" / "backup.sh"


@pytest.fixture
def empty(servers: Servers) -> Iterator[Database]:
    made = servers.empty_database()
    yield made
    servers.drop(made)


def script(
    database: Database, *arguments: str | Path, **more: str
) -> "subprocess.CompletedProcess[str]":
    programs = (Path(postgres_binary("pg_dump")).parent, Path(sys.executable).parent)
    path = ":".join([*map(str, programs), os.environ["PATH"]])
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, arguments)],
        env={
            **database.environment(),
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "CHATSERVER": "python -m chatserver",
            **more,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def bucket_of(url: str, store: S3Store) -> dict[str, str]:
    """The settings with which a process uses a bucket."""
    return {
        "S3_ENDPOINT_URL": url,
        "S3_BUCKET": store._bucket,
        "S3_ACCESS_KEY_ID": ACCESS["access_key_id"],
        "S3_SECRET_ACCESS_KEY": ACCESS["secret_access_key"],
        "S3_REGION": ACCESS["region"],
    }


@pytest.mark.timeout(180)
async def test_files_in_a_bucket_come_back_in_another_bucket_or_on_a_disk(
    database: Database, empty: Database, tmp_path: Path
) -> None:
    with s3_server() as url, closing(s3_store(url)) as old, closing(s3_store(url)) as new:
        contents = {"t/a/small": b"an attachment", "t/a/empty": b"", "t/b/large": b"x" * 9_000_000}
        for key, content in {**contents, "others/thing": b"not ours"}.items():
            await old.put(key, content, content_type="image/png")
        made = script(database, "backup", tmp_path / "backup", **bucket_of(url, old))
        assert made.returncode == 0, made.stderr
        restored = script(empty, "restore", tmp_path / "backup", **bucket_of(url, new))
        assert restored.returncode == 0, restored.stdout + restored.stderr
        assert {key: await new.read(key) async for key in new.all_keys()} == contents

        # The same tar on a disk; and one that is cut off says so.
        directory = tmp_path / "disk"
        tar = tmp_path / "backup" / "files.tar"
        cut = tmp_path / "cut.tar"
        cut.write_bytes(tar.read_bytes()[:5_000_000])
        said = ""
        for given, code in ((tar, 0), (cut, 1)):
            done = subprocess.run(  # noqa: ASYNC221 - nothing else runs here
                [sys.executable, "-m", "chatserver", "files", "load", str(given)],
                env=empty.environment() | {"FILES_DIR": str(directory)},
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == code, done.stderr
            said = done.stderr
        assert "is no whole tar" in said
        assert {key: (directory / key).read_bytes() for key in contents} == contents


async def raise_generation(database: Database) -> int:
    connection = await asyncpg.connect(database.migrator_url)
    try:
        return int(await connection.fetchval("select cluster_generation_raise()"))
    finally:
        await connection.close()


async def test_a_restored_backup_holds_all_of_its_time_and_whoever_saw_more_is_told(
    database: Database, empty: Database, tmp_path: Path
) -> None:
    files = Path(database.files_dir)
    (files / "t").mkdir(parents=True)
    (files / "t" / "object").write_text("an attachment")
    talk = Talk(database)
    await talk.start()
    master = await talk.client()
    alice, bob = await talk.users(master, "alice", "bob")
    room = await talk.room(alice, bob)
    kept = [(await talk.send(alice, room.id, f"kept {n}")).message for n in range(5)]

    made = script(database, "backup", tmp_path / "backup")
    assert made.returncode == 0, made.stderr
    again = script(database, "backup", tmp_path / "backup")
    assert (again.returncode, "is there already" in again.stderr) == (1, True)

    lost = [(await talk.send(bob, room.id, f"lost {n}")).message for n in range(3)]
    told = (await talk.container.catch_up.sync(alice, Sync())).rooms[str(room.id)]
    assert told.last_seq == lost[-1].seq
    await talk.stop()

    restored = script(empty, "restore", tmp_path / "backup")
    assert restored.returncode == 0, restored.stdout + restored.stderr
    assert (Path(empty.files_dir) / "t" / "object").read_text() == "an attachment"
    twice = script(empty, "restore", tmp_path / "backup")
    assert (twice.returncode, "into an empty one" in twice.stderr) == (1, True)

    talk = Talk(empty)
    await talk.start()
    try:
        catch_up = talk.container.catch_up
        found = await catch_up.replay(bob, Replay(room_id=room.id, after_seq=0))
        assert [event["seq"] for event in found.events] == list(range(1, kept[-1].seq + 1))
        contents = [event["data"]["message"]["content"] for event in found.events[1:]]
        assert contents == [message.content for message in kept]
        # Whoever is ahead, and whoever is not: both load the room anew.
        for seq in (told.last_seq, kept[0].seq):
            answer = await catch_up.sync(
                alice,
                Sync.model_validate({"rooms": {str(room.id): {"epoch": told.epoch, "seq": seq}}}),
            )
            members = orjson.loads(answer.as_json())["rooms"][str(room.id)]
            assert members["error"]["code"] == "epoch.mismatch", members
        sent = await talk.send(bob, room.id, "goes on")
        assert sent.message.seq == kept[-1].seq + 1
        # The same roles as before: the application may do nothing but rows, strangers nothing.
        open_to_all = await talk.rows(
            "select proname from pg_proc p where pronamespace = 'public'::regnamespace"
            " and proowner = 'chatserver_migrator'::regrole"
            " and (proacl is null or exists (select from aclexplode(proacl) where grantee = 0))"
        )
        assert open_to_all == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await talk.run("drop table outbox")
        async with talk.container.open_rooms() as rooms:
            assert (await rooms.get(alice, RoomRef(room_id=room.id))).members_count == 2
    finally:
        await talk.stop()


async def test_open_sockets_of_every_node_learn_that_the_database_was_restored(
    scene: Scene, pair: Cluster
) -> None:
    alice, bob = await scene.device("alice", 0), await scene.device("bob", 1)
    room = await alice.create_room("bob")
    await alice.say(room["id"], "before")
    before = await bob.call(CHAT, "sync", {})
    epoch = before["rooms"][room["id"]]["epoch"]

    generation = await raise_generation(pair.database)
    closing: dict[str, list[Any]] = {}
    for device in (alice, bob):
        await eventually(
            # It goes to the first namespace of the connection.
            lambda device=device: device.of_type("session.closing", ROOMS),  # type: ignore[misc]
            within_s=15,
            why=f"{device.name} is told",
        )
        closing[device.name] = [it["data"] for it in device.of_type("session.closing", ROOMS)]
    for told in closing.values():
        assert (told[-1]["code"], told[-1]["reconnect"]) == ("epoch.mismatch", "now")

    back = await scene.device("bob", 0)
    position = {"room_id": room["id"], "epoch": epoch, "after_seq": 2}
    refused = await back.refused(CHAT, "room.replay", position)
    assert refused["code"] == "epoch.mismatch"
    now = (await back.call(CHAT, "sync", {}))["rooms"][room["id"]]
    assert (now["epoch"].split(".")[0], now["last_seq"]) == (str(generation), 2)
    await back.say(room["id"], "after")
