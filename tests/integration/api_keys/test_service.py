"""Logins, devices, grace and revocation, on PostgreSQL as the application role."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from chatserver.api_keys.errors import AuthExpiredError, AuthInvalidError, AuthRevokedError
from chatserver.api_keys.schemas import KeyList, KeyOf, KeyOut, KeysOf, LoggedIn
from chatserver.clients.errors import KeyNotFoundError
from chatserver.clients.schemas import Nothing
from chatserver.infra.secrets import Key, new_scoped_key, parse_key
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal, Scope
from chatserver.users.errors import UserNotFoundError
from tests.support.keys import KeyHouse
from tests.support.servers import Database as Address


def parts(issued: LoggedIn) -> Key:
    key = parse_key(issued.key)
    assert key is not None
    return key


def kid_of(issued: LoggedIn) -> str:
    return parts(issued).kid


@pytest.fixture
async def master(house: KeyHouse) -> Principal:
    return (await house.new_client())[0]


@pytest.fixture
async def graceless(database: Address) -> AsyncIterator[KeyHouse]:
    """A node where a replaced key has no grace at all."""
    made = KeyHouse(database, grace=timedelta())
    yield made
    await made.close()


async def keys_of(house: KeyHouse, caller: Principal, external_id: str = "alice") -> list[KeyOut]:
    async with house.open_keys() as keys:
        return (await keys.list(caller, KeyList(external_id=external_id, size=100))).items


async def revoke(house: KeyHouse, master: Principal, external_id: str = "alice") -> int:
    async with house.open_keys() as keys:
        return (await keys.revoke(master, KeysOf(external_id=external_id))).revoked


class TestLogin:
    async def test_it_makes_the_user_and_the_key_says_who_it_is(
        self, house: KeyHouse, master: Principal
    ) -> None:
        issued = await house.login(master, device_id="phone", scopes=[Scope.CHAT_READ])
        assert issued.user.external_id == "alice"
        who = await house.connect(issued.key)
        assert (who.external_id, who.device_id, who.kid) == ("alice", "phone", kid_of(issued))
        assert (who.client_id, who.key_id) == (master.client_id, issued.key_id)
        assert who.scopes == {Scope.CHAT_READ}
        assert who.expires_at == pytest.approx(issued.expires_at.timestamp())

    async def test_the_key_is_nowhere_in_the_database(
        self, house: KeyHouse, master: Principal
    ) -> None:
        issued = await house.login(master)
        [row] = await house.rows("select to_jsonb(f)::text as kept from key_family f")
        assert parts(issued).secret not in row["kept"]

    async def test_without_a_device_each_login_is_a_new_one(
        self, house: KeyHouse, master: Principal
    ) -> None:
        first, second = await house.login(master), await house.login(master)
        assert first.device_id != second.device_id
        await house.connect(first.key)
        await house.connect(second.key)

    async def test_a_known_device_goes_on_in_its_family_and_the_older_key_has_a_grace(
        self, house: KeyHouse, master: Principal
    ) -> None:
        first = await house.login(master, device_id="phone")
        second = await house.login(master, device_id="phone")
        assert kid_of(first) == kid_of(second)
        assert first.key_id != second.key_id
        assert (await house.connect(second.key)).key_id == second.key_id
        assert (await house.connect(first.key)).key_id == first.key_id
        [row] = await house.rows(
            "select reason, by_id, valid_until - clock_timestamp() as left from key_retired"
        )
        assert (row["reason"], row["by_id"]) == ("replaced", second.key_id)
        assert timedelta(seconds=100) < row["left"] <= timedelta(seconds=120)
        assert house.closings == []

    async def test_after_the_grace_the_older_key_is_revoked_and_the_newer_lives(
        self, graceless: KeyHouse
    ) -> None:
        master, _ = await graceless.new_client()
        first = await graceless.login(master, device_id="phone")
        second = await graceless.login(master, device_id="phone")
        with pytest.raises(AuthRevokedError) as refused:
            await graceless.connect(first.key)
        assert refused.value.details == {"action": "login"}
        await graceless.connect(second.key)

    async def test_a_third_login_leaves_both_older_keys_in_their_grace(
        self, house: KeyHouse, master: Principal
    ) -> None:
        issued = [await house.login(master, device_id="phone") for _ in range(3)]
        assert [parts(it).gen for it in issued] == [1, 2, 3]
        for it in issued:
            assert (await house.connect(it.key)).key_id == it.key_id

    async def test_a_pending_successor_is_replaced_with_the_rest(
        self, house: KeyHouse, master: Principal
    ) -> None:
        first = await house.login(master, device_id="phone")
        pending = new_scoped_key(kid=kid_of(first), gen=2)
        await house.change(
            "update key_family set pend_id = gen_random_uuid(), pend_mac = :mac",
            mac=house.hasher.mac(pending),
        )
        await house.identifier.identify(pending.text, door="rest")
        third = await house.login(master, device_id="phone")
        for token in (first.key, pending.text, third.key):
            await house.connect(token)
        assert parts(third).gen == 3

    async def test_replace_ends_the_older_key_and_its_sockets_at_once(
        self, house: KeyHouse, master: Principal
    ) -> None:
        first = await house.login(master, device_id="phone")
        await house.identifier.identify(first.key, door="rest")
        second = await house.login(master, device_id="phone", replace=True)
        for door in ("rest", "socket"):
            with pytest.raises(AuthRevokedError):
                await house.identifier.identify(first.key, door=door)
        await house.connect(second.key)
        # The closing must not hit the socket that the new key opens.
        assert [closing.kid for closing in house.closings] == [kid_of(first)]
        assert kid_of(first) != kid_of(second)
        assert [key.key_id for key in await keys_of(house, master)] == [second.key_id]

    async def test_fifty_logins_at_once_leave_one_family_and_fifty_good_keys(
        self, house: KeyHouse, master: Principal
    ) -> None:
        issued = await asyncio.gather(*(house.login(master, device_id="phone") for _ in range(50)))
        [row] = await house.rows("select count(*), max(cur_gen) from key_family")
        assert (row["count"], row["max"]) == (1, 50)
        for it in issued:
            assert (await house.connect(it.key)).key_id == it.key_id

    async def test_only_the_last_64_replaced_keys_are_kept(
        self, house: KeyHouse, master: Principal
    ) -> None:
        first = await house.login(master, device_id="phone")
        *_, last = [await house.login(master, device_id="phone") for _ in range(70)]
        [row] = await house.rows("select count(*), max(gen) from key_retired")
        assert (row["count"], row["max"]) == (64, 70)
        await house.connect(last.key)
        with pytest.raises(AuthInvalidError):
            await house.connect(first.key)

    async def test_the_21st_device_ends_the_longest_idle_one(
        self, house: KeyHouse, master: Principal
    ) -> None:
        issued = [await house.login(master) for _ in range(20)]
        # The oldest was used last, so the second oldest is the one that idles.
        await house.connect(issued[0].key)
        await house.scoped_use.flush()
        newest = await house.login(master)
        with pytest.raises(AuthRevokedError):
            await house.connect(issued[1].key)
        for it in [issued[0], *issued[2:], newest]:
            await house.connect(it.key)
        assert [closing.kid for closing in house.closings] == [kid_of(issued[1])]
        assert len(await keys_of(house, master)) == 20

    async def test_thirty_devices_at_once_leave_twenty(
        self, house: KeyHouse, master: Principal
    ) -> None:
        await asyncio.gather(*(house.login(master) for _ in range(30)))
        assert len(await keys_of(house, master)) == 20

    async def test_two_users_may_have_one_device_id(
        self, house: KeyHouse, master: Principal
    ) -> None:
        alice = await house.login(master, "alice", device_id="kiosk")
        bob = await house.login(master, "bob", device_id="kiosk", replace=True)
        assert (await house.connect(alice.key)).external_id == "alice"
        assert (await house.connect(bob.key)).external_id == "bob"

    async def test_another_client_has_users_and_devices_of_its_own(
        self, house: KeyHouse, master: Principal
    ) -> None:
        other, _ = await house.new_client("other")
        ours = await house.login(master, device_id="phone")
        await house.login(other, device_id="phone", replace=True)
        assert (await house.connect(ours.key)).client_id == master.client_id
        assert house.closings == []


class TestLife:
    async def test_a_key_ends_after_its_ttl(self, house: KeyHouse, master: Principal) -> None:
        issued = await house.login(master, ttl_s=1)
        await house.connect(issued.key)
        await house.identifier.identify(issued.key, door="rest")
        await asyncio.sleep(1.1)
        for door in ("rest", "socket"):
            with pytest.raises(AuthExpiredError) as refused:
                await house.identifier.identify(issued.key, door=door)
            assert refused.value.details == {"action": "login"}
        assert await keys_of(house, master) == []
        # Its sockets may still refresh for a while.
        assert await house.identifier.dead_among([kid_of(issued)]) == set()
        await house.change("update key_family set abs_expires_at = now() - interval '12 minutes'")
        assert await house.identifier.dead_among([kid_of(issued)]) == {kid_of(issued)}

    async def test_an_unused_key_ends_and_a_login_on_the_device_cures_it(
        self, house: KeyHouse, master: Principal
    ) -> None:
        issued = await house.login(master, device_id="phone")
        await house.change("update key_family set idle_expires_at = now()")
        with pytest.raises(AuthExpiredError):
            await house.connect(issued.key)
        again = await house.login(master, device_id="phone")
        await house.connect(again.key)
        # The new login doesn't give the dead key another grace.
        with pytest.raises(AuthRevokedError):
            await house.connect(issued.key)

    async def test_use_moves_the_idle_end_and_never_the_absolute_one(
        self, house: KeyHouse, master: Principal
    ) -> None:
        issued = await house.login(master)
        await house.change("update key_family set idle_expires_at = now() + interval '1 minute'")
        await house.connect(issued.key)
        await house.scoped_use.flush()
        [row] = await house.rows(
            "select idle_expires_at - now() as idle, abs_expires_at, last_seen_at from key_family"
        )
        assert row["idle"] > timedelta(days=29)
        assert row["abs_expires_at"] == issued.expires_at
        assert row["last_seen_at"] is not None

    async def test_late_use_does_not_wake_a_key_that_has_ended(
        self, house: KeyHouse, master: Principal
    ) -> None:
        issued = await house.login(master)
        await house.connect(issued.key)
        await house.change("update key_family set idle_expires_at = now()")
        await house.scoped_use.flush()
        with pytest.raises(AuthExpiredError):
            await house.connect(issued.key)

    async def test_rest_forgets_a_replaced_key_when_its_grace_ends(self, database: Address) -> None:
        house = KeyHouse(database, grace=timedelta(seconds=1))
        master, _ = await house.new_client()
        first = await house.login(master, device_id="phone")
        await house.login(master, device_id="phone")
        await house.identifier.identify(first.key, door="rest")
        await asyncio.sleep(1.1)
        with pytest.raises(AuthRevokedError):
            await house.identifier.identify(first.key, door="rest")
        await house.close()


class TestRevoke:
    async def test_every_key_of_the_user_and_no_other_ends(
        self, house: KeyHouse, master: Principal
    ) -> None:
        alices = [await house.login(master), await house.login(master)]
        bob = await house.login(master, "bob")
        await house.identifier.identify(alices[0].key, door="rest")
        who = await house.connect(alices[0].key)
        assert await revoke(house, master) == 2
        for it in alices:
            for door in ("rest", "socket"):
                with pytest.raises(AuthRevokedError):
                    await house.identifier.identify(it.key, door=door)
        await house.connect(bob.key)
        assert [closing.user_id for closing in house.closings] == [who.user_id]
        dead = await house.identifier.dead_among([kid_of(it) for it in [*alices, bob]])
        assert dead == {kid_of(it) for it in alices}

    async def test_a_login_afterwards_works(self, house: KeyHouse, master: Principal) -> None:
        old = await house.login(master, device_id="phone")
        await revoke(house, master)
        new = await house.login(master, device_id="phone")
        await house.connect(new.key)
        with pytest.raises(AuthRevokedError):
            await house.connect(old.key)

    async def test_nothing_is_closed_when_the_transaction_fails(
        self, house: KeyHouse, master: Principal
    ) -> None:
        issued = await house.login(master)

        async def revoke_and_fail() -> None:
            async with house.open_keys() as keys:
                await keys.revoke(master, KeysOf(external_id="alice"))
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await revoke_and_fail()
        assert house.closings == []
        await house.connect(issued.key)

    async def test_unknown_and_foreign_users_are_not_found(
        self, house: KeyHouse, master: Principal
    ) -> None:
        other, _ = await house.new_client("other")
        issued = await house.login(other, "bob")
        for external_id in ("bob", "nobody"):
            with pytest.raises(UserNotFoundError):
                await revoke(house, master, external_id)
            with pytest.raises(UserNotFoundError):
                await keys_of(house, master, external_id)
        await house.connect(issued.key)

    async def test_garbage_never_revokes_anything(self, house: KeyHouse, master: Principal) -> None:
        issued = await house.login(master)
        for gen in range(1, 201):
            with pytest.raises(AuthInvalidError):
                await house.connect(new_scoped_key(kid=kid_of(issued), gen=gen).text)
        await house.connect(issued.key)


class TestDelete:
    async def test_a_user_ends_the_own_key_and_finds_no_other(
        self, house: KeyHouse, master: Principal
    ) -> None:
        alice, bob = await house.login(master), await house.login(master, "bob")
        caller = await house.connect(alice.key)

        async def delete(external_id: str, key_id: Any) -> None:
            async with house.open_keys() as keys:
                await keys.delete(caller, KeyOf(external_id=external_id, id=key_id))

        for external_id in ("bob", "nobody"):
            with pytest.raises(UserNotFoundError):
                await delete(external_id, bob.key_id)
        for key_id in (bob.key_id, uuid7()):
            with pytest.raises(KeyNotFoundError):
                await delete("alice", key_id)
        assert house.closings == []
        await delete("alice", alice.key_id)
        with pytest.raises(AuthRevokedError):
            await house.connect(alice.key)
        await house.connect(bob.key)
        assert [closing.kid for closing in house.closings] == [kid_of(alice)]
        with pytest.raises(KeyNotFoundError):
            await delete("alice", alice.key_id)

    async def test_the_id_of_an_older_generation_ends_the_device_too(
        self, house: KeyHouse, master: Principal
    ) -> None:
        first = await house.login(master, device_id="phone")
        second = await house.login(master, device_id="phone")
        async with house.open_keys() as keys:
            await keys.delete(master, KeyOf(external_id="alice", id=first.key_id))
        for it in (first, second):
            with pytest.raises(AuthRevokedError):
                await house.connect(it.key)

    async def test_another_clients_key_is_not_found(
        self, house: KeyHouse, master: Principal
    ) -> None:
        other, _ = await house.new_client("other")
        await house.login(master)
        foreign = await house.login(other)
        with pytest.raises(KeyNotFoundError):
            async with house.open_keys() as keys:
                await keys.delete(master, KeyOf(external_id="alice", id=foreign.key_id))
        await house.connect(foreign.key)


class TestMe:
    async def test_it_shows_the_profile_and_the_key_that_was_presented(
        self, house: KeyHouse, master: Principal
    ) -> None:
        first = await house.login(master, device_id="phone")
        await house.login(master, device_id="phone")
        caller = await house.connect(first.key)
        async with house.open_keys() as keys:
            me = await keys.me(caller, Nothing())
        assert (me.external_id, me.user_id) == ("alice", "alice")
        assert me.key is not None
        assert (me.key.key_id, me.key.device_id) == (first.key_id, "phone")
