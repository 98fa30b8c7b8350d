from typing import Any
from uuid import UUID

import pytest

from chatserver.kernel.principal import Principal
from chatserver.rooms.errors import (
    MemberNotFoundError,
    NotARoomMemberError,
    RoleMissingError,
    RoomDeactivatedError,
    RoomFullError,
    RoomNotFoundError,
)
from chatserver.rooms.schemas import (
    InviteMembers,
    ListMembers,
    MemberRef,
    PutMember,
    RoomRef,
    UpdateMember,
)
from chatserver.users.errors import UserNotFoundError
from tests.support.talk import Talk


async def call(talk: Talk, method: str, who: Principal, command: Any) -> Any:
    async with talk.container.open_members() as members:
        return await getattr(members, method)(who, command)


async def seat(talk: Talk, room_id: UUID, who: Principal) -> dict[str, Any] | None:
    rows = await talk.rows(
        "select * from member where room_id = $1 and user_id = $2", room_id, who.user_id
    )
    return rows[0] if rows else None


async def version(talk: Talk, who: Principal) -> int:
    [row] = await talk.rows("select rooms_version from app_user where id = $1", who.user_id)
    found: int = row["rooms_version"]
    return found


class TestInvite:
    async def test_newcomers_enter_with_the_fact_that_lets_them_in(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob)
        await talk.send(alice, room.id)
        joined = await call(
            talk, "invite", alice, InviteMembers(room_id=room.id, user_ids=["bob", "carol"])
        )
        assert (joined.added, joined.members_count) == (["carol"], 3)
        assert [member.user_id for member in joined.members] == ["bob", "carol"]
        fact = talk.shown.facts[-1]
        assert (fact.type, fact.seq, fact.effect.entered) == (
            "member.joined",
            3,
            (carol.user_id,),
        )
        assert talk.shown.of(room.id)[-1]["data"] == {
            "user_id": "carol",
            "role": "member",
            "members_count": 3,
        }
        kept = await seat(talk, room.id, carol)
        assert kept is not None
        assert (kept["joined_seq"], kept["min_seq"], kept["read_seq"], kept["read_msg_no"]) == (
            3,
            1,
            2,
            1,
        )
        assert [await version(talk, who) for who in (alice, bob, carol)] == [1, 1, 1]

    async def test_inviting_those_who_are_there_is_no_news(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        await talk.run("update member set role = 'admin' where user_id = $1", bob.user_id)
        joined = await call(talk, "invite", alice, InviteMembers(room_id=room.id, user_id="bob"))
        assert (joined.added, joined.members[0].role) == ([], "admin")
        assert len(talk.shown.facts) == 1

    async def test_several_newcomers_are_one_fact(self, talk: Talk, master: Principal) -> None:
        people = await talk.users(master, *(f"u{n:03}" for n in range(600)))
        room = await talk.room(master)
        await talk.invite(master, room.id, *people)
        facts = talk.shown.of(room.id)[1:]
        assert [(fact["seq"], len(fact["data"]["user_ids"])) for fact in facts] == [
            (2, 500),
            (3, 100),
        ]
        assert facts[0]["data"]["user_id"] is None
        assert facts[-1]["data"]["members_count"] == 600

    async def test_a_direct_room_takes_nobody_else(self, talk: Talk, master: Principal) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob, kind="direct")
        for who in (alice, master):
            with pytest.raises(RoomFullError):
                await talk.invite(who, room.id, carol)

    async def test_it_takes_a_role_and_gives_none_above_ones_own(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob)
        with pytest.raises(RoleMissingError):
            await talk.invite(bob, room.id, carol)
        await talk.run("update member set role = 'moderator' where user_id = $1", bob.user_id)
        with pytest.raises(RoleMissingError):
            await call(
                talk, "invite", bob, InviteMembers(room_id=room.id, user_id="carol", role="admin")
            )
        assert await seat(talk, room.id, carol) is None
        await talk.invite(bob, room.id, carol)
        assert await seat(talk, room.id, carol) is not None

    async def test_an_unknown_or_foreign_person_is_named(
        self, talk: Talk, master: Principal
    ) -> None:
        room = await talk.room(master, await talk.user(master, "alice"))
        await talk.user(await talk.client("other"), "mallory")
        with pytest.raises(UserNotFoundError) as caught:
            await call(
                talk,
                "invite",
                master,
                InviteMembers(room_id=room.id, user_ids=["alice", "mallory"]),
            )
        assert caught.value.issues[0]["field"] == "user_ids.1"

    async def test_with_history_joined_a_newcomer_reads_from_the_joining_fact_on(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, history="joined")
        await talk.send(alice, room.id)
        await talk.invite(alice, room.id, bob)
        kept = await seat(talk, room.id, bob)
        assert kept is not None
        assert kept["min_seq"] == kept["joined_seq"] == 3


class TestJoin:
    async def test_anyone_of_the_client_joins_a_channel(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        channel = await talk.room(alice, kind="channel")
        for added in (["bob"], []):
            joined = await call(talk, "join", bob, RoomRef(room_id=channel.id))
            assert (joined.added, joined.members_count) == (added, 2)
        # Channels don't log who comes: the person hears of it, the log does not.
        [fact] = [fact for fact in talk.shown.facts if fact.type == "member.joined"]
        assert (fact.seq, fact.audience, fact.effect.entered) == (
            None,
            (bob.user_id,),
            (bob.user_id,),
        )
        assert len(await talk.log(channel.id)) == 1
        assert await version(talk, bob) == 1

    async def test_rooms_that_are_no_channels_are_joined_by_invitation_only(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice)
        with pytest.raises(RoomNotFoundError):
            await call(talk, "join", bob, RoomRef(room_id=room.id))
        mallory = await talk.user(await talk.client("other"), "mallory")
        channel = await talk.room(alice, kind="channel")
        with pytest.raises(RoomNotFoundError):
            await call(talk, "join", mallory, RoomRef(room_id=channel.id))

    async def test_a_sleeping_channel_is_not_joined(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        channel = await talk.room(alice, kind="channel")
        async with talk.container.open_rooms() as rooms:
            await rooms.deactivate(alice, RoomRef(room_id=channel.id))
        with pytest.raises(RoomDeactivatedError):
            await call(talk, "join", bob, RoomRef(room_id=channel.id))


class TestLeaving:
    async def test_whoever_leaves_is_out_and_the_others_see_it(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        left = await call(talk, "leave", bob, RoomRef(room_id=room.id))
        assert (left.user_id, left.members_count) == ("bob", 1)
        fact = talk.shown.facts[-1]
        assert (fact.type, fact.seq, fact.effect.left, fact.audience) == (
            "member.left",
            2,
            (bob.user_id,),
            (bob.user_id,),
        )
        assert await seat(talk, room.id, bob) is None
        with pytest.raises(NotARoomMemberError):
            await call(talk, "leave", bob, RoomRef(room_id=room.id))

    async def test_one_removes_those_below_and_oneself(self, talk: Talk, master: Principal) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob, carol)
        with pytest.raises(RoleMissingError):
            await talk.remove(bob, room.id, carol)
        await talk.run("update member set role = 'moderator' where user_id = $1", bob.user_id)
        with pytest.raises(RoleMissingError):
            await talk.remove(bob, room.id, alice)
        await talk.remove(bob, room.id, carol)
        await talk.remove(bob, room.id, bob)
        reasons = await talk.rows("select user_id, reason from departure")
        assert {row["user_id"]: row["reason"] for row in reasons} == {
            carol.user_id: "removed",
            bob.user_id: "left",
        }
        with pytest.raises(MemberNotFoundError):
            await talk.remove(alice, room.id, carol)

    async def test_coming_back_forgets_that_one_left(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        await talk.remove(alice, room.id, bob)
        await talk.invite(alice, room.id, bob)
        assert await talk.rows("select 1 from departure") == []
        [state] = await talk.rows("select members_count from room")
        assert state["members_count"] == 2
        assert [fact["data"]["members_count"] for fact in talk.shown.of(room.id)[1:]] == [1, 2]


class TestLargeRooms:
    async def test_above_a_thousand_comings_and_goings_are_not_logged(
        self, talk: Talk, master: Principal
    ) -> None:
        people = await talk.users(master, *(f"u{n:04}" for n in range(1002)))
        room = await talk.room(master, *people[:1000])
        logged = len(await talk.log(room.id))
        await talk.invite(master, room.id, people[1000])
        await talk.remove(master, room.id, people[1])
        # 1,001 there were when the next came: not logged; 1,000 are left: logged again.
        assert [(fact.type, fact.seq) for fact in talk.shown.facts[-2:]] == [
            ("member.joined", None),
            ("member.left", logged + 1),
        ]
        assert len(await talk.log(room.id)) == logged + 1
        kept = await seat(talk, room.id, people[1000])
        assert kept is not None
        assert kept["joined_seq"] == logged + 1


class TestPut:
    async def test_it_lets_in_and_gives_a_member_the_role_that_is_named(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, _ = await talk.users(master, "alice", "bob")
        room = await talk.room(alice)
        command = PutMember(room_id=room.id, user_id="bob", role="moderator")
        came = await call(talk, "put", alice, command)
        assert (came.added, came.members[0].role) == (["bob"], "moderator")
        changed = await call(
            talk, "put", alice, PutMember(room_id=room.id, user_id="bob", role="member")
        )
        assert (changed.added, changed.members[0].role) == ([], "member")
        assert talk.shown.of(room.id)[-1]["type"] == "member.updated"
        seen = len(talk.shown.of(room.id))
        for command in (
            PutMember(room_id=room.id, user_id="bob", role="member"),
            PutMember(room_id=room.id, user_id="bob"),
        ):
            same = await call(talk, "put", alice, command)
            assert same.members[0].role == "member"
        assert len(talk.shown.of(room.id)) == seen

    async def test_nobody_raises_himself_by_it(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        with pytest.raises(RoleMissingError):
            await call(talk, "put", bob, PutMember(room_id=room.id, user_id="bob", role="owner"))
        with pytest.raises(RoleMissingError):
            await call(talk, "put", bob, PutMember(room_id=room.id, user_id="alice", role="guest"))


class TestUpdate:
    async def test_a_new_role_is_seen_by_everyone(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        changed = await call(
            talk, "update", alice, UpdateMember(room_id=room.id, user_id="bob", role="admin")
        )
        assert (changed.role, changed.is_muted) == ("admin", None)
        fact = talk.shown.of(room.id)[-1]
        assert (fact["type"], fact["seq"], fact["data"]["role"]) == ("member.updated", 2, "admin")
        again = await call(
            talk, "update", alice, UpdateMember(room_id=room.id, user_id="bob", role="admin")
        )
        assert again.role == "admin"
        assert len(talk.shown.of(room.id)) == 2

    async def test_what_is_private_goes_to_ones_own_devices_only(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        own = await call(
            talk,
            "update",
            bob,
            UpdateMember(room_id=room.id, user_id="bob", is_muted=True, notification_level="none"),
        )
        assert (own.is_muted, own.is_favorite, own.notification_level) == (True, False, "none")
        fact = talk.shown.facts[-1]
        assert (fact.room_id, fact.seq, fact.audience) == (None, None, (bob.user_id,))
        assert len(await talk.log(room.id)) == 1
        kept = await seat(talk, room.id, bob)
        assert kept is not None
        assert (kept["is_muted"], kept["is_favorite"], kept["notification_level"]) == (
            True,
            False,
            "none",
        )
        listed = await call(talk, "everyone", alice, ListMembers(room_id=room.id))
        assert not any("is_muted" in item.model_dump() for item in listed.items)

    async def test_nobody_sets_what_is_private_for_somebody_else(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        asked = UpdateMember(room_id=room.id, user_id="bob", is_muted=True)
        with pytest.raises(RoleMissingError):
            await call(talk, "update", alice, asked)
        await call(talk, "update", master, asked)

    @pytest.mark.parametrize(
        ("mine", "theirs", "wanted", "may"),
        [
            ("member", "member", "moderator", False),
            ("moderator", "member", "moderator", True),
            ("moderator", "member", "admin", False),
            ("moderator", "admin", "member", False),
            ("admin", "moderator", "member", True),
            ("owner", "member", "owner", True),
        ],
    )
    async def test_nobody_gives_or_takes_a_role_above_ones_own(
        self, talk: Talk, master: Principal, mine: str, theirs: str, wanted: Any, may: bool
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(master, alice, bob)
        for who, role in ((alice, mine), (bob, theirs)):
            await talk.run("update member set role = $1 where user_id = $2", role, who.user_id)
        asked = UpdateMember(room_id=room.id, user_id="bob", role=wanted)
        if may:
            assert (await call(talk, "update", alice, asked)).role == wanted
        else:
            with pytest.raises(RoleMissingError):
                await call(talk, "update", alice, asked)

    async def test_one_steps_down_but_not_up(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        up = UpdateMember(room_id=room.id, user_id="bob", role="admin")
        with pytest.raises(RoleMissingError):
            await call(talk, "update", bob, up)
        down = UpdateMember(room_id=room.id, user_id="alice", role="member")
        assert (await call(talk, "update", alice, down)).role == "member"


class TestEveryone:
    async def test_members_are_listed_in_the_order_in_which_they_came(
        self, talk: Talk, master: Principal
    ) -> None:
        people = await talk.users(master, "carol", "alice", "bob")
        room = await talk.room(people[0])
        for who in people[1:]:
            await talk.invite(master, room.id, who)
        listed = await call(talk, "everyone", people[2], ListMembers(room_id=room.id, size=2))
        assert [item.user_id for item in listed.items] == ["carol", "alice"]
        assert listed.total == 3
        rest = await call(talk, "everyone", master, ListMembers(room_id=room.id, size=2, page=2))
        assert [item.user_id for item in rest.items] == ["bob"]

    async def test_strangers_see_nobody(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice)
        for method, command in (
            ("everyone", ListMembers(room_id=room.id)),
            ("leave", RoomRef(room_id=room.id)),
            ("remove", MemberRef(room_id=room.id, user_id="alice")),
        ):
            with pytest.raises(RoomNotFoundError):
                await call(talk, method, bob, command)
