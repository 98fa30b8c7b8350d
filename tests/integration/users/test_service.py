import asyncio

import pytest

from chatserver.kernel.ids import uuid7
from chatserver.users.errors import UserNotFoundError
from chatserver.users.schemas import UserList, UserPatch, UserPath, UserPut
from tests.support.keys import KeyHouse


async def test_a_profile_is_kept_replaced_and_changed(house: KeyHouse) -> None:
    master, _ = await house.new_client()
    profile = UserPut(
        external_id="alice",
        display_name="Alice",
        avatar_url="https://a.example/a.png",
        metadata={"plan": {"seats": 3}},
    )
    async with house.open_users() as users:
        first = await users.put(master, profile)
    async with house.open_users() as users:
        again = await users.put(master, UserPut(external_id="alice", display_name="Al"))
    assert (first.is_repeat, again.is_repeat) == (False, True)
    assert (again.avatar_url, again.metadata) == (None, {})
    assert again.created_at == first.created_at
    assert again.updated_at > first.updated_at

    async with house.open_users() as users:
        patch = UserPatch.model_validate({"external_id": "alice", "metadata": {"a": None}})
        await users.update(master, patch)
    async with house.open_users() as users:
        shown = await users.get(master, UserPath(external_id="alice"))
    assert (shown.display_name, shown.metadata) == ("Al", {"a": None})


async def test_a_hundred_puts_of_one_user_make_one(house: KeyHouse) -> None:
    master, _ = await house.new_client()

    async def put() -> bool:
        async with house.open_users() as users:
            return (await users.put(master, UserPut(external_id="alice"))).is_repeat

    repeats = await asyncio.gather(*(put() for _ in range(100)))
    assert repeats.count(False) == 1
    assert len(await house.rows("select id from app_user")) == 1


async def test_two_clients_may_use_one_external_id(house: KeyHouse) -> None:
    master, _ = await house.new_client("a")
    other, _ = await house.new_client("b")
    async with house.open_users() as users:
        await users.put(master, UserPut(external_id="alice", display_name="A"))
        await users.put(other, UserPut(external_id="alice", display_name="B"))
    async with house.open_users() as users:
        assert (await users.get(master, UserPath(external_id="alice"))).display_name == "A"
        assert (await users.get(other, UserPath(external_id="alice"))).display_name == "B"


async def test_another_clients_user_is_found_by_nothing(house: KeyHouse) -> None:
    master, _ = await house.new_client("a")
    other, _ = await house.new_client("b")
    async with house.open_users() as users:
        await users.put(other, UserPut(external_id="bob"))
    async with house.open_users() as users:
        for call in (
            users.get(master, UserPath(external_id="bob")),
            users.update(master, UserPatch(external_id="bob", display_name="x")),
            users.locked(master, "bob"),
            users.find(master.client_id, ["bob"]),
        ):
            with pytest.raises(UserNotFoundError):
                await call
        assert (await users.list(master, UserList())).total == 0


async def test_the_list_is_in_order_and_has_pages(house: KeyHouse) -> None:
    master, _ = await house.new_client()
    async with house.open_users() as users:
        await users.ensure(master.client_id, ["c", "a", "b"])
    async with house.open_users() as users:
        page = await users.list(master, UserList(page=2, size=2))
        assert ([user.external_id for user in page.items], page.total) == (["c"], 3)
        assert (await users.list(master, UserList(page=9, size=2))).items == []


async def test_many_are_made_once_though_asked_for_at_once(house: KeyHouse) -> None:
    master, _ = await house.new_client()
    names = [f"u{number}" for number in range(50)]

    async def ensure(order: list[str]) -> dict[str, object]:
        async with house.open_users() as users:
            return dict(await users.ensure(master.client_id, order))

    first, *others = await asyncio.gather(
        *(ensure(names if turn % 2 else names[::-1]) for turn in range(8))
    )
    assert all(other == first for other in others)
    assert len(first) == 50


async def test_the_list_of_users_reads_its_index(house: KeyHouse) -> None:
    plan = await house.plan(
        f"select * from app_user where client_id = '{uuid7()}' order by external_id limit 20"
    )
    assert "uq_app_user_client_id_external_id" in plan
    assert "Sort" not in plan
