"""Mutes, bans, and what a room's settings take; direct rooms are one per pair."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from chatserver.chat.schemas import Sync
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.principal import Principal
from chatserver.rooms.errors import (
    BanNotFoundError,
    MemberNotFoundError,
    RoleMissingError,
    RoomArchivedError,
    RoomBannedError,
    RoomNotFoundError,
)
from chatserver.rooms.sanctions import SanctionService
from chatserver.rooms.schemas import (
    BanMember,
    ListBans,
    MemberRef,
    MuteMember,
    RoomRef,
    UpdateMember,
    UpdateRoom,
)
from tests.support.talk import Talk


async def do(talk: Talk, method: str, who: Principal, command: Any) -> Any:
    async with talk.container.open_sanctions() as sanctions:
        return await getattr(SanctionService, method)(sanctions, who, command)


async def ban(talk: Talk, who: Principal, room_id: UUID, name: str, **more: Any) -> Any:
    return await do(talk, "ban", who, BanMember(room_id=room_id, user_id=name, **more))


async def mute(talk: Talk, who: Principal, room_id: UUID, name: str, **more: Any) -> Any:
    return await do(talk, "mute", who, MuteMember(room_id=room_id, user_id=name, **more))


async def give_role(talk: Talk, owner: Principal, room_id: UUID, name: str, role: Any) -> None:
    async with talk.container.open_members() as members:
        await members.update(owner, UpdateMember(room_id=room_id, user_id=name, role=role))


async def join(talk: Talk, who: Principal, room_id: UUID) -> None:
    async with talk.container.open_members() as members:
        await members.join(who, RoomRef(room_id=room_id))


async def update(talk: Talk, who: Principal, room_id: UUID, **changes: Any) -> Any:
    async with talk.container.open_rooms() as rooms:
        return await rooms.update(who, UpdateRoom(room_id=room_id, **changes))


class TestBans:
    async def test_one_is_put_out_and_kept_out_until_it_ends(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob, kind="channel")
        cursor = (await talk.container.catch_up.sync(bob, Sync())).cursor
        done = await ban(talk, alice, room.id, "bob", for_s=60, reason="enough")
        assert done.until is not None
        gone = await talk.container.catch_up.sync(bob, Sync(cursor=cursor))
        assert [(each.room_id, each.reason) for each in gone.removed] == [(room.id, "banned")]
        for attempt in (join(talk, bob, room.id), talk.invite(alice, room.id, bob)):
            with pytest.raises(RoomBannedError) as caught:
                await attempt
            assert 59_000 < (caught.value.retry_after_ms or 0) <= 60_001
        listed = await do(talk, "bans", alice, ListBans(room_id=room.id))
        assert [(each.user_id, each.reason) for each in listed.items] == [("bob", "enough")]
        await talk.run("update room_ban set until = now() - interval '1 second'")
        assert (await do(talk, "bans", alice, ListBans(room_id=room.id))).items == []
        await talk.invite(alice, room.id, bob)

    async def test_for_good_until_it_is_taken_back(self, talk: Talk, master: Principal) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob)
        # Also whoever was never in.
        for name in ("bob", "carol"):
            assert (await ban(talk, alice, room.id, name)).until is None
        with pytest.raises(RoomBannedError) as caught:
            await talk.invite(master, room.id, carol)
        assert caught.value.retry_after_ms is None
        ref = MemberRef(room_id=room.id, user_id="carol")
        await do(talk, "unban", alice, ref)
        await talk.invite(master, room.id, carol)
        with pytest.raises(BanNotFoundError):
            await do(talk, "unban", alice, ref)
        notes = await talk.rows("select action, subject from audit order by id")
        assert [(each["action"], each["subject"]) for each in notes] == [
            ("member.ban", "user:bob"),
            ("member.ban", "user:carol"),
            ("member.unban", "user:carol"),
        ]

    async def test_nobody_acts_on_one_above_himself_or_on_himself(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob, carol, dave = await talk.users(master, "alice", "bob", "carol", "dave")
        room = await talk.room(alice, bob, carol)
        await give_role(talk, alice, room.id, "bob", "moderator")
        for attempt in (
            ban(talk, bob, room.id, "alice"),
            mute(talk, bob, room.id, "alice"),
            ban(talk, carol, room.id, "bob"),
            mute(talk, carol, room.id, "bob"),
        ):
            with pytest.raises(RoleMissingError):
                await attempt
        with pytest.raises(PayloadInvalidError):
            await ban(talk, alice, room.id, "alice")
        with pytest.raises(RoomNotFoundError):
            await ban(talk, dave, room.id, "bob")
        with pytest.raises(MemberNotFoundError):
            await mute(talk, alice, room.id, "dave")
        await ban(talk, bob, room.id, "carol")


class TestMutes:
    async def test_all_see_it_and_it_is_replayed(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        muted = await mute(talk, alice, room.id, "bob", for_s=60)
        assert muted.muted_until > datetime.now(UTC)
        await mute(talk, alice, room.id, "bob")
        await do(talk, "unmute", alice, MemberRef(room_id=room.id, user_id="bob"))
        await do(talk, "unmute", alice, MemberRef(room_id=room.id, user_id="bob"))
        live = talk.shown.of(room.id)[1:]
        assert [fact["data"]["muted_until"] for fact in live][1:] == [
            "9999-01-01T00:00:00.000Z",
            None,
        ]
        assert all(fact["type"] == "member.updated" for fact in live)
        assert len(await talk.log(room.id)) == 4


class TestSettings:
    async def test_moderators_slow_a_room_and_admins_close_it(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob, carol)
        await give_role(talk, alice, room.id, "bob", "moderator")
        changed = await update(talk, bob, room.id, slow_mode_s=30)
        assert changed.slow_mode_s == 30
        for change in ({"post_role": "moderator"}, {"is_archived": True}):
            with pytest.raises(RoleMissingError):
                await update(talk, bob, room.id, **change)
        with pytest.raises(RoleMissingError):
            await update(talk, carol, room.id, slow_mode_s=0)
        closed = await update(talk, alice, room.id, post_role="moderator", is_archived=True)
        assert closed.post_role == "moderator"
        assert closed.archived_at is not None
        told = talk.shown.of(room.id)[-1]["data"]["room"]
        assert (told["slow_mode_s"], told["post_role"]) == (30, "moderator")
        assert told["archived_at"] is not None
        dave = await talk.user(master, "dave")
        with pytest.raises(RoomArchivedError):
            await talk.invite(alice, room.id, dave)
        opened = await update(talk, alice, room.id, is_archived=False)
        assert opened.archived_at is None
        await talk.invite(alice, room.id, dave)

    async def test_a_guest_speaks_and_keeps_his_own_settings_and_no_more(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob)
        await give_role(talk, alice, room.id, "bob", "guest")
        await talk.send(bob, room.id)
        async with talk.container.open_members() as members:
            command = UpdateMember(room_id=room.id, user_id="bob", is_favorite=True)
            await members.update(bob, command)
        with pytest.raises(RoleMissingError):
            await talk.invite(bob, room.id, carol)


class TestPairs:
    async def test_two_people_have_one_direct_room(self, talk: Talk, master: Principal) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob, kind="direct")
        for who, other in ((alice, bob), (bob, alice)):
            again = await talk.room(who, other, kind="direct")
            assert (again.id, again.created) == (room.id, False)
        assert (await talk.room(master, bob, alice, kind="direct")).id == room.id
        assert (await talk.room(alice, carol, kind="direct")).created
        async with talk.container.open_members() as members:
            await members.leave(bob, RoomRef(room_id=room.id))
        fresh = await talk.room(alice, bob, kind="direct")
        assert fresh.created
        assert fresh.id != room.id
        async with talk.container.open_rooms() as rooms:
            await rooms.delete(alice, RoomRef(room_id=fresh.id))
        assert (await talk.room(bob, alice, kind="direct")).created
