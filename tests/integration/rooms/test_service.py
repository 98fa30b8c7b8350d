import asyncio
from typing import Any
from uuid import UUID

import pytest

from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.rooms.errors import NotARoomMemberError, RoleMissingError, RoomNotFoundError
from chatserver.rooms.schemas import (
    CreateRoom,
    ExternalRoomRef,
    ListAllRooms,
    ListRooms,
    RoomOut,
    RoomRef,
    UpdateRoom,
)
from chatserver.users.errors import UserNotFoundError
from tests.support.talk import Talk


async def call(talk: Talk, method: str, who: Principal, command: Any) -> Any:
    async with talk.container.open_rooms() as rooms:
        return await getattr(rooms, method)(who, command)


async def get(talk: Talk, who: Principal, room_id: UUID) -> RoomOut:
    found: RoomOut = await call(talk, "get", who, RoomRef(room_id=room_id))
    return found


class TestCreate:
    async def test_the_maker_is_its_owner_and_all_members_enter_with_one_fact(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob, title="hall", metadata={"a": 1})
        assert (room.created, room.members_count, room.created_by) == (True, 2, "alice")
        assert (room.last_seq, room.msg_no, room.is_active) == (1, 0, True)
        assert room.me is not None
        assert room.me.role == "owner"
        [fact] = talk.shown.facts
        assert fact.type == "room.created"
        assert set(fact.effect.entered) == set(fact.audience) == {alice.user_id, bob.user_id}
        seen = await get(talk, bob, room.id)
        assert seen.me is not None
        assert (seen.me.role, seen.metadata, seen.last_seq) == ("member", {"a": 1}, 1)
        versions = await talk.rows("select rooms_version, rooms_changed_at from app_user")
        assert [row["rooms_version"] for row in versions] == [1, 1]
        assert all(row["rooms_changed_at"] for row in versions)

    async def test_naming_oneself_or_somebody_twice_changes_nothing(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, alice, bob, bob)
        assert room.members_count == 2

    async def test_the_application_makes_rooms_without_an_owner_or_anyone(
        self, talk: Talk, master: Principal
    ) -> None:
        room = await talk.room(master)
        assert (room.members_count, room.created_by, room.me) == (0, None, None)

    @pytest.mark.parametrize("others", [0, 2])
    async def test_a_direct_room_has_exactly_two(
        self, talk: Talk, master: Principal, others: int
    ) -> None:
        people = await talk.users(master, "alice", "bob", "carol")
        with pytest.raises(PayloadInvalidError) as caught:
            await talk.room(people[0], *people[1 : 1 + others], kind="direct")
        assert caught.value.issues[0]["field"] == "member_ids"
        assert (await talk.room(people[0], people[1], kind="direct")).members_count == 2

    async def test_an_unknown_member_is_named_and_nothing_is_made(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        foreign = await talk.user(await talk.client("other"), "mallory")
        for stranger in (foreign.external_id, "nobody"):
            with pytest.raises(UserNotFoundError) as caught:
                await call(
                    talk, "create", alice, CreateRoom(type="group", member_ids=["alice", stranger])
                )
            assert caught.value.issues[0]["field"] == "member_ids.1"
        assert await talk.rows("select 1 from room") == []
        assert talk.shown.facts == []

    async def test_more_than_five_hundred_enter_with_a_fact_for_each_five_hundred(
        self, talk: Talk, master: Principal
    ) -> None:
        people = await talk.users(master, *(f"u{n:04}" for n in range(1000)))
        room = await talk.room(master, *people)
        assert room.last_seq == 2
        assert [fact.type for fact in talk.shown.facts] == ["room.created", "member.joined"]
        assert [len(fact.effect.entered) for fact in talk.shown.facts] == [500, 500]
        entered = {user for fact in talk.shown.facts for user in fact.effect.entered}
        assert entered == {each.user_id for each in people}
        seats = await talk.rows("select user_id, joined_seq from member order by joined_seq")
        by_seq = {
            seq: {row["user_id"] for row in seats if row["joined_seq"] == seq} for seq in (1, 2)
        }
        assert by_seq == {
            at: set(fact.effect.entered) for at, fact in enumerate(talk.shown.facts, start=1)
        }


class TestExternalIds:
    async def test_a_known_name_gives_the_room_that_has_it(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        first = await talk.room(alice, external_id="order-7", title="one")
        again = await talk.room(alice, external_id="order-7", title="two")
        assert (again.id, again.created, again.title) == (first.id, False, "one")
        assert len(talk.shown.facts) == 1

    async def test_twenty_at_once_make_one_room(
        self, talk: Talk, second: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        made = await asyncio.gather(
            *(node.room(alice, external_id="x") for _ in range(10) for node in (talk, second))
        )
        assert len({room.id for room in made}) == 1
        assert sum(room.created for room in made) == 1

    async def test_names_are_the_clients_own_and_of_members_only(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        other = await talk.client("other")
        room = await talk.room(alice, external_id="x")
        assert (await talk.room(other, external_id="x")).id != room.id
        with pytest.raises(RoomNotFoundError):
            await talk.room(bob, external_id="x")
        with pytest.raises(RoomNotFoundError):
            await call(talk, "get_external", bob, ExternalRoomRef(external_id="x"))
        found = await call(talk, "get_external", alice, ExternalRoomRef(external_id="x"))
        assert found.id == room.id

    async def test_the_name_of_a_deleted_room_is_free_again(
        self, talk: Talk, master: Principal
    ) -> None:
        first = await talk.room(master, external_id="x")
        await call(talk, "delete", master, RoomRef(room_id=first.id))
        with pytest.raises(RoomNotFoundError):
            await call(talk, "get_external", master, ExternalRoomRef(external_id="x"))
        again = await talk.room(master, external_id="x")
        assert again.created
        assert again.id != first.id


class TestSeeing:
    async def test_who_may_see_a_room(self, talk: Talk, master: Principal) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        foreign = await talk.client("other")
        mallory = await talk.user(foreign, "mallory")
        room, channel = await talk.room(alice, bob), await talk.room(alice, kind="channel")
        await talk.remove(alice, room.id, bob)
        assert (await get(talk, alice, room.id)).id == room.id
        assert (await get(talk, master, room.id)).me is None
        assert (await get(talk, carol, channel.id)).me is None
        for who, room_id, refusal in (
            (bob, room.id, NotARoomMemberError),
            (carol, room.id, RoomNotFoundError),
            (mallory, room.id, RoomNotFoundError),
            (mallory, channel.id, RoomNotFoundError),
            (foreign, room.id, RoomNotFoundError),
            (alice, uuid7(), RoomNotFoundError),
        ):
            with pytest.raises(refusal):
                await get(talk, who, room_id)


class TestLists:
    async def test_ones_own_rooms_come_with_the_liveliest_first(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        rooms = [(await talk.room(alice, bob)).id for _ in range(3)]
        await talk.room(bob)
        await talk.send(bob, rooms[0])
        listed = await call(talk, "list_mine", alice, ListRooms(size=2))
        assert [room.id for room in listed.items] == [rooms[0], rooms[2]]
        assert (listed.total, listed.items[0].me.unread) == (3, 1)
        rest = await call(talk, "list_mine", alice, ListRooms(size=2, page=2))
        assert [room.id for room in rest.items] == [rooms[1]]

    async def test_filters_narrow_both_lists(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        group, channel = await talk.room(alice), await talk.room(alice, kind="channel")
        await call(talk, "deactivate", alice, RoomRef(room_id=channel.id))
        for asked, expected in (
            (ListRooms(type="group"), [group.id]),
            (ListRooms(is_active=False), [channel.id]),
            (ListRooms(type="group", is_active=False), []),
        ):
            listed = await call(talk, "list_mine", alice, asked)
            assert [room.id for room in listed.items] == expected
            assert listed.total == len(expected)
            every = await call(talk, "list_mine", master, asked)
            assert [room.id for room in every.items] == expected

    async def test_the_application_finds_rooms_by_title_and_name(
        self, talk: Talk, master: Principal
    ) -> None:
        foreign = await talk.client("other")
        await talk.room(foreign, title="Kitchen 100%")
        one = await talk.room(master, title="Kitchen 100%")
        two = await talk.room(master, external_id="kitchen_2")
        await talk.room(master, title="Hall")
        for q, expected in (
            ("kitchen", [two.id, one.id]),
            ("100%", [one.id]),
            ("%", [one.id]),
            ("n_2", [two.id]),
            ("n%2", []),
            ("\\", []),
        ):
            listed = await call(talk, "list_all", master, ListAllRooms(q=q))
            assert [room.id for room in listed.items] == expected

    async def test_deleted_rooms_are_in_no_list(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        await call(talk, "delete", alice, RoomRef(room_id=room.id))
        assert (await call(talk, "list_mine", alice, ListRooms())).total == 0
        assert (await call(talk, "list_all", master, ListAllRooms())).total == 0


class TestChanges:
    async def test_a_change_is_a_fact_and_leaves_the_rest_as_it_was(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice, title="a", metadata={"x": 1})
        changed = await call(talk, "update", alice, UpdateRoom(room_id=room.id, title=None))
        assert (changed.title, changed.metadata, changed.last_seq) == (None, {"x": 1}, 2)
        changed = await call(
            talk, "update", master, UpdateRoom(room_id=room.id, metadata={}, history="joined")
        )
        assert (changed.metadata, changed.history, changed.last_seq) == ({}, "joined", 3)
        facts = talk.shown.of(room.id)
        assert [(fact["type"], fact["actor"]["type"]) for fact in facts] == [
            ("room.created", "user"),
            ("room.updated", "user"),
            ("room.updated", "client"),
        ]
        # The fact says the room as it was then; where its log stands is the fact's own seq.
        assert facts[1]["data"]["room"]["metadata"] == {"x": 1}
        assert not {"last_seq", "msg_no", "me"} & set(facts[1]["data"]["room"])

    @pytest.mark.parametrize(
        ("method", "lowest"),
        [("update", "moderator"), ("deactivate", "admin"), ("delete", "owner")],
    )
    async def test_each_change_takes_a_role(
        self, talk: Talk, master: Principal, method: str, lowest: str
    ) -> None:
        roles = ["member", "moderator", "admin", "owner"]
        people = dict(zip(roles, await talk.users(master, *roles), strict=True))
        for role, who in people.items():
            room = await talk.room(master, who)
            await talk.run("update member set role = $1 where room_id = $2", role, room.id)
            command = (
                UpdateRoom(room_id=room.id, title="x")
                if method == "update"
                else RoomRef(room_id=room.id)
            )
            if roles.index(role) >= roles.index(lowest):
                await call(talk, method, who, command)
            else:
                with pytest.raises(RoleMissingError):
                    await call(talk, method, who, command)

    async def test_a_channels_stranger_changes_nothing(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        channel = await talk.room(alice, kind="channel")
        for method in ("deactivate", "reactivate", "delete"):
            with pytest.raises(NotARoomMemberError):
                await call(talk, method, bob, RoomRef(room_id=channel.id))

    async def test_sleeping_and_waking_twice_are_one_fact_each(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        reference = RoomRef(room_id=room.id)
        for _ in range(2):
            slept = await call(talk, "deactivate", alice, reference)
            assert (slept.is_active, slept.last_seq) == (False, 2)
            assert slept.deactivated_at is not None
        for _ in range(2):
            woke = await call(talk, "reactivate", alice, reference)
            assert (woke.is_active, woke.last_seq, woke.deactivated_at) == (True, 3, None)
        assert [fact.type for fact in talk.shown.facts[1:]] == [
            "room.deactivated",
            "room.reactivated",
        ]

    async def test_a_message_wakes_a_room_and_both_facts_are_shown_in_order(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        await call(talk, "deactivate", alice, RoomRef(room_id=room.id))
        sent = await talk.send(alice, room.id)
        assert sent.message.seq == 4
        await talk.shown.at_least(4)
        assert [(fact.seq, fact.type) for fact in talk.shown.facts[2:]] == [
            (3, "room.reactivated"),
            (4, "message.created"),
        ]


class TestDelete:
    async def test_everyone_is_out_at_once_and_the_rest_is_purged_in_slices(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room, kept = await talk.room(alice, bob), await talk.room(alice)
        for n in range(25):
            await talk.send(alice, room.id, str(n))
        await talk.send(alice, kept.id)
        before = await talk.rows("select id, rooms_version from app_user order by id")
        await call(talk, "delete", alice, RoomRef(room_id=room.id))
        [fact] = [fact for fact in talk.shown.facts if fact.type == "room.deleted"]
        assert fact.effect.closed
        for who in (alice, bob, master):
            with pytest.raises(RoomNotFoundError):
                await get(talk, who, room.id)
        gone = await talk.rows("select user_id, reason from departure")
        assert {row["user_id"] for row in gone} == {alice.user_id, bob.user_id}
        assert {row["reason"] for row in gone} == {"deleted"}
        after = await talk.rows("select id, rooms_version from app_user order by id")
        assert [row["rooms_version"] for row in after] == [
            row["rooms_version"] + 1 for row in before
        ]
        [planned] = await talk.rows("select type, room_id from outbox")
        assert (planned["type"], planned["room_id"]) == ("room.deleted", room.id)
        slices = await self.purge(talk, master, room.id)
        assert slices == 3 + 3  # 27 facts and 25 messages, ten at a time
        assert await talk.rows("select 1 from room where id = $1", room.id) == []
        for table, left in (("room_event", 2), ("message", 1), ("member", 1)):
            [row] = await talk.rows(f"select count(*) from {table}")
            assert row["count"] == left
        assert len(await talk.rows("select 1 from departure")) == 2

    async def test_a_living_room_is_never_purged(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        await talk.send(alice, room.id)
        assert await self.purge(talk, master, room.id) == 0
        assert len(await talk.log(room.id)) == 2

    async def test_another_client_purges_nothing(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        await call(talk, "delete", alice, RoomRef(room_id=room.id))
        assert await self.purge(talk, await talk.client("other"), room.id) == 0
        assert len(await talk.log(room.id)) == 2

    async def purge(self, talk: Talk, master: Principal, room_id: UUID) -> int:
        slices = 0
        while True:
            async with talk.container.open_rooms() as rooms:
                if not await rooms.purge(master.client_id, room_id, limit=10):
                    return slices
            slices += 1
