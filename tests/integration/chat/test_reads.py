"""Pointers that only move forward, and what they leave unread: exact, however it came about."""

import asyncio
import os
import random
from typing import Any
from uuid import UUID

import orjson
import pytest

from chatserver.chat import catch_up, reads
from chatserver.chat.errors import EpochMismatchError
from chatserver.chat.pointers import PointerRepository
from chatserver.chat.schemas import (
    EditMessage,
    MarkRead,
    MessageRef,
    ReadState,
    RoomRequest,
    Sync,
    SyncedRoom,
)
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.rooms.errors import NotARoomMemberError, RoomNotFoundError
from chatserver.rooms.schemas import UpdateMember
from tests.support.talk import Talk


async def mark(talk: Talk, who: Principal, room_id: UUID, seq: int | None = None) -> ReadState:
    return await talk.container.reads.mark(who, MarkRead(room_id=room_id, seq=seq))


async def unmark(talk: Talk, who: Principal, room_id: UUID) -> ReadState:
    return await talk.container.reads.unmark(who, RoomRequest(room_id=room_id))


async def seen(talk: Talk, who: Principal, room_id: UUID) -> SyncedRoom:
    return (await talk.container.catch_up.sync(who, Sync())).rooms[str(room_id)]


def told(talk: Talk) -> list[tuple[dict[str, Any], tuple[UUID, ...]]]:
    """Give the data of each `read.updated`, and whom it was for."""
    return [
        (orjson.loads(fact.body)["data"], fact.audience)
        for fact in talk.shown.facts
        if fact.type == "read.updated"
    ]


class TestMark:
    async def test_it_moves_forward_and_never_back(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        for n in range(5):
            await talk.send(alice, room.id, str(n))
        moved = await mark(talk, bob, room.id, 4)
        assert moved.model_dump(mode="json") == {
            "room_id": str(room.id),
            "user_id": "bob",
            "read_seq": 4,
            "unread": 2,
            "mentions": 0,
            "marked_unread": False,
            "total_unread": 2,
        }
        back = await mark(talk, bob, room.id, 2)
        assert (back.read_seq, back.unread) == (4, 2)
        end = await mark(talk, bob, room.id)
        assert (end.read_seq, end.unread) == (6, 0)
        assert [data["read_seq"] for data, whose in told(talk) if whose == (bob.user_id,)] == [4, 6]

    async def test_many_devices_at_once_leave_the_farthest(
        self, talk: Talk, second: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        for n in range(20):
            await talk.send(alice, room.id, str(n))
        chance = random.Random(1)
        marks = [chance.randrange(1, 22) for _ in range(30)] + [21]
        chance.shuffle(marks)
        await asyncio.gather(
            *(mark(chance.choice([talk, second]), bob, room.id, seq) for seq in marks)
        )
        found = await seen(talk, bob, room.id)
        assert (found.read_seq, found.unread) == (21, 0)

    async def test_a_seq_that_is_not_there_yet_is_another_log(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        with pytest.raises(EpochMismatchError) as caught:
            await mark(talk, alice, room.id, 2)
        assert caught.value.details == {"epoch": "1.1", "last_seq": 1}
        assert (await seen(talk, alice, room.id)).read_seq == 0

    async def test_strangers_have_no_pointer(self, talk: Talk, master: Principal) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        mallory = await talk.user(await talk.client("other"), "mallory")
        room, channel = await talk.room(alice, bob), await talk.room(alice, kind="channel")
        await talk.remove(alice, room.id, bob)
        for who, room_id, refusal in (
            (bob, room.id, NotARoomMemberError),
            (carol, room.id, RoomNotFoundError),
            (mallory, room.id, RoomNotFoundError),
            (carol, uuid7(), RoomNotFoundError),
            (carol, channel.id, NotARoomMemberError),
        ):
            for attempt in (mark(talk, who, room_id, 0), unmark(talk, who, room_id)):
                with pytest.raises(refusal):
                    await attempt

    async def test_where_the_log_was_truncated_the_count_stays_right(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        for n in range(6):
            await talk.send(alice, room.id, str(n))
        await talk.run("update room set min_seq = 5 where id = $1", room.id)
        await talk.run("delete from message where room_id = $1 and seq < 5", room.id)
        assert (await mark(talk, bob, room.id, 3)).unread == 3
        assert (await mark(talk, bob, room.id, 5)).unread == 2


class TestUnmark:
    async def test_the_mark_is_the_reader_s_own_and_receipts_stay(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        await talk.send(alice, room.id)
        await mark(talk, bob, room.id)
        marked = await unmark(talk, bob, room.id)
        assert (marked.marked_unread, marked.read_seq, marked.unread) == (True, 2, 0)
        assert (await seen(talk, bob, room.id)).marked_unread is True
        assert (await seen(talk, alice, room.id)).marked_unread is None
        assert told(talk)[-1] == (marked.model_dump(exclude={"room_id"}), (bob.user_id,))
        summary = await talk.container.reads.summary(bob)
        assert (summary.total_unread, summary.unread_rooms) == (0, 1)
        assert (await mark(talk, bob, room.id, 2)).marked_unread is False
        await unmark(talk, bob, room.id)
        await talk.send(bob, room.id)
        assert (await seen(talk, bob, room.id)).marked_unread is None


class TestOthers:
    async def test_they_are_told_the_last_of_a_while(
        self, talk: Talk, master: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(talk.container.conversation.notices, "_every_s", 0.05)
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        channel = await talk.room(alice, bob, kind="channel")
        for _ in range(3):
            await talk.send(alice, room.id)
        await talk.send(alice, channel.id)
        before = len(talk.shown.facts)
        await mark(talk, bob, channel.id)
        for seq in (2, 3, 4):
            await mark(talk, bob, room.id, seq)
        await talk.shown.at_least(before + 5)
        assert [data for data, whose in told(talk) if not whose] == [
            {"user_id": "bob", "read_seq": 4}
        ]
        [fact] = [f for f in talk.shown.facts if f.type == "read.updated" and not f.audience]
        assert fact.room_id == room.id

    async def test_sync_and_snapshot_have_everyone_s_pointer(
        self, talk: Talk, master: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(catch_up, "OVERLAP", catch_up.OVERLAP * 0)
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        await talk.send(alice, room.id)
        cursor = (await talk.container.catch_up.sync(alice, Sync())).cursor
        await mark(talk, bob, room.id)
        asked = {"cursor": cursor, "rooms": {str(room.id): {"epoch": "1.1", "seq": 2}}}
        found = await talk.container.catch_up.sync(alice, Sync.model_validate(asked))
        assert found.rooms[str(room.id)].reads == [{"user_id": "bob", "read_seq": 2}]
        mine = await talk.container.catch_up.sync(bob, Sync(cursor=None))
        assert mine.rooms[str(room.id)].read_seq == 2
        state = await talk.container.catch_up.snapshot(alice, RoomRequest(room_id=room.id))
        assert state.reads == [
            {"user_id": "alice", "read_seq": 2},
            {"user_id": "bob", "read_seq": 2},
        ]


class TestMentions:
    @pytest.mark.parametrize(
        ("mentions", "counts"),
        [
            (["bob"], (1, 0)),
            (["bob", "bob"], (1, 0)),
            (["!everyone"], (1, 1)),
            (["!here"], (1, 1)),
            (["!role:moderator"], (0, 1)),
            (["!role:moderator", "!everyone", "bob"], (1, 1)),
            (["stranger", "nobody"], (0, 0)),
            ([], (0, 0)),
        ],
    )
    async def test_by_name_by_role_and_all(
        self, talk: Talk, master: Principal, mentions: list[str], counts: tuple[int, int]
    ) -> None:
        alice, bob, carol, _ = await talk.users(master, "alice", "bob", "carol", "stranger")
        room = await talk.room(alice, bob, carol)
        async with talk.container.open_members() as members:
            command = UpdateMember(room_id=room.id, user_id="carol", role="moderator")
            await members.update(alice, command)
        sent = await talk.send(alice, room.id, mentions=mentions)
        # As it was sent, also where it counts for nobody.
        assert sent.message.mentions == list(dict.fromkeys(mentions))
        found = [(await seen(talk, who, room.id)).mentions for who in (bob, carol)]
        assert tuple(found) == counts
        assert (await seen(talk, alice, room.id)).mentions == 0
        assert (await mark(talk, bob, room.id)).mentions == 0

    async def test_silent_messages_count_for_nobody(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        loud = await talk.send(alice, room.id)
        quiet = await talk.send(alice, room.id, silent=True, mentions=["bob"])
        assert (loud.message.msg_no, quiet.message.msg_no) == (1, 1)
        assert quiet.message.silent
        found = await seen(talk, bob, room.id)
        assert (found.unread, found.mentions, found.last_seq) == (1, 0, 3)
        assert (await mark(talk, bob, room.id, 3)).unread == 0

    async def test_an_edit_moves_them_and_a_deletion_takes_them_back(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob, carol)
        message = (await talk.send(alice, room.id, mentions=["bob"])).message
        async with talk.container.open_changes() as changes:
            await changes.edit(alice, EditMessage(message_id=message.id, mentions=["carol"]))
        assert [(await seen(talk, who, room.id)).mentions for who in (bob, carol)] == [0, 1]
        async with talk.container.open_changes() as changes:
            await changes.delete(alice, MessageRef(message_id=message.id))
        # It counts as unread until it is read: `msg_no` never goes back. Its mention is gone.
        found = await seen(talk, carol, room.id)
        assert (found.unread, found.mentions) == (1, 0)
        assert (await mark(talk, carol, room.id, 3)).unread == 0


class TestTotals:
    async def test_they_are_the_sum_over_rooms(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        rooms = [await talk.room(alice, bob) for _ in range(3)]
        for n, room in enumerate(rooms):
            for _ in range(n):
                await talk.send(alice, room.id, mentions=["bob"])
        async with talk.container.open_members() as members:
            command = UpdateMember(room_id=rooms[2].id, user_id="bob", is_muted=True)
            await members.update(bob, command)
        found = await talk.container.reads.summary(bob)
        assert found.model_dump() == {
            "total_unread": 3,
            "muted_unread": 2,
            "total_mentions": 3,
            "unread_rooms": 2,
        }
        assert (await mark(talk, bob, rooms[2].id)).total_unread == 1
        nobody = await talk.user(master, "nobody")
        assert (await talk.container.reads.summary(nobody)).total_unread == 0

    @pytest.mark.parametrize("seed", range(int(os.environ.get("READ_SEEDS", "1"))))
    async def test_whatever_happens_they_are_what_counting_gives(
        self, talk: Talk, master: Principal, seed: int
    ) -> None:
        chance = random.Random(seed)
        people = await talk.users(master, "a", "b", "c")
        rooms = [await talk.room(*people) for _ in range(2)]
        pointers = {(who.user_id, room.id): 0 for who in people for room in rooms}
        for _ in range(40):
            who, room = chance.choice(people), chance.choice(rooms)
            [end] = await talk.rows("select last_seq from room where id = $1", room.id)
            match chance.randrange(4):
                case 0 | 1:
                    names = chance.sample(["a", "b", "!everyone", "!role:owner"], 2)
                    sent = await talk.send(
                        who, room.id, mentions=names, silent=chance.random() < 0.3
                    )
                    pointers[who.user_id, room.id] = sent.message.seq
                case 2:
                    seq = chance.randint(0, end["last_seq"])
                    await mark(talk, who, room.id, seq)
                    place = who.user_id, room.id
                    pointers[place] = max(pointers[place], seq)
                case _:
                    rows = await talk.rows(
                        "select id from message where room_id = $1 and deleted_at is null"
                        " order by random() limit 1",
                        room.id,
                    )
                    async with talk.container.open_changes() as changes:
                        for row in rows:
                            await changes.delete(master, MessageRef(message_id=row["id"]))
        for who in people:
            for room in rooms:
                found = await seen(talk, who, room.id)
                expected = await counted(talk, who, room.id, pointers[who.user_id, room.id])
                assert (found.read_seq, found.unread, found.mentions) == expected


async def counted(talk: Talk, who: Principal, room_id: UUID, pointer: int) -> tuple[int, int, int]:
    """Count one by one what is after a pointer."""
    rows = await talk.rows(
        "select mentions, deleted_at, silent from message where room_id = $1 and seq > $2",
        room_id,
        pointer,
    )
    role = "owner" if who.external_id == "a" else "member"
    names = {who.external_id, "!everyone", "!here", f"!role:{role}"}
    mentioned = [
        row
        for row in rows
        if not row["silent"]
        and row["deleted_at"] is None
        and names & set(orjson.loads(row["mentions"]))
    ]
    return pointer, sum(not row["silent"] for row in rows), len(mentioned)


async def test_the_bound_of_waiting_notices_holds(
    talk: Talk, master: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "MOST_WAITING", 1)
    alice, bob = await talk.users(master, "alice", "bob")
    room = await talk.room(alice, bob)
    await talk.send(master, room.id)
    notices = talk.container.conversation.notices
    await mark(talk, alice, room.id)
    await mark(talk, bob, room.id)
    assert len(notices._waiting) == 1
    pointers = PointerRepository(talk.container.database)
    state = await pointers.state(bob.client_id, room.id, bob.user_id)
    assert state is not None
    assert state.unread == 0
