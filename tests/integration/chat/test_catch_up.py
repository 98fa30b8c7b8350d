import asyncio
import os
import random
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from chatserver.chat import catch_up
from chatserver.chat.errors import CursorInvalidError, EpochMismatchError, HistoryTruncatedError
from chatserver.chat.schemas import (
    EditMessage,
    Events,
    ListEvents,
    ListMessages,
    ListThread,
    MessageOut,
    MessageRef,
    React,
    Replay,
    RoomRequest,
    Snapshot,
    Sync,
    Synced,
)
from chatserver.kernel.errors import DomainError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.operations import build_registry
from chatserver.privacy.schemas import PersonPath
from chatserver.rooms.errors import NotARoomMemberError, RoomNotFoundError
from chatserver.rooms.schemas import BanMember, MuteMember, RoomRef, UpdateMember, UpdateRoom
from tests.support.talk import Talk


async def replay(talk: Talk, who: Principal, room_id: UUID, after: int, **more: Any) -> Events:
    return await talk.container.catch_up.replay(
        who, Replay(room_id=room_id, after_seq=after, **more)
    )


async def events(talk: Talk, who: Principal, room_id: UUID, **more: Any) -> Events:
    return await talk.container.catch_up.events(who, ListEvents(room_id=room_id, **more))


async def snapshot(talk: Talk, who: Principal, room_id: UUID) -> Snapshot:
    return await talk.container.catch_up.snapshot(who, RoomRequest(room_id=room_id))


async def sync(
    talk: Talk,
    who: Principal,
    cursor: str | None = None,
    rooms: dict[UUID, tuple[str, int]] | None = None,
) -> Synced:
    positions = {
        str(room): {"epoch": epoch, "seq": seq} for room, (epoch, seq) in (rooms or {}).items()
    }
    asked: dict[str, Any] = {"rooms": positions} | ({"cursor": cursor} if cursor else {})
    return await talk.container.catch_up.sync(who, Sync.model_validate(asked))


def seqs(found: Events) -> list[int]:
    return [event["seq"] for event in found.events]


@pytest.fixture
def no_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test commits one after the other: the cursor's margin would only hide what changed."""
    monkeypatch.setattr(catch_up, "OVERLAP", timedelta(0))


class TestReplay:
    async def test_it_gives_what_was_shown_live_with_the_same_types_ids_and_seqs(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice)
        await talk.send(alice, room.id, metadata={"a": [1]}, mentions=["bob"])
        await talk.invite(alice, room.id, bob)
        await talk.send(master, room.id)
        await talk.remove(alice, room.id, bob)
        found = await replay(talk, alice, room.id, 0)
        assert found.complete
        assert found.last_seq == 5
        live = talk.shown.of(room.id)
        assert [event["type"] for event in live] == [
            "room.created",
            "message.created",
            "member.joined",
            "message.created",
            "member.left",
        ]
        assert found.events[1:] == live[1:]
        assert {**found.events[0], "data": None} == {**live[0], "data": None}

    async def test_pages_follow_one_another_without_hole_or_repeat(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        for n in range(10):
            await talk.send(alice, room.id, str(n))
        after, read = 0, []
        while True:
            found = await replay(talk, alice, room.id, after, limit=4)
            read += seqs(found)
            assert found.last_seq == 11
            assert found.complete is (read[-1] == 11)
            if found.complete:
                break
            after = read[-1]
        assert read == list(range(1, 12))
        end = await replay(talk, alice, room.id, 11)
        assert (end.events, end.complete) == ([], True)

    async def test_it_stops_at_256_kib_and_says_so(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        for _ in range(10):
            await talk.send(alice, room.id, "€" * 19_999)
        read: list[int] = []
        pages = 0
        while read != list(range(1, 12)):
            found = await replay(talk, alice, room.id, len(read))
            assert len(orjson.dumps(found.events)) <= 256 * 1024
            read += seqs(found)
            pages += 1
            assert found.complete is (read[-1] == 11)
        assert pages == 3

    async def test_one_event_that_is_too_large_alone_is_given_alone(
        self, talk: Talk, master: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(catch_up, "ANSWER_BYTES", 100)
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        await talk.send(alice, room.id)
        found = await replay(talk, alice, room.id, 0)
        assert seqs(found) == [1]

    @pytest.mark.parametrize(
        ("after", "epoch"), [(3, None), (2, "1.2"), (2, "2.1"), (2, ""), (0, "1.1.1")]
    )
    async def test_another_log_or_one_that_ends_later_is_no_log_of_ours(
        self, talk: Talk, master: Principal, after: int, epoch: str | None
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        await talk.send(alice, room.id)
        assert (await replay(talk, alice, room.id, 2, epoch="1.1")).complete
        with pytest.raises(EpochMismatchError) as caught:
            await replay(talk, alice, room.id, after, epoch=epoch)
        assert caught.value.details == {"epoch": "1.1", "last_seq": 2}

    async def test_what_was_truncated_is_said_and_not_skipped(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        for _ in range(5):
            await talk.send(alice, room.id)
        await talk.run("update room set min_seq = 4 where id = $1", room.id)
        with pytest.raises(HistoryTruncatedError) as caught:
            await replay(talk, alice, room.id, 2)
        assert caught.value.details == {"min_seq": 4}
        assert seqs(await replay(talk, alice, room.id, 3)) == [4, 5, 6]
        assert seqs(await events(talk, alice, room.id)) == [4, 5, 6]

    async def test_with_history_joined_nobody_reads_what_was_before(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, history="joined")
        await talk.send(alice, room.id, "secret")
        await talk.invite(alice, room.id, bob)
        await talk.send(alice, room.id, "hello bob")
        with pytest.raises(HistoryTruncatedError) as caught:
            await replay(talk, bob, room.id, 0)
        assert caught.value.details == {"min_seq": 3}
        assert seqs(await replay(talk, bob, room.id, 2)) == [3, 4]
        assert seqs(await events(talk, bob, room.id)) == [3, 4]
        assert seqs(await events(talk, alice, room.id)) == [1, 2, 3, 4]
        seen = await snapshot(talk, bob, room.id)
        assert [message.content for message in seen.messages] == ["hello bob"]
        listed = await talk.container.chat.list(bob, ListMessages(room_id=room.id))
        assert [message.content for message in listed.items] == ["hello bob"]
        backward = await talk.container.chat.list(bob, ListMessages(room_id=room.id, before_seq=4))
        assert backward.items == []

    async def test_strangers_and_former_members_read_nothing(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        mallory = await talk.user(await talk.client("other"), "mallory")
        room = await talk.room(alice, bob)
        await talk.remove(alice, room.id, bob)
        for who, refusal in (
            (bob, NotARoomMemberError),
            (carol, RoomNotFoundError),
            (mallory, RoomNotFoundError),
        ):
            for read in (
                replay(talk, who, room.id, 0),
                events(talk, who, room.id),
                snapshot(talk, who, room.id),
                talk.container.chat.list(who, ListMessages(room_id=room.id)),
            ):
                with pytest.raises(refusal):
                    await read

    async def test_a_room_is_replayed_as_it_is_now(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice, title="regrettable")
        async with talk.container.open_rooms() as rooms:
            await rooms.update(alice, UpdateRoom(room_id=room.id, title="better"))
        found = await replay(talk, alice, room.id, 0)
        assert [event["data"]["room"]["title"] for event in found.events] == ["better", "better"]


class TestHistory:
    async def test_it_reads_both_ways_and_says_whether_there_is_more(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        for n in range(7):
            await talk.send(alice, room.id, str(n))

        async def read(**where: Any) -> tuple[str, bool]:
            found = await talk.container.chat.list(alice, ListMessages(room_id=room.id, **where))
            return "".join(message.content for message in found.items), found.has_more

        assert await read() == ("0123456", False)
        assert await read(limit=3) == ("456", True)
        assert await read(limit=7) == ("0123456", False)
        assert await read(after_seq=0, limit=3) == ("012", True)
        assert await read(after_seq=5, limit=3) == ("456", False)
        assert await read(before_seq=5, limit=2) == ("12", True)
        assert await read(before_seq=5, limit=3) == ("012", False)
        assert await read(before_seq=2) == ("", False)
        assert await read(after_seq=8) == ("", False)
        with pytest.raises(DomainError) as caught:
            await read(after_seq=1, before_seq=5)
        assert caught.value.code == "payload.invalid"

    async def test_a_page_ends_at_256_kib_and_says_so(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        first = await talk.send(alice, room.id, "root")
        for n in range(9):
            await talk.send(alice, room.id, str(n) + "€" * 19_990, reply_to=first.message.id)
        chat = talk.container.chat

        async def read(**where: Any) -> tuple[list[int], bool]:
            found = await chat.list(alice, ListMessages(room_id=room.id, **where))
            assert len(found.model_dump_json()) < 300 * 1024
            return [message.seq for message in found.items], found.has_more

        assert await read() == ([8, 9, 10, 11], True)
        assert await read(before_seq=8) == ([4, 5, 6, 7], True)
        assert await read(before_seq=4) == ([2, 3], False)
        assert await read(after_seq=0) == ([2, 3, 4, 5, 6], True)
        assert await read(after_seq=7) == ([8, 9, 10, 11], False)
        thread = await chat.thread(alice, ListThread(message_id=first.message.id, after_seq=3))
        assert [message.seq for message in thread.items] == [4, 5, 6, 7]
        assert (thread.has_more, thread.count) == (True, 9)


class TestSnapshot:
    async def test_it_is_the_state_of_the_room_and_of_the_callers_seat(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob, title="hall")
        for n in range(60):
            await talk.send(alice, room.id, str(n))
        seen = await snapshot(talk, bob, room.id)
        assert (seen.epoch, seen.as_of_seq, seen.room.title) == ("1.1", 61, "hall")
        assert [message.content for message in seen.messages] == [str(n) for n in range(10, 60)]
        assert [member.user_id for member in seen.members] == ["alice", "bob"]
        assert seen.me is not None
        assert (seen.me["unread"], seen.me["read_seq"], seen.me["role"]) == (60, 0, "member")
        assert seen.reads == [
            {"user_id": "alice", "read_seq": 61},
            {"user_id": "bob", "read_seq": 0},
        ]
        for_the_client = await snapshot(talk, master, room.id)
        assert for_the_client.me is None

    async def test_a_large_room_is_given_without_its_members(
        self, talk: Talk, master: Principal
    ) -> None:
        people = await talk.users(master, *(f"u{n:03}" for n in range(201)))
        room = await talk.room(master, *people[:200])
        seen = await snapshot(talk, people[0], room.id)
        assert len(seen.members) == seen.members_count == 200
        assert seen.reads == []
        await talk.invite(master, room.id, people[200])
        seen = await snapshot(talk, people[0], room.id)
        assert (seen.members, seen.members_count) == ([], 201)

    @pytest.mark.parametrize("seed", range(int(os.environ.get("SNAPSHOT_SEEDS", "1"))))
    async def test_state_before_and_the_facts_since_make_the_state_after(
        self, talk: Talk, master: Principal, seed: int
    ) -> None:
        chance = random.Random(seed)
        people = await talk.users(master, *(f"u{n}" for n in range(5)))
        owner = people[0]
        room = await talk.room(owner, *people[1:])
        states = [await snapshot(talk, owner, room.id)]
        for n in range(40):
            try:
                await act(talk, chance, owner, people, room.id, n)
            except DomainError as error:
                assert error.code in EXPECTED  # noqa: PT017
            if chance.random() < 0.3:
                states.append(await snapshot(talk, owner, room.id))
        last = await snapshot(talk, owner, room.id)
        for state in states:
            found = await events(talk, owner, room.id, after_seq=state.as_of_seq, limit=300)
            assert found.complete
            assert applied(state, found.events) == observed(last)
        whole = await events(talk, owner, room.id, limit=300)
        assert agree(whole, talk, room.id)
        # And it stays so when somebody is erased: what is gone with a person is told, too.
        async with talk.container.open_privacy() as privacy:
            asked = await privacy.erase(master, PersonPath(external_id=people[1].external_id))
        await talk.container.privacy.eraser.erase(asked.id)
        last = await snapshot(talk, owner, room.id)
        for state in states:
            found = await events(talk, owner, room.id, after_seq=state.as_of_seq, limit=300)
            assert applied(state, found.events) == observed(last)

    async def test_each_type_of_fact_alone_makes_the_state_after_of_that_before(  # noqa: PLR0915
        self, talk: Talk, master: Principal
    ) -> None:
        """Every type that has a seq, but `room.deleted`: of that room there is no snapshot."""
        alice, bob, carol, dave = await talk.users(master, "alice", "bob", "carol", "dave")
        room = (await talk.room(alice, bob, carol)).id
        container = talk.container
        states = [await snapshot(talk, alice, room)]

        async def look() -> None:
            states.append(await snapshot(talk, alice, room))

        await talk.invite(alice, room, dave)
        await look()
        secret = await talk.send(dave, room, "of dave", mentions=["bob"])
        said = await talk.send(bob, room, "of bob", mentions=["dave", "alice"])
        await look()
        ref: dict[str, Any] = {"message_id": said.message.id}
        async with container.open_changes() as changes:
            await changes.edit(bob, EditMessage(**ref, content="edited"))
        await look()
        for who, emoji in ((dave, "👍"), (alice, "👍"), (alice, "🎉")):
            async with container.open_changes() as changes:
                await changes.react(who, React(**ref, emoji=emoji))
            await look()
        async with container.open_changes() as changes:
            await changes.unreact(alice, React(**ref, emoji="👍"))
        for message in (secret, said):
            async with container.open_changes() as changes:
                await changes.pin(alice, MessageRef(message_id=message.message.id))
            await look()
        async with container.open_changes() as changes:
            await changes.unpin(alice, MessageRef(**ref))
        await look()
        gone = await talk.send(bob, room, "to be deleted", reply_to=said.message.id)
        async with container.open_changes() as changes:
            await changes.delete(bob, MessageRef(message_id=gone.message.id))
        await look()
        async with container.open_sanctions() as sanctions:
            await sanctions.mute(alice, MuteMember(room_id=room, user_id="carol", for_s=60))
        await look()
        async with container.open_members() as members:
            command = UpdateMember(room_id=room, user_id="bob", role="moderator")
            await members.update(alice, command)
        await look()
        async with container.open_sanctions() as sanctions:
            await sanctions.ban(alice, BanMember(room_id=room, user_id="carol"))
        await look()
        async with container.open_rooms() as rooms:
            await rooms.update(
                alice, UpdateRoom(room_id=room, slow_mode_s=5, post_role="member", title="t")
            )
        await look()
        await talk.run(
            "update room set last_activity_at = clock_timestamp() - interval '29 days 12 hours',"
            " deactivation_check_at = clock_timestamp()"
        )
        async with container.open_rooms() as rooms:
            await rooms.deactivate_due(limit=10)
        await look()
        async with container.open_rooms() as rooms:
            await rooms.deactivate(alice, RoomRef(room_id=room))
        await look()
        await talk.send(alice, room, "awake")
        before = await snapshot(talk, alice, room)
        for state in states:
            found = await events(talk, alice, room, after_seq=state.as_of_seq, limit=300)
            assert applied(state, found.events) == observed(before), state.as_of_seq
        async with container.open_privacy() as privacy:
            asked = await privacy.erase(master, PersonPath(external_id="dave"))
        await container.privacy.eraser.erase(asked.id)
        last = await snapshot(talk, alice, room)
        seen = {event["type"] for event in (await events(talk, alice, room, limit=300)).events}
        sequenced = {fact.name for fact in build_registry().facts.values() if fact.sequenced}
        assert sequenced - seen == {"room.deleted"}
        for state in states:
            found = await events(talk, alice, room, after_seq=state.as_of_seq, limit=300)
            assert applied(state, found.events) == observed(last), state.as_of_seq


# What a random step may be refused with: he is not there, or the message is deleted by now.
EXPECTED = {"room.not_member", "member.not_found", "message.not_found", "message.not_yours"}


# What replays of these show is as it is by then.
AS_NOW = ("room.", "message.", "reaction.")


def agree(whole: Events, talk: Talk, room_id: UUID) -> bool:
    """Facts about the room or a message are replayed as it is now; all others as they were."""
    # As nodes show them: what two ways out of a process handed over at once is put in order there.
    live = sorted(
        (fact for fact in talk.shown.of(room_id) if "seq" in fact), key=lambda fact: fact["seq"]
    )
    return all(
        {**one, "data": None, "superseded": None} == {**other, "data": None, "superseded": None}
        and (one["data"] == other["data"] or one["type"].startswith(AS_NOW))
        for one, other in zip(whole.events, live, strict=True)
    )


async def change(
    talk: Talk, chance: random.Random, people: list[Principal], room: UUID, n: int
) -> None:
    """Do something with one of the newest messages."""
    rows = await talk.rows(
        "select id from message where room_id = $1 order by seq desc limit 4", room
    )
    if not rows:
        return
    who, ref = chance.choice(people), {"message_id": chance.choice(rows)["id"]}
    async with talk.container.open_changes() as changes:
        match chance.randrange(6):
            case 0:
                names: list[str] = chance.choice([["u1"], []])
                command = EditMessage(**ref, content=f"edited {n}", mentions=names)
                await changes.edit(people[0], command)
            case 1:
                await changes.delete(people[0], MessageRef(**ref))
            case 2:
                await changes.react(who, React(**ref, emoji=chance.choice("👍🎉🙈")))
            case 3:
                await changes.unreact(who, React(**ref, emoji=chance.choice("👍🎉🙈")))
            case 4:
                await changes.pin(who, MessageRef(**ref))
            case _:
                await changes.unpin(who, MessageRef(**ref))


async def act(
    talk: Talk, chance: random.Random, owner: Principal, people: list[Principal], room: UUID, n: int
) -> None:
    who = chance.choice(people[1:])
    match chance.randrange(10):
        case 6 | 7:
            await change(talk, chance, people, room, n)
        case 8:
            [row] = await talk.rows(
                "select id from message where room_id = $1 order by random() limit 1", room
            ) or [{"id": None}]
            await talk.send(
                owner, room, f"re {n}", reply_to=row["id"], silent=chance.random() < 0.5
            )
        case 9:
            await change(talk, chance, [owner], room, n)
        case 0 | 1:
            await talk.send(chance.choice(people), room, str(n), metadata={"n": n})
        case 2:
            await talk.invite(owner, room, who)
        case 3:
            await talk.remove(owner, room, who)
        case 4:
            async with talk.container.open_rooms() as rooms:
                if chance.random() < 0.5:
                    await rooms.update(owner, UpdateRoom(room_id=room, title=f"t{n}"))
                else:
                    await rooms.deactivate(owner, RoomRef(room_id=room))
        case _:
            async with talk.container.open_members() as members:
                role: Any = chance.choice(["member", "moderator"])
                await members.update(
                    owner, UpdateMember(room_id=room, user_id=who.external_id, role=role)
                )


ROOM_STATE = (
    "title", "is_active", "members_count", "metadata", "deactivated_at", "deactivates_at", "epoch",
    "slow_mode_s", "post_role", "archived_at",
)  # fmt: skip


def observed(state: Snapshot) -> dict[str, Any]:
    room = state.room.model_dump(mode="json")
    return {
        "room": {name: room[name] for name in ROOM_STATE},
        "members": {
            member["user_id"]: (member["role"], member.get("muted_until"))
            for member in (each.model_dump(mode="json") for each in state.members)
        },
        "messages": [as_told(message) for message in state.messages],
        "pins": [as_told(message) for message in state.pins],
        "seq": state.as_of_seq,
    }


def as_told(message: MessageOut | dict[str, Any]) -> dict[str, Any]:
    """A message as everyone sees it: whose reactions they are is for one reader alone."""
    members = dict(message if isinstance(message, dict) else message.model_dump(mode="json"))
    if members["metadata"] == {"erased": True}:
        return purged(members)
    members["reactions"] = {each["emoji"]: each["count"] for each in members["reactions"]}
    return members


def purged(message: dict[str, Any]) -> dict[str, Any]:
    """What a device keeps of a message whose author was erased: its place."""
    return {"id": message["id"], "seq": message["seq"], "pinned": False, "erased": True}


def places(made: dict[str, Any], message_id: str | None) -> list[dict[str, Any]]:
    """Where a client keeps a message: in the room and among its pins."""
    return [
        message for message in (*made["messages"], *made["pins"]) if message["id"] == message_id
    ]


def applied(state: Snapshot, facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Apply facts as a client would: the room's own fields, who is in, and what was said."""
    made = observed(state)
    for fact in facts:
        assert fact["seq"] == made["seq"] + 1
        made["seq"] = fact["seq"]
        if fact["type"].startswith(("message", "reaction.", "pin.")):
            apply_to_messages(made, fact["type"], fact["data"])
        else:
            apply_to_room(made, fact["type"], fact["data"])
    made["messages"] = made["messages"][-50:]
    return made


def apply_to_messages(made: dict[str, Any], fact_type: str, data: dict[str, Any]) -> None:
    for root in places(made, data.get("thread", {}).get("id")):
        root["reply_count"] = data["thread"]["reply_count"]
    if fact_type == "messages.erased":
        made["room"]["members_count"] = data["members_count"]
        purge(made, data["user_id"], data["up_to_seq"])
    elif fact_type == "message.created":
        made["messages"].append(as_told(data["message"]))
    elif fact_type == "reaction.changed":
        for place in places(made, data["message_id"]):
            place["reactions"] = data["counts"]
    elif fact_type == "pin.changed":
        found = places(made, data["message_id"])
        for place in found:
            place["pinned"] = data["pinned"]
        if data["pinned"]:
            made["pins"].append(found[0])
    else:
        for place in places(made, data["message"]["id"]):
            place.update(as_told(data["message"]))
    made["pins"] = [message for message in made["pins"] if message["pinned"]]


def purge(made: dict[str, Any], person: str, up_to_seq: int) -> None:
    made["members"].pop(person, None)
    for kept in ("messages", "pins"):
        made[kept] = [
            purged(message)
            if message.get("erased")
            or (message["sender_id"] == person and message["seq"] <= up_to_seq)
            else message
            for message in made[kept]
        ]
    for message in (*made["messages"], *made["pins"]):
        if person in message.get("mentions", ()):
            message["mentions"] = [name for name in message["mentions"] if name != person]


def apply_to_room(made: dict[str, Any], fact_type: str, data: dict[str, Any]) -> None:
    if fact_type.startswith("room."):
        made["room"] = {name: data["room"][name] for name in ROOM_STATE}
        return
    made["room"]["members_count"] = data["members_count"]
    if data["user_id"] is None:
        return  # somebody who was erased since; `messages.erased` will say who
    if fact_type == "member.left":
        made["members"].pop(data["user_id"], None)
    else:
        made["members"][data["user_id"]] = (data["role"], data.get("muted_until"))


class TestSync:
    async def test_the_first_one_gives_every_room(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        one, two = await talk.room(alice, bob), await talk.room(alice)
        await talk.room(bob)
        await talk.send(bob, one.id, mentions=["alice"])
        await talk.send(bob, one.id, mentions=["alice", "bob"])
        await talk.send(bob, one.id)
        found = await sync(talk, alice)
        assert set(found.rooms) == {str(one.id), str(two.id)}
        assert found.rooms[str(one.id)].model_dump() == {
            "epoch": "1.1",
            "last_seq": 4,
            "min_seq": 1,
            "read_seq": 0,
            "unread": 3,
            "mentions": 2,
            "reads": [{"user_id": "alice", "read_seq": 0}, {"user_id": "bob", "read_seq": 4}],
        }
        assert found.rooms_version == 2
        assert (found.joined, found.removed, found.more) == ([], [], None)

    async def test_sending_reads_up_to_ones_own_message(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        await talk.send(bob, room.id, mentions=["alice"])
        await talk.send(alice, room.id)
        await talk.send(bob, room.id)
        found = (await sync(talk, alice)).rooms[str(room.id)]
        assert (found.read_seq, found.unread, found.mentions) == (3, 1, 0)

    async def test_what_was_before_one_came_is_not_unread(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice)
        await talk.send(alice, room.id)
        await talk.invite(alice, room.id, bob)
        assert (await sync(talk, bob)).rooms[str(room.id)].unread == 0
        await talk.send(alice, room.id)
        assert (await sync(talk, bob)).rooms[str(room.id)].unread == 1

    @pytest.mark.usefixtures("no_overlap")
    async def test_with_a_cursor_only_what_changed_comes_back(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        rooms = [(await talk.room(alice, bob)).id for _ in range(4)]
        first = await sync(talk, alice)
        again = await sync(talk, alice, first.cursor)
        assert (again.rooms, again.joined, again.removed) == ({}, [], [])
        await talk.send(bob, rooms[1])
        await talk.remove(master, rooms[2], alice)
        fresh = (await talk.room(bob, alice)).id
        found = await sync(talk, alice, again.cursor)
        assert set(found.rooms) == {str(rooms[1]), str(fresh)}
        assert [each.room.id for each in found.joined] == [fresh]
        assert [(each.room_id, each.reason) for each in found.removed] == [(rooms[2], "removed")]
        last = await sync(talk, alice, found.cursor)
        assert (last.rooms, last.removed) == ({}, [])

    @pytest.mark.usefixtures("no_overlap")
    async def test_each_way_out_of_a_room_has_its_reason(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        left, removed, deleted, back = [(await talk.room(master, alice)).id for _ in range(4)]
        cursor = (await sync(talk, alice)).cursor
        async with talk.container.open_members() as members:
            await members.leave(alice, RoomRef(room_id=left))
        await talk.remove(master, removed, alice)
        async with talk.container.open_rooms() as rooms:
            await rooms.delete(master, RoomRef(room_id=deleted))
        await talk.remove(master, back, alice)
        await talk.invite(master, back, alice)
        found = await sync(talk, alice, cursor)
        assert {each.room_id: each.reason for each in found.removed} == {
            left: "left",
            removed: "removed",
            deleted: "deleted",
        }
        assert set(found.rooms) == {str(back)}

    async def test_few_missing_facts_come_along_and_many_are_only_counted(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        small, large = await talk.room(alice), await talk.room(alice)
        for _ in range(5):
            await talk.send(alice, small.id)
        for _ in range(51):
            await talk.send(alice, large.id)
        found = await sync(talk, alice, rooms={small.id: ("1.1", 3), large.id: ("1.1", 1)})
        events = found.rooms[str(small.id)].events
        assert events is not None
        assert [event["seq"] for event in events] == [4, 5, 6]
        assert found.rooms[str(large.id)].behind
        assert found.rooms[str(large.id)].events is None
        nearer = await sync(talk, alice, rooms={large.id: ("1.1", 2), small.id: ("1.1", 6)})
        assert len(nearer.rooms[str(large.id)].events or ()) == 50
        assert nearer.rooms[str(small.id)].events == []

    async def test_in_all_300_facts_and_256_kib_come_along(
        self, talk: Talk, master: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alice = await talk.user(master, "alice")
        rooms = [(await talk.room(alice)).id for _ in range(8)]
        for room_id in rooms:
            await asyncio.gather(*(talk.send(alice, room_id) for _ in range(49)))
        known = dict.fromkeys(rooms, ("1.1", 1))
        found = await sync(talk, alice, rooms=known)
        came = [room for room in found.rooms.values() if room.events]
        assert sum(len(room.events or ()) for room in came) == 294
        assert sum(room.behind is True for room in found.rooms.values()) == 2
        monkeypatch.setattr(catch_up, "ANSWER_BYTES", 60_000)
        found = await sync(talk, alice, rooms=known)
        came = [room for room in found.rooms.values() if room.events]
        assert len(came) == 1

    async def test_a_position_that_is_none_of_ours_is_an_error_of_its_room_alone(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        mallory = await talk.user(await talk.client("other"), "mallory")
        good, ahead, other, cut = [(await talk.room(alice)).id for _ in range(4)]
        left = (await talk.room(master, alice)).id
        await talk.remove(master, left, alice)
        await talk.run("update room set min_seq = 2, last_seq = 9 where id = $1", cut)
        foreign, strangers = (await talk.room(mallory)).id, (await talk.room(bob)).id
        found = await sync(
            talk,
            alice,
            rooms={
                good: ("1.1", 1),
                ahead: ("1.1", 2),
                other: ("1.7", 1),
                cut: ("1.1", 0),
                left: ("1.1", 1),
                foreign: ("1.1", 1),
                strangers: ("1.1", 1),
                uuid7(): ("1.1", 1),
            },
        )
        codes = {name: room.error["code"] for name, room in found.rooms.items() if room.error}
        assert {UUID(name): code for name, code in codes.items() if code != "room.not_found"} == {
            ahead: "epoch.mismatch",
            other: "epoch.mismatch",
            cut: "history.truncated",
            left: "room.not_member",
        }
        assert {UUID(name) for name, code in codes.items() if code == "room.not_found"} >= {
            foreign,
            strangers,
        }
        assert len(codes) == 7
        assert found.rooms[str(cut)].error == {"code": "history.truncated", "min_seq": 2}

    async def test_a_watched_channel_is_caught_up_with_like_a_room(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        channel = await talk.room(alice, kind="channel")
        await talk.send(alice, channel.id)
        found = await sync(talk, bob, rooms={channel.id: ("1.1", 1)})
        room = found.rooms[str(channel.id)]
        assert [event["seq"] for event in room.events or ()] == [2]
        assert (room.last_seq, room.unread) == (2, None)
        ahead = await sync(talk, bob, rooms={channel.id: ("1.1", 3)})
        assert (ahead.rooms[str(channel.id)].error or {})["code"] == "epoch.mismatch"

    async def test_more_than_500_rooms_come_in_pages_that_miss_nothing(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        await talk.run(
            "with made as (insert into room (id, client_id, type, history, is_active, epoch,"
            "  members_count, last_seq) select gen_random_uuid(), $1, 'group', 'all', true, 1, 1, 1"
            "  from generate_series(1, 1203) returning id)"
            " insert into member (room_id, user_id, client_id, role, is_muted, is_favorite,"
            "  notification_level) select id, $2, $1, 'member', false, false, 'all' from made",
            master.client_id,
            alice.user_id,
        )
        names: list[str] = []
        cursor = None
        for _ in range(4):
            found = await sync(talk, alice, cursor)
            assert len(found.rooms) <= 500
            names += found.rooms
            cursor = found.cursor
            if not found.more:
                break
        assert len(names) == len(set(names)) == 1203
        # The last page's cursor is a plain one again.
        await talk.run(
            "update room set last_event_at = last_event_at - interval '1 hour'",
        )
        await talk.run(
            "update member set joined_at = joined_at - interval '1 hour',"
            " updated_at = updated_at - interval '1 hour'"
        )
        assert (await sync(talk, alice, cursor)).rooms == {}

    async def test_a_change_between_two_pages_is_told_by_the_next_sync(
        self, talk: Talk, master: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(catch_up, "ROOMS_PER_SYNC", 2)
        monkeypatch.setattr(catch_up, "OVERLAP", timedelta(0))
        alice = await talk.user(master, "alice")
        rooms = sorted([(await talk.room(alice)).id for _ in range(4)])
        first = await sync(talk, alice)
        assert first.more
        await talk.send(master, rooms[0])
        second = await sync(talk, alice, first.cursor)
        assert not second.more
        third = await sync(talk, alice, second.cursor)
        assert set(third.rooms) == {str(rooms[0])}

    @pytest.mark.parametrize("cursor", ["x", "AAAA", "ü", "=" * 10, "A" * 512])
    async def test_a_cursor_that_is_not_ours_is_refused(
        self, talk: Talk, master: Principal, cursor: str
    ) -> None:
        alice = await talk.user(master, "alice")
        with pytest.raises(CursorInvalidError):
            await sync(talk, alice, cursor)

    async def test_a_cursor_of_somebody_else_is_refused(
        self, talk: Talk, second: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        cursor = (await sync(talk, alice)).cursor
        with pytest.raises(CursorInvalidError):
            await sync(talk, bob, cursor)
        # Any node of the cluster reads it, though.
        await sync(second, alice, cursor)

    async def test_a_cursor_from_before_what_is_kept_is_refused_rather_than_half_answered(
        self, talk: Talk, master: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alice = await talk.user(master, "alice")
        cursor = (await sync(talk, alice)).cursor
        monkeypatch.setattr(catch_up, "REMOVED_KEPT", timedelta(0))
        with pytest.raises(CursorInvalidError):
            await sync(talk, alice, cursor)

    async def test_a_thousand_rooms_left_are_told_and_more_are_not_told_in_part(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        cursor = (await sync(talk, alice)).cursor
        leave = (
            "insert into departure (room_id, user_id, client_id, reason)"
            " select gen_random_uuid(), $1, $2, 'left' from generate_series(1, $3::int)"
        )
        await talk.run(leave, alice.user_id, master.client_id, 1000)
        assert len((await sync(talk, alice, cursor)).removed) == 1000
        await talk.run(leave, alice.user_id, master.client_id, 1)
        with pytest.raises(CursorInvalidError):
            await sync(talk, alice, cursor)
