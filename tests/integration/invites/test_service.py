import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from chatserver.invites.errors import InviteEndedError, InviteNotFoundError
from chatserver.invites.schemas import CreateInvite, InviteCode, InviteRef, ListInvites, MadeInvite
from chatserver.invites.service import InviteService
from chatserver.kernel.errors import DomainError, PayloadInvalidError
from chatserver.kernel.principal import Principal
from chatserver.rooms.errors import RoleMissingError, RoomNotFoundError
from chatserver.rooms.schemas import Joined, RoomRef
from tests.support.talk import Talk


@asynccontextmanager
async def opened(talk: Talk) -> AsyncIterator[InviteService]:
    async with talk.container.open_invites() as invites:
        yield invites


async def made(talk: Talk, who: Principal, **members: object) -> MadeInvite:
    async with opened(talk) as invites:
        return await invites.create(who, CreateInvite.model_validate(members))


async def accept(talk: Talk, who: Principal, code: str) -> Joined:
    async with opened(talk) as invites:
        return await invites.accept(who, InviteCode(code=code))


async def test_whoever_holds_the_code_comes_in_and_everyone_sees_it(
    talk: Talk, master: Principal
) -> None:
    alice, bob = await talk.users(master, "alice", "bob")
    room = await talk.room(alice, title="Garden")
    invite = await made(talk, alice, room_id=room.id, role="guest")
    assert len(invite.code) == 32
    async with opened(talk) as invites:
        seen = await invites.preview(bob, InviteCode(code=invite.code))
    assert (seen.room_id, seen.title, seen.members_count, seen.is_member) == (
        room.id,
        "Garden",
        1,
        False,
    )
    joined = await accept(talk, bob, invite.code)
    assert (joined.added, [each.role for each in joined.members]) == (["bob"], ["guest"])
    fact = (await talk.log(room.id))[-1]
    assert (fact["type"], fact["actor_id"]) == ("member.joined", "bob")
    again = await accept(talk, bob, invite.code)
    assert again.added == []
    [row] = await talk.rows("select uses, code_hash from invite")
    assert row["uses"] == 1
    assert invite.code.encode() not in row["code_hash"]


async def test_the_last_place_is_given_once(talk: Talk, master: Principal) -> None:
    alice, *others = await talk.users(master, "alice", "b", "c", "d", "e")
    room = await talk.room(alice)
    invite = await made(talk, alice, room_id=room.id, max_uses=2)
    came = await asyncio.gather(
        *(accept(talk, other, invite.code) for other in others), return_exceptions=True
    )
    assert sum(isinstance(each, Joined) for each in came) == 2
    assert sum(isinstance(each, InviteEndedError) for each in came) == 2
    [count] = await talk.rows("select count(*) as n from member where room_id = $1", room.id)
    assert count["n"] == 3
    joined = [row for row in await talk.log(room.id) if row["type"] == "member.joined"]
    assert len(joined) == 2


@pytest.mark.parametrize("how", ["expired", "revoked", "deleted"])
async def test_one_that_has_ended_lets_nobody_in(talk: Talk, master: Principal, how: str) -> None:
    alice, bob = await talk.users(master, "alice", "bob")
    room = await talk.room(alice)
    invite = await made(talk, alice, room_id=room.id)
    if how == "expired":
        await talk.run("update invite set expires_at = now() - interval '1 s'")
    elif how == "revoked":
        async with opened(talk) as invites:
            ref = InviteRef(room_id=room.id, invite_id=invite.id)
            assert (await invites.revoke(alice, ref)).revoked_at is not None
    else:
        async with talk.container.open_rooms() as rooms:
            await rooms.delete(alice, RoomRef(room_id=room.id))
    with pytest.raises(InviteEndedError):
        await accept(talk, bob, invite.code)
    with pytest.raises(InviteEndedError):
        async with opened(talk) as invites:
            await invites.preview(bob, InviteCode(code=invite.code))


async def test_moderators_make_list_and_revoke_them_and_nobody_else(
    talk: Talk, master: Principal
) -> None:
    alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
    room = await talk.room(alice, bob)
    invite = await made(talk, alice, room_id=room.id)
    for who, refusal in ((bob, RoleMissingError), (carol, RoomNotFoundError)):
        with pytest.raises(refusal):
            await made(talk, who, room_id=room.id)
        with pytest.raises(refusal):
            async with opened(talk) as invites:
                await invites.list(who, ListInvites(room_id=room.id))
        with pytest.raises(refusal):
            async with opened(talk) as invites:
                await invites.revoke(who, InviteRef(room_id=room.id, invite_id=invite.id))
    async with opened(talk) as invites:
        page = await invites.list(master, ListInvites(room_id=room.id))
        assert [each.id for each in page.items] == [invite.id]
        with pytest.raises(InviteNotFoundError):
            await invites.revoke(master, InviteRef(room_id=room.id, invite_id=uuid4()))


async def test_a_code_is_good_for_its_own_client_alone(
    talk: Talk, master: Principal, second: Talk
) -> None:
    alice = await talk.user(master, "alice")
    room = await talk.room(alice)
    invite = await made(talk, alice, room_id=room.id)
    other = await talk.client("other")
    mallory = await talk.user(other, "alice")
    for who, code in ((mallory, invite.code), (alice, "x" * 32)):
        with pytest.raises(InviteNotFoundError):
            await accept(second, who, code)


async def test_nobody_is_invited_to_a_direct_room(talk: Talk, master: Principal) -> None:
    alice, bob = await talk.users(master, "alice", "bob")
    room = await talk.room(alice, bob, kind="direct")
    with pytest.raises(PayloadInvalidError):
        await made(talk, alice, room_id=room.id)


async def test_a_use_that_fails_adds_nobody(talk: Talk, master: Principal) -> None:
    alice, bob = await talk.users(master, "alice", "bob")
    room = await talk.room(alice)
    invite = await made(talk, alice, room_id=room.id, max_uses=1)
    await talk.run("update invite set uses = 1")
    with pytest.raises(DomainError):
        await accept(talk, bob, invite.code)
    assert [row["type"] for row in await talk.log(room.id)] == ["room.created"]
