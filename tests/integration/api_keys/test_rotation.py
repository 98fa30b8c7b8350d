"""Keys follow each other on connect: whoever is honest gets in, whoever is not is found out."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import orjson
import pytest

from chatserver.api_keys.errors import (
    AuthExpiredError,
    AuthInvalidError,
    AuthReuseDetectedError,
    AuthRevokedError,
)
from chatserver.clients.schemas import OwnClientUpdate
from chatserver.infra.secrets import new_scoped_key, parse_key
from chatserver.kernel.principal import Principal
from tests.support.keys import LIFE, KeyHouse
from tests.support.servers import Database as Address


@pytest.fixture
async def master(house: KeyHouse) -> Principal:
    return (await house.new_client())[0]


async def next_key(house: KeyHouse, key: str) -> str:
    """Connect, and give the key that is handed out."""
    handed_out = (await house.arrive(key)).handed_out
    assert handed_out is not None
    return handed_out.key


async def end_graces(house: KeyHouse) -> None:
    """Let more time pass than any grace has."""
    await house.change("update key_retired set valid_until = valid_until - interval '1 hour'")
    await house.change("update key_family set grace_until = grace_until - interval '1 hour'")


def gen(key: str) -> int:
    parsed = parse_key(key)
    assert parsed is not None
    return parsed.gen


class TestHandingOut:
    async def test_every_connect_with_a_key_is_handed_the_same_successor(
        self, house: KeyHouse, master: Principal
    ) -> None:
        key = (await house.login(master)).key
        handed_out = {await next_key(house, key) for _ in range(5)}
        assert [gen(it) for it in handed_out] == [2]

    async def test_a_lost_answer_costs_nothing_however_long_it_was_ago(
        self, house: KeyHouse, master: Principal
    ) -> None:
        key = (await house.login(master)).key
        lost = await next_key(house, key)
        await end_graces(house)
        assert await next_key(house, key) == lost

    async def test_the_successor_comes_into_use_by_connecting_with_it(
        self, house: KeyHouse, master: Principal
    ) -> None:
        issued = await house.login(master)
        second = await next_key(house, issued.key)
        third = await next_key(house, second)
        assert [gen(second), gen(third)] == [2, 3]
        [row] = await house.rows("select reason, by_door, key_id, by_id from key_retired")
        assert (row["reason"], row["by_door"], row["key_id"]) == (
            "rotated",
            "socket",
            issued.key_id,
        )
        assert row["by_id"] == (await house.connect(second)).key_id

    async def test_within_the_grace_the_older_key_is_handed_the_one_in_use(
        self, house: KeyHouse, master: Principal
    ) -> None:
        first = (await house.login(master)).key
        second = await next_key(house, first)
        await house.connect(second)
        assert await next_key(house, first) == second

    async def test_rest_takes_the_pending_key_and_brings_it_not_into_use(
        self, house: KeyHouse, master: Principal
    ) -> None:
        first = (await house.login(master)).key
        second = await next_key(house, first)
        for _ in range(3):
            await house.identifier.identify(second, door="rest")
        await end_graces(house)
        # The socket is built with the first key for ever: it gets in for ever.
        assert await next_key(house, first) == second
        assert await house.rows("select 1 from key_retired") == []

    async def test_an_explicit_key_never_rotates(self, house: KeyHouse, master: Principal) -> None:
        key = (await house.login(master, rotation="explicit")).key
        arrivals = [await house.arrive(key) for _ in range(3)]
        assert [it.handed_out for it in arrivals] == [None, None, None]
        [row] = await house.rows("select cur_gen, pend_id from key_family")
        assert (row["cur_gen"], row["pend_id"]) == (1, None)

    async def test_the_successor_is_kept_sealed_and_for_its_own_place(
        self, house: KeyHouse, master: Principal
    ) -> None:
        key = (await house.login(master)).key
        second = await next_key(house, key)
        parsed = parse_key(second)
        assert parsed is not None
        [row] = await house.rows("select to_jsonb(f)::text as kept, pend_ct from key_family f")
        assert parsed.secret not in row["kept"]
        await house.change("update key_family set kid = 'moved00000000000'")
        moved = await house.lookup.find("moved00000000000", 0)
        assert moved is not None
        assert house.rotation._opened(moved, 2, moved.cur_id, moved.pend_ct) is None

    async def test_a_login_hands_its_key_to_sockets_that_come_with_an_older_one(
        self, house: KeyHouse, master: Principal
    ) -> None:
        first = (await house.login(master, device_id="web")).key
        await next_key(house, first)
        page = (await house.login(master, device_id="web")).key
        assert await next_key(house, first) == page

    async def test_what_is_sealed_for_the_grace_is_wiped_after_it(
        self, house: KeyHouse, master: Principal
    ) -> None:
        first = (await house.login(master)).key
        second = await next_key(house, first)
        await house.connect(second)
        await end_graces(house)
        await house.scoped_use.flush()
        [row] = await house.rows("select cur_ct, pend_ct from key_family")
        assert row["cur_ct"] is None
        assert row["pend_ct"] is not None


class TestConfirm:
    async def test_a_confirmed_key_is_in_use_and_nothing_follows_yet(
        self, house: KeyHouse, master: Principal
    ) -> None:
        issued = await house.login(master)
        handed_out = (await house.arrive(issued.key)).handed_out
        assert handed_out is not None
        who = await house.connect(issued.key)
        assert await house.rotation.confirm(who.kid, handed_out.key_id)
        assert await house.rotation.confirm(who.kid, handed_out.key_id), "twice is no harm"
        [row] = await house.rows("select cur_id, pend_id from key_family")
        assert (row["cur_id"], row["pend_id"]) == (handed_out.key_id, None)
        assert gen(await next_key(house, handed_out.key)) == 3

    async def test_some_other_key_can_not_be_confirmed(
        self, house: KeyHouse, master: Principal
    ) -> None:
        issued = await house.login(master)
        who = await house.connect(issued.key)
        assert who.key_id is not None
        assert not await house.rotation.confirm(who.kid, master.key_id or who.user_id)
        assert await house.rotation.confirm(who.kid, who.key_id), "the one in use is in use"


class TestReuse:
    @pytest.fixture
    async def used_up(self, house: KeyHouse, master: Principal) -> str:
        """A key whose successor came into use more than a grace ago."""
        first = (await house.login(master, device_id="phone")).key
        await house.connect(await next_key(house, first))
        await end_graces(house)
        return first

    @pytest.mark.parametrize("door", ["rest", "socket", "connect"])
    async def test_a_used_up_key_ends_the_family_at_every_door(
        self, house: KeyHouse, used_up: str, door: str
    ) -> None:
        identifier = house.identifier
        asked = (
            identifier.connect(used_up)
            if door == "connect"
            else identifier.identify(used_up, door=door)  # type: ignore[arg-type]
        )
        with pytest.raises(AuthReuseDetectedError) as found_out:
            await asked
        [row] = await house.rows("select *, f.epoch as fepoch from key_family f")
        assert (row["status"], row["revoked_reason"], row["fepoch"]) == ("revoked", "reuse", 1)
        assert (row["cur_ct"], row["pend_ct"]) == (None, None)
        assert found_out.value.details == {
            "key_id": str(row["cur_id"]),
            "door": "socket",
            "action": "login",
        }

    async def test_everyone_concerned_is_told_once(self, house: KeyHouse, used_up: str) -> None:
        for _ in range(3):
            with pytest.raises((AuthReuseDetectedError, AuthRevokedError)):
                await house.connect(used_up)
        parsed = parse_key(used_up)
        assert parsed is not None
        assert [(it.code, it.kid) for it in house.closings] == [("auth.reuse_detected", parsed.kid)]
        [fact] = [it for it in house.told if it.type == "auth.reuse_detected"]
        assert orjson.loads(fact.body)["data"]["device_id"] == "phone"
        [noted] = await house.rows(
            "select action, subject, details::text from audit where action = 'user_key.reuse'"
        )
        assert noted["subject"] == "user:alice"
        assert parsed.secret not in noted["details"]

    async def test_no_key_of_the_family_is_good_any_more_and_a_login_cures_it(
        self, house: KeyHouse, master: Principal, used_up: str
    ) -> None:
        [row] = await house.rows("select kid, cur_gen from key_family")
        with pytest.raises(AuthReuseDetectedError):
            await house.connect(used_up)
        with pytest.raises(AuthRevokedError):
            await house.connect(used_up)
        again = await house.login(master, device_id="phone")
        assert (await house.connect(again.key)).kid != row["kid"]

    async def test_garbage_revokes_nothing(
        self, house: KeyHouse, master: Principal, used_up: str
    ) -> None:
        parsed = parse_key(used_up)
        assert parsed is not None
        for number in range(200):
            with pytest.raises(AuthInvalidError):
                await house.connect(new_scoped_key(kid=parsed.kid, gen=1 + number % 4).text)
        [row] = await house.rows("select status from key_family")
        assert row["status"] == "active"

    async def test_a_replaced_key_is_no_alarm(self, house: KeyHouse, master: Principal) -> None:
        first = (await house.login(master, device_id="web")).key
        second = (await house.login(master, device_id="web")).key
        await end_graces(house)
        with pytest.raises(AuthRevokedError):
            await house.connect(first)
        await house.connect(second)


class TestRejectAndAlert:
    @pytest.fixture
    async def used_up(self, house: KeyHouse, master: Principal) -> str:
        async with house.open_clients() as clients:
            shown = await clients.update_own(master, OwnClientUpdate(key_reuse="reject_and_alert"))
        assert shown.key_reuse == "reject_and_alert"
        first = (await house.login(master, device_id="phone")).key
        await house.connect(await next_key(house, first))
        await end_graces(house)
        return first

    async def test_only_the_key_is_refused_and_the_family_goes_on(
        self, house: KeyHouse, master: Principal, used_up: str
    ) -> None:
        [before] = await house.rows("select * from key_family")
        for _ in range(3):
            with pytest.raises(AuthReuseDetectedError) as refused:
                await house.connect(used_up)
            assert "ended" not in refused.value.message
            assert refused.value.details["action"] == "login"
        [after] = await house.rows("select * from key_family")
        assert after == before
        assert house.closings == []

    async def test_it_is_told_and_noted_once_an_hour(self, house: KeyHouse, used_up: str) -> None:
        async def again() -> int:
            for _ in range(3):
                with pytest.raises(AuthReuseDetectedError):
                    await house.connect(used_up)
            return len(await house.rows("select 1 from audit where action = 'user_key.reuse'"))

        assert await again() == 1
        [fact] = [it for it in house.told if it.type == "auth.reuse_detected"]
        said = orjson.loads(fact.body)["data"]
        assert (said["user_id"], said["policy"]) == ("alice", "reject_and_alert")
        await house.change("update key_retired set alarmed_at = alarmed_at - interval '61 minutes'")
        assert await again() == 2

    async def test_null_gives_the_default_back(
        self, house: KeyHouse, master: Principal, used_up: str
    ) -> None:
        async with house.open_clients() as clients:
            shown = await clients.update_own(master, OwnClientUpdate(key_reuse=None))
        assert shown.key_reuse == "revoke_family"
        with pytest.raises(AuthReuseDetectedError):
            await house.connect(used_up)
        [row] = await house.rows("select status from key_family")
        assert row["status"] == "revoked"


@pytest.mark.parametrize("policy", ["revoke_family", "reject_and_alert"])
async def test_an_application_that_follows_it_is_told_whatever_dies(
    house: KeyHouse, policy: str
) -> None:
    master, _ = await house.new_client()
    await house.change("update client set followed = '{auth.reuse_detected}'")
    async with house.open_clients() as clients:
        given = OwnClientUpdate.model_validate({"key_reuse": policy})
        await clients.update_own(master, given)
    first = (await house.login(master, device_id="phone")).key
    await house.connect(await next_key(house, first))
    await end_graces(house)
    with pytest.raises(AuthReuseDetectedError):
        await house.connect(first)
    # In the transaction of the alarm itself: a worker takes it from here.
    [kept] = await house.rows("select client_id, type, data from outbox")
    assert (kept["client_id"], kept["type"]) == (master.client_id, "auth.reuse_detected")
    assert (kept["data"]["user_id"], kept["data"]["policy"]) == ("alice", policy)
    assert kept["data"]["door"] == "socket"


class TestLimbo:
    async def test_a_key_that_expired_lately_connects_in_limbo_and_rotates_nothing(
        self, house: KeyHouse, master: Principal
    ) -> None:
        key = (await house.login(master)).key
        await house.change("update key_family set abs_expires_at = now() - interval '5 minutes'")
        arrival = await house.arrive(key)
        assert arrival.in_limbo
        assert arrival.handed_out is None
        for door in ("rest", "socket"):
            with pytest.raises(AuthExpiredError):
                await house.identifier.identify(key, door=door)

    async def test_ten_minutes_later_it_is_refused(
        self, house: KeyHouse, master: Principal
    ) -> None:
        key = (await house.login(master)).key
        await house.change("update key_family set abs_expires_at = now() - interval '11 minutes'")
        with pytest.raises(AuthExpiredError):
            await house.arrive(key)

    async def test_a_revoked_key_never_gets_there(self, house: KeyHouse, master: Principal) -> None:
        key = (await house.login(master)).key
        await house.change(
            "update key_family set abs_expires_at = now() - interval '1 s', status = 'revoked'"
        )
        with pytest.raises(AuthRevokedError):
            await house.arrive(key)


class TestThreeNodes:
    @pytest.fixture
    async def nodes(self, database: Address) -> AsyncIterator[list[KeyHouse]]:
        made = [KeyHouse(database) for _ in range(3)]
        yield made
        for node in made:
            await node.close()

    async def test_fifty_connects_at_once_get_one_successor(self, nodes: list[KeyHouse]) -> None:
        master, _ = await nodes[0].new_client()
        key = (await nodes[0].login(master)).key
        arrivals = await asyncio.gather(*(nodes[n % 3].arrive(key) for n in range(50)))
        assert len({it.handed_out.key for it in arrivals if it.handed_out}) == 1
        assert all(it.handed_out for it in arrivals)

    async def test_two_generations_at_once_all_get_in_and_agree(
        self, nodes: list[KeyHouse]
    ) -> None:
        master, _ = await nodes[0].new_client()
        first = (await nodes[0].login(master)).key
        second = await next_key(nodes[0], first)
        keys = [first, second] * 50
        arrivals = await asyncio.gather(*(nodes[n % 3].arrive(key) for n, key in enumerate(keys)))
        handed_out = {it.handed_out.key for it in arrivals if it.handed_out}
        assert {gen(it) for it in handed_out} <= {2, 3}
        assert len(handed_out) <= 2
        [row] = await nodes[0].rows("select cur_gen, status from key_family")
        assert (row["cur_gen"], row["status"]) == (2, "active")

    async def test_logins_and_connects_at_once_keep_everyone_in(
        self, nodes: list[KeyHouse]
    ) -> None:
        master, _ = await nodes[0].new_client()
        key = (await nodes[0].login(master, device_id="web")).key

        async def follow(node: KeyHouse) -> None:
            mine = key
            for _ in range(8):
                handed_out = (await node.arrive(mine)).handed_out
                mine = handed_out.key if handed_out else mine

        logins = (nodes[n % 3].login(master, device_id="web") for n in range(10))
        await asyncio.gather(*(follow(node) for node in nodes * 2), *logins)
        rows = await nodes[0].rows(
            "select gen from key_retired union all select cur_gen from key_family"
        )
        gens = [row["gen"] for row in rows]
        assert len(gens) == len(set(gens)), "no generation was given out twice"


async def test_the_family_keeps_the_last_64_generations(house: KeyHouse) -> None:
    master, _ = await house.new_client()
    key = (await house.login(master)).key
    for _ in range(70):
        key = await next_key(house, key)
    [row] = await house.rows("select count(*), max(gen) from key_retired")
    assert (row["count"], row["max"]) == (64, 69)
    assert LIFE.grace == timedelta(seconds=120)
