"""Each credential gets its code, as the application role, on both doors."""

import asyncio

import pytest

from chatserver.api_keys.errors import AuthInvalidError, AuthMissingError
from chatserver.infra.secrets import Key, KeyHasher, new_master_key, new_scoped_key, parse_key
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Caller
from tests.support.keys import KeyHouse
from tests.support.servers import Database as Address
from tests.support.servers import Servers


async def test_the_three_kinds_are_told_apart(house: KeyHouse, database: Address) -> None:
    master, master_key = await house.new_client()
    issued = await house.login(master)
    identify = house.identifier.identify
    assert (await identify(database.secrets.operator_key, door="rest")).caller is Caller.OPERATOR
    assert (await identify(master_key, door="rest")).caller is Caller.MASTER
    assert (await identify(issued.key, door="rest")).caller is Caller.USER


@pytest.mark.parametrize("door", ["rest", "socket"])
async def test_wrong_and_unknown_keys_are_invalid(house: KeyHouse, door: str) -> None:
    master, master_key = await house.new_client()
    known = parse_key((await house.login(master)).key)
    known_master = parse_key(master_key)
    assert known is not None
    assert known_master is not None
    wrong = [
        new_scoped_key().text,
        new_scoped_key(kid=known.kid).text,
        Key(known.kid, known.gen + 1, known.secret).text,
        new_master_key().text,
        Key(known_master.kid, 0, known.secret).text,
        Key(known.kid, 0, known.secret).text,
    ]
    for token in wrong:
        with pytest.raises(AuthInvalidError):
            await house.identifier.identify(token, door=door)  # type: ignore[arg-type]
    with pytest.raises(AuthMissingError):
        await house.identifier.identify(None, door=door)  # type: ignore[arg-type]


async def test_a_key_with_a_wrong_checksum_costs_no_statement(house: KeyHouse) -> None:
    master, _ = await house.new_client()
    issued = await house.login(master)
    typo = issued.key[:-1] + ("a" if issued.key[-1] != "a" else "b")
    before = house.counted.queries
    for token in (typo, issued.key[:-1], issued.key + "x", "csu_" + "x" * 5000):
        with pytest.raises(AuthInvalidError):
            await house.connect(token)
    assert house.counted.queries == before
    await house.connect(issued.key)
    assert house.counted.queries == before + 2, "one to look, one to keep the successor"
    await house.connect(issued.key)
    assert house.counted.queries == before + 3, "the successor is there: one look"


async def test_another_pepper_knows_no_key(house: KeyHouse, database: Address) -> None:
    master, _ = await house.new_client()
    issued = await house.login(master)
    other = KeyHouse(database)
    other.rotation._hasher = KeyHasher("another pepper")
    with pytest.raises(AuthInvalidError):
        await other.connect(issued.key)
    await other.close()


async def test_a_second_node_takes_the_key_at_once(house: KeyHouse, database: Address) -> None:
    master, master_key = await house.new_client()
    issued = await house.login(master)
    other = KeyHouse(database)
    assert (await other.connect(issued.key)).external_id == "alice"
    assert (await other.identifier.identify(master_key, door="rest")).is_master
    await other.close()


async def test_three_hundred_connects_at_once_are_all_answered(house: KeyHouse) -> None:
    master, _ = await house.new_client()
    issued = await house.login(master)
    who = await asyncio.gather(*(house.connect(issued.key) for _ in range(300)))
    assert {principal.key_id for principal in who} == {issued.key_id}


async def test_a_database_that_is_away_opens_no_door(house: KeyHouse, servers: Servers) -> None:
    master, master_key = await house.new_client()
    issued = await house.login(master)
    house.identifier._known.drop(lambda _: True)
    servers.postgres.pause()
    try:
        asked = await asyncio.gather(
            house.identifier.identify(issued.key, door="socket"),
            house.identifier.identify(issued.key, door="rest"),
            house.identifier.identify(master_key, door="rest"),
            house.identifier.dead_among(["a"]),
            return_exceptions=True,
        )
        assert [type(answer) for answer in asked] == [UnavailableError] * 4
    finally:
        servers.postgres.resume()


async def test_use_is_written_at_most_once_a_minute(house: KeyHouse) -> None:
    master, _ = await house.new_client()
    issued = await house.login(master)
    seen = []
    for _ in range(2):
        await house.connect(issued.key)
        await house.scoped_use.flush()
        [row] = await house.rows("select last_seen_at from key_family")
        seen.append(row["last_seen_at"])
    assert seen[0] is not None
    assert seen[0] == seen[1]


async def test_the_look_up_of_a_key_reads_indexes_alone(house: KeyHouse) -> None:
    plan = await house.plan(
        "select * from key_family f"
        " join client c on c.id = f.client_id"
        " join app_user u on u.client_id = f.client_id and u.id = f.user_id"
        " left join key_retired r on r.kid = f.kid and r.gen = 1 where f.kid = 'x'"
    )
    assert "Seq Scan" not in plan


async def test_the_list_of_a_users_keys_reads_the_index_of_living_ones(house: KeyHouse) -> None:
    plan = await house.plan(
        f"select * from key_family where client_id = '{uuid7()}' and user_id = '{uuid7()}'"
        " and status = 'active' order by created_at"
    )
    assert "uq_key_family_device" in plan
