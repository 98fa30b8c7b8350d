from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest

from chatserver.chat.schemas import (
    EditMessage,
    ListEvents,
    ListMessages,
    MarkRead,
    MessageRef,
    React,
    RoomRequest,
)
from chatserver.files.policies import key_of
from chatserver.files.schemas import FileOut, FileRef
from chatserver.infra.staging import Staging
from chatserver.kernel.principal import Principal
from chatserver.rooms.errors import RoomBannedError, RoomMutedError
from chatserver.rooms.schemas import BanMember, InviteMembers, MuteMember, RoomRef, UpdateRoom
from chatserver.search.schemas import SearchMessages
from chatserver.transfer.errors import LineConflictError, LineInvalidError
from chatserver.transfer.service import Import
from chatserver.wiring.transfer import open_export, open_import
from tests.support.files import Shelf, checksum, picture
from tests.support.people import House
from tests.support.servers import Servers

TABLES = (
    "app_user", "room", "member", "message", "room_event", "reaction", "mention", "message_edit",
    "room_ban",
)  # fmt: skip
START = datetime(2020, 1, 1, tzinfo=UTC)


async def exported(house: House, client: Principal) -> list[bytes]:
    return [line async for line in open_export(house.container, client.client_id).lines("acme")]


async def imported(house: House, client: Principal, lines: Iterable[bytes]) -> dict[str, int]:
    return await _applied(
        open_import(house.container, client.client_id, files=house.container.files), lines
    )


async def _applied(taken: Import, lines: Iterable[bytes]) -> dict[str, int]:
    with Staging() as staging:
        taken.stage(staging, lines, lambda _: None)
        return (await taken.apply(staging, lambda _: None)).model_dump()


def written(*lines: dict[str, Any]) -> list[bytes]:
    return [orjson.dumps(line) + b"\n" for line in lines]


def foreign(count: int, room: str = "their-room") -> list[bytes]:
    """What another system might have: no places, ids of its own, in no order."""
    messages = [
        {
            "type": "message",
            "room_id": room,
            "id": f"m{n}",
            "sender_id": ("ann", "zoe")[n % 2],
            "content": f"number {n}",
            "created_at": (START + timedelta(minutes=n)).isoformat(),
            **({"reply_to": "m0"} if n == 2 else {}),
        }
        for n in range(count)
    ]
    return written(
        *messages[::-1],
        {"type": "member", "room_id": room, "user_id": "zoe", "role": "owner"},
        {"type": "room", "id": room, "title": "Theirs"},
        {"type": "user", "user_id": "zoe", "display_name": "Zoë"},
    )


async def everything(house: House) -> dict[str, list[str]]:
    """Give every row of what is exported, but for server ids of people, as text."""
    found = {}
    for table in TABLES:
        rows = await house.rows(f'select to_jsonb(t)::text as row from "{table}" t')
        found[table] = sorted(row["row"] for row in rows)
    return found


@asynccontextmanager
async def elsewhere(servers: Servers) -> AsyncIterator[tuple[House, Principal]]:
    address = servers.fresh_database()
    house = House(address)
    await house.start()
    yield house, await house.tenant("Elsewhere")
    await house.close()
    servers.drop(address)


async def _read(house: House, who: Principal, room_id: UUID) -> list[Any]:
    """Give a room's messages and its log, as callers see them."""
    messages = await house.container.chat.list(who, ListMessages(room_id=room_id))
    log = await house.container.catch_up.events(who, ListEvents(room_id=room_id))
    return [messages.model_dump(mode="json"), log.model_dump(mode="json")]


async def a_life(shelf: Shelf) -> UUID:
    house = shelf.house
    room = await house.room(shelf.ann, "bob", title="Both", external_id="both")
    first = await house.say(shelf.ann, room.id, "one @bob", mentions=["bob"])
    second = await house.say(shelf.bob, room.id, "two", reply_to=first.message.id)
    third = await house.say(shelf.ann, room.id, "three", metadata={"n": [1, None]})
    await house.say(shelf.master, room.id, "system")
    async with house.container.open_changes() as changes:
        await changes.edit(shelf.ann, EditMessage(message_id=first.message.id, content="uno"))
        await changes.react(shelf.ann, React(message_id=second.message.id, emoji="👍"))
        await changes.delete(shelf.ann, MessageRef(message_id=third.message.id))
    return room.id


async def a_full_life(shelf: Shelf) -> tuple[UUID, UUID, FileOut, FileOut]:
    """All that a room can have: it, a direct room, a text and a picture."""
    house, room_id = shelf.house, await a_life(shelf)
    text = await shelf.file(shelf.bob, b"x" * 600_000, name="long.txt")
    drawn = await shelf.file(shelf.bob, picture(), "image/png", name="drawn.png")
    attached = [{"file_id": str(file.id)} for file in (text, drawn)]
    sent = await house.say(shelf.bob, room_id, "look", attachments=attached)
    await house.say(shelf.ann, room_id, "hush", silent=True)
    async with house.container.open_changes() as changes:
        for content in ("looc", "luck"):
            await changes.edit(shelf.bob, EditMessage(message_id=sent.message.id, content=content))
        await changes.pin(shelf.ann, MessageRef(message_id=sent.message.id))
        await changes.react(shelf.ann, React(message_id=sent.message.id, emoji="🎉"))
    zoe, _ = [await house.person(shelf.master, name) for name in ("zoe", "tom")]
    async with house.container.open_members() as members:
        await members.invite(shelf.master, InviteMembers(room_id=room_id, user_ids=["zoe", "tom"]))
    async with house.container.open_sanctions() as sanctions:
        await sanctions.ban(
            shelf.ann, BanMember(room_id=room_id, user_id="tom", reason="spam", for_s=3600)
        )
        await sanctions.mute(shelf.ann, MuteMember(room_id=room_id, user_id="zoe", for_s=3600))
    await house.container.reads.mark(shelf.bob, MarkRead(room_id=room_id, seq=3))
    await house.container.reads.unmark(zoe, RoomRequest(room_id=room_id))
    async with house.container.open_rooms() as rooms:
        await rooms.update(shelf.ann, UpdateRoom(room_id=room_id, slow_mode_s=30))
    direct = await house.room(shelf.ann, "bob", type="direct")
    await house.say(shelf.ann, direct.id, "between us")
    return room_id, direct.id, text, drawn


async def seen(house: House, who: Principal, room_id: UUID, message_ids: list[UUID]) -> list[Any]:
    """Give a room as one person sees it: the whole snapshot, and the history of edits."""
    snapshot = await house.container.catch_up.snapshot(who, RoomRequest(room_id=room_id))
    async with house.container.open_changes() as changes:
        edits = [await changes.edits(who, MessageRef(message_id=each)) for each in message_ids]
    shown = snapshot.model_dump(mode="json")
    shown["room"].pop("deactivates_at")  # it begins anew
    return [shown, [each.model_dump(mode="json") for each in edits]]


async def test_a_room_with_everything_is_the_same_elsewhere(shelf: Shelf, servers: Servers) -> None:
    room_id, direct_id, text, drawn = await a_full_life(shelf)
    export = open_export(shelf.house.container, shelf.master.client_id, files=shelf.files)
    lines = [line async for line in export.lines("acme")]
    kinds = Counter(orjson.loads(line)["type"] for line in lines)
    assert (kinds["file"], kinds["ban"], kinds["edit"]) == (2, 1, 3)
    assert kinds["file_part"] >= 4  # none larger than a line may be
    rows = await shelf.house.rows("select id from message where version > 1 and deleted_at is null")
    edited = [row["id"] for row in rows]
    async with elsewhere(servers) as (house, client):
        counted = await imported(house, client, lines)
        assert (counted["files"], counted["files_missing"], counted["known"]) == (2, 0, 0)
        there = {name: await house.person(client, name) for name in ("ann", "bob", "zoe")}
        here = {"ann": shelf.ann, "bob": shelf.bob}
        for name, who in here.items():
            for each in (room_id, direct_id):
                mine = await seen(shelf.house, who, each, edited if name == "ann" else [])
                assert mine == await seen(house, there[name], each, edited if name == "ann" else [])
        store = house.container.files.store
        for file, size in ((text, 600_000), (drawn, drawn.size)):
            found = await house.container.files.service.get(there["bob"], FileRef(file_id=file.id))
            assert (found.state, found.uploader_id) == ("ready", file.uploader_id)
            content = await store.read(key_of(client.client_id, file.id))
            assert checksum(content) == file.sha256
            assert len(content) == size
            assert (found.thumbnail is not None) is (file is drawn)
        # Rules go on: who was muted is, who was banned stays out, a pair has one direct room.
        with pytest.raises(RoomMutedError):
            await house.say(there["zoe"], room_id, "hello?")
        async with house.container.open_members() as members:
            with pytest.raises(RoomBannedError):
                await members.invite(client, InviteMembers(room_id=room_id, user_ids=["tom"]))
        assert (await house.room(there["bob"], "ann", type="direct")).id == direct_id
        before = await everything(house)
        again = await imported(house, client, lines)
        known = len(lines) - 1 - kinds["file_part"]
        assert {name: n for name, n in again.items() if n} == {"known": known}
        assert await everything(house) == before


async def test_files_without_contents_are_taken_from_the_store_or_told_of(
    shelf: Shelf, servers: Servers
) -> None:
    _, _, text, drawn = await a_full_life(shelf)
    lines = await exported(shelf.house, shelf.master)
    async with elsewhere(servers) as (house, client):
        # One was copied by other means, beforehand.
        content = await shelf.files.store.read(key_of(shelf.master.client_id, text.id))
        key = key_of(client.client_id, text.id)
        await house.container.files.store.put(key, content, content_type="text/plain")
        counted = await imported(house, client, lines)
        assert (counted["files"], counted["files_missing"]) == (1, 1)
        found = await house.rows("select id from file")
        assert [row["id"] for row in found] == [text.id]
        # The other one comes later.
        export = open_export(shelf.house.container, shelf.master.client_id, files=shelf.files)
        counted = await imported(house, client, [line async for line in export.lines("acme")])
        assert (counted["files"], counted["files_missing"]) == (1, 0)
        await house.container.files.janitor.sweep()
        ann = await house.person(client, "ann")
        shown = await house.container.files.service.get(ann, FileRef(file_id=drawn.id))
        assert shown.state == "ready"
        assert await house.container.files.store.stat(key_of(client.client_id, drawn.id))


@pytest.mark.parametrize("fault", ["other content", "part without a file", "another's file"])
async def test_a_wrong_file_is_not_taken(shelf: Shelf, fault: str) -> None:
    made = await shelf.file(shelf.ann, b"theirs")
    file = {
        "type": "file", "id": str(uuid4()), "name": "x", "content_type": "text/plain", "size": 6,
        "sha256": made.sha256,
    }  # fmt: skip
    part = {"type": "file_part", "file_id": file["id"], "part": 1, "data": "b3RoZXJz"}
    if fault == "other content":
        counted = await imported(shelf.house, shelf.master, written(part, file))
        assert (counted["files"], counted["files_missing"]) == (0, 1)
    elif fault == "part without a file":
        with pytest.raises(LineConflictError, match="line 1"):
            await imported(shelf.house, shelf.master, written(part))
    else:
        other = await shelf.house.tenant("Other")
        with pytest.raises(LineConflictError, match="another file"):
            await imported(shelf.house, other, written({**file, "id": str(made.id)}))
    assert len(await shelf.house.rows("select id from file")) == 1


async def test_what_was_exported_is_the_same_elsewhere(shelf: Shelf, servers: Servers) -> None:
    room_id = await a_life(shelf)
    lines = await exported(shelf.house, shelf.master)
    async with elsewhere(servers) as (house, client):
        counted = await imported(house, client, lines)
        assert counted["known"] == 0
        assert counted["messages"] == 4
        theirs = await _read(house, client, room_id)
        assert theirs == await _read(shelf.house, shelf.master, room_id)
        async with house.container.open_rooms() as rooms:
            room = await rooms.get(client, RoomRef(room_id=room_id))
        assert (room.external_id, room.title, room.members_count) == ("both", "Both", 2)
        # And so it can be handed on.
        again = [line for line in await exported(house, client) if b'"type":"export"' not in line]
        assert sorted(again) == sorted(line for line in lines if b'"type":"export"' not in line)


async def test_importing_twice_changes_nothing(shelf: Shelf, servers: Servers) -> None:
    await a_life(shelf)
    lines = await exported(shelf.house, shelf.master)
    before = await everything(shelf.house)
    counted = await imported(shelf.house, shelf.master, lines)
    assert {name: count for name, count in counted.items() if count} == {"known": len(lines) - 1}
    assert await everything(shelf.house) == before
    async with elsewhere(servers) as (house, client):
        await imported(house, client, foreign(7))
        before = await everything(house)
        counted = await imported(house, client, foreign(7))
        assert {name: count for name, count in counted.items() if count} == {"known": 10}
        assert await everything(house) == before


async def test_another_system_s_rows_are_numbered_by_time(shelf: Shelf) -> None:
    counted = await imported(shelf.house, shelf.master, foreign(1203))
    assert counted == {
        "users": 1, "rooms": 1, "members": 1, "messages": 1203, "events": 0, "reactions": 0,
        "edits": 0, "bans": 0, "files": 0, "files_missing": 0, "known": 0,
    }  # fmt: skip
    [room] = await shelf.house.rows("select * from room where external_id = 'their-room'")
    assert (room["last_seq"], room["msg_no"], room["epoch"]) == (1203, 1203, 1)
    rows = await shelf.house.rows(
        "select m.seq, m.msg_no, m.content, m.client_msg_id, m.created_at, e.type, q.content as"
        " quoted from message m join room_event e on e.room_id = m.room_id and e.seq = m.seq"
        " left join message q on q.id = m.reply_to order by m.seq"
    )
    assert [row["content"] for row in rows] == [f"number {n}" for n in range(1203)]
    assert [(row["seq"], row["msg_no"]) for row in rows] == [(n, n) for n in range(1, 1204)]
    assert rows[1202]["client_msg_id"] == "m1202"
    assert rows[1202]["created_at"] == START + timedelta(minutes=1202)
    assert rows[2]["quoted"] == "number 0"
    assert {row["type"] for row in rows} == {"message.created"}
    # Whoever has no pointer of his own has read it all.
    [seat] = await shelf.house.rows("select * from member where room_id = :id", id=room["id"])
    assert (seat["role"], seat["read_seq"], seat["read_msg_no"]) == ("owner", 1203, 1203)


async def test_nothing_follows_from_an_import_but_it_can_be_found(shelf: Shelf) -> None:
    await shelf.house.change("update client set followed = '{message.created,room.created}'")
    before = len(shelf.house.heard.facts)
    await imported(shelf.house, shelf.master, foreign(20))
    assert await shelf.house.rows("select * from outbox") == []
    assert len(shelf.house.heard.facts) == before
    found = await shelf.house.container.search.service.search(
        shelf.master, SearchMessages(q='"number 7"')
    )
    assert [hit.message.content for hit in found.items] == ["number 7"]


async def test_an_import_that_was_killed_goes_on_without_a_repeat(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatserver.transfer.service.CHUNK", 5)
    lines = foreign(32)

    class KilledError(BaseException): ...

    for after in (0, 1, 3, 6):
        taken = open_import(
            shelf.house.container, shelf.master.client_id, files=shelf.house.container.files
        )
        steps = iter(range(100))

        def die(_: int, after: int = after, steps: Any = steps) -> None:
            if next(steps) >= after:
                raise KilledError

        with Staging() as staging:
            taken.stage(staging, lines, lambda _: None)
            with pytest.raises(KilledError):
                await taken.apply(staging, die)
    await imported(shelf.house, shelf.master, lines)
    rows = await shelf.house.rows("select seq, content from message order by seq")
    assert [row["content"] for row in rows] == [f"number {n}" for n in range(32)]
    assert [row["seq"] for row in rows] == list(range(1, 33))


async def test_a_log_that_changes_under_its_readers_gets_another_epoch(shelf: Shelf) -> None:
    room = await shelf.house.room(shelf.ann, "bob")
    await shelf.house.say(shelf.ann, room.id, "before")
    await imported(shelf.house, shelf.master, foreign(1100, room=str(room.id)))
    [row] = await shelf.house.rows("select * from room where id = :id", id=room.id)
    assert (row["epoch"], row["last_seq"]) == (2, 1102)
    # Sends go on behind it, and the log has no hole.
    sent = await shelf.house.say(shelf.ann, room.id, "after")
    assert sent.message.seq == 1103
    [row] = await shelf.house.rows(
        "select count(*) as n from room_event where room_id = :id", id=room.id
    )
    assert row["n"] == 1103


async def test_a_log_that_comes_with_holes_has_none_afterwards(shelf: Shelf) -> None:
    room = str(uuid4())
    lines = written(
        *(
            {"type": "message", "room_id": room, "seq": seq, "content": f"{seq}",
             "sender": "system", "created_at": START.isoformat()}
            for seq in (3, 7, 8)
        )
    )  # fmt: skip
    await imported(shelf.house, shelf.master, lines)
    events = await shelf.house.container.catch_up.events(
        shelf.master, ListEvents(room_id=UUID(room))
    )
    assert [event["seq"] for event in events.events] == list(range(1, 9))
    assert [event["seq"] for event in events.events if event["type"] == "message.created"] == [
        3, 7, 8,
    ]  # fmt: skip
    before = await everything(shelf.house)
    await imported(shelf.house, shelf.master, lines)
    assert await everything(shelf.house) == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"nonsense", "line 2: $: is not JSON"),
        (b"[]", "line 2: is no JSON object"),
        (b'{"type":"poll"}', "line 2: `type` must be one of"),
        (b'{"type":"message","room_id":"r","content":"x"}', "line 2: created_at:"),
        (b'{"type":"message","room_id":"r","created_at":"2020-01-01"}', "line 2: created_at:"),
        (b'{"type":"room","id":"r","title":"\\u0000"}', "line 2: title: contains NUL"),
        (b'{"type":"export","version":99}', "line 2: is of a version"),
        (b'{"type":"user","user_id":"not a name"}', "line 2: user_id:"),
        (b'{"type":"message","room_id":"r","sender_id":"a b","created_at":"2020-01-01T00:00:00Z"}',
         "line 2: sender_id: is no name"),
        (b'{"type":"user","user_id":"' + b"x" * 2**20 + b'"}', "line 2: has more than"),
    ],
    ids=range(10),
)  # fmt: skip
async def test_a_wrong_line_is_named_and_nothing_is_stored(
    shelf: Shelf, line: bytes, said: str
) -> None:
    before = await everything(shelf.house)
    with pytest.raises(LineInvalidError) as refused:
        await imported(shelf.house, shelf.master, [*foreign(1)[:1], line + b"\n"])
    assert refused.value.message.startswith(said)
    assert await everything(shelf.house) == before


async def test_nothing_of_another_client_is_touched(shelf: Shelf) -> None:
    await a_life(shelf)
    lines = await exported(shelf.house, shelf.master)
    other = await shelf.house.tenant("Other")
    theirs = await shelf.house.room(other)
    sent = await shelf.house.say(other, theirs.id, "theirs")
    before = await shelf.house.rows("select to_jsonb(m)::text from message m order by 1")
    for client, bad in (
        (other, lines),
        (shelf.master, written({"type": "room", "id": str(theirs.id), "title": "mine"})),
        (
            shelf.master,
            written(
                {"type": "message", "room_id": "new", "id": str(sent.message.id),
                 "sender": "system", "created_at": START.isoformat()}
            ),
        ),
    ):  # fmt: skip
        with pytest.raises(LineConflictError):
            await imported(shelf.house, client, bad)
    after = await shelf.house.rows("select to_jsonb(m)::text from message m order by 1")
    assert after == before


async def test_a_place_that_is_taken_is_not_taken_twice(shelf: Shelf) -> None:
    room = await shelf.house.room(shelf.ann, "bob")
    await shelf.house.say(shelf.ann, room.id, "mine")
    line = {
        "type": "message", "room_id": str(room.id), "seq": 2, "content": "yours",
        "sender": "system", "created_at": START.isoformat(),
    }  # fmt: skip
    with pytest.raises(LineConflictError, match="seq 2"):
        await imported(shelf.house, shelf.master, written(line))
