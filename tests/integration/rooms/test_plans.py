"""Every list query of rooms has its index, read from its plan on tables of some size."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from chatserver.rooms.repository import RoomRepository
from tests.support.plans import Seeded, plan_of, recorded, seed
from tests.support.servers import Servers
from tests.support.talk import Talk


@pytest.fixture(scope="module")
def seeded(servers: Servers) -> Iterator[Seeded]:
    address = servers.fresh_database()
    yield seed(address)
    servers.drop(address)


@pytest.fixture
async def talk(seeded: Seeded) -> AsyncIterator[Talk]:
    made = Talk(seeded.address)
    yield made
    await made.stop()


async def plans(talk: Talk, seeded: Seeded, method: str, *values: Any, **named: Any) -> list[str]:
    database = talk.container.database
    with recorded(database) as statements:
        async with database.transaction() as session:
            await getattr(RoomRepository(session), method)(*values, **named)
            await session.rollback()
    found = [
        (statement, parameters)
        for statement, parameters in statements
        if statement.lstrip().lower().startswith(("select", "update", "delete", "with"))
    ]
    assert found
    return [await plan_of(seeded.address, *each) for each in found]


PAGE = {"offset": 0, "limit": 20}
ALL = {"room_type": None, "is_active": None}


class TestLists:
    async def test_ones_own_rooms(self, talk: Talk, seeded: Seeded) -> None:
        found = await plans(
            talk, seeded, "list_mine", seeded.client_id, seeded.user_id, **ALL, **PAGE
        )
        assert len(found) == 2
        for plan in found:
            assert "ix_member_user_id" in plan
            assert "Seq Scan" not in plan

    @pytest.mark.parametrize(
        "filters", [{}, {"room_type": "group"}, {"is_active": True}, {"q": "room 1"}]
    )
    async def test_all_rooms_of_a_client(
        self, talk: Talk, seeded: Seeded, filters: dict[str, Any]
    ) -> None:
        page, _count = await plans(
            talk, seeded, "list_all", seeded.client_id, **(ALL | {"q": None} | filters), **PAGE
        )
        assert "ix_room_client_id_created_at" in page
        assert "Sort" not in page
        assert "Seq Scan" not in page

    @pytest.mark.parametrize("q", ["room 4242", "X-4242", "M 424"])
    async def test_few_of_many_rooms_by_a_part_of_their_names(
        self, talk: Talk, seeded: Seeded, q: str
    ) -> None:
        for plan in await plans(
            talk, seeded, "list_all", seeded.client_id, **(ALL | {"q": q}), **PAGE
        ):
            assert "ix_room_grams" in plan
            assert "Seq Scan" not in plan

    @pytest.mark.parametrize(
        ("q", "expected"),
        [("room 4242", 1), ("x-4242", 1), ("OOM 424", 10), ("4242", 1), ("%", 0), ("4_42", 0)],
    )
    async def test_what_is_found_is_what_holds_the_text(
        self, talk: Talk, seeded: Seeded, q: str, expected: int
    ) -> None:
        async with talk.container.database.transaction() as session:
            rooms, counted = await RoomRepository(session).list_all(
                seeded.client_id, q=q, room_type=None, is_active=None, offset=0, limit=20
            )
        assert (len(rooms), counted) == (expected, expected)

    async def test_members_in_the_order_in_which_they_came(
        self, talk: Talk, seeded: Seeded
    ) -> None:
        [plan] = await plans(talk, seeded, "list_members", seeded.room_id, **PAGE)
        assert "ix_member_room_id_joined_at" in plan
        assert "Seq Scan" not in plan

    async def test_rooms_whose_check_is_due(self, talk: Talk, seeded: Seeded) -> None:
        plan, *_rest = await plans(talk, seeded, "due", 100)
        assert "ix_room_deactivation_check_at" in plan
        assert "Index Cond: (deactivation_check_at <= statement_timestamp())" in plan
        assert "Seq Scan" not in plan


class TestSingleRows:
    @pytest.mark.parametrize(
        ("method", "index"),
        [
            ("find", ("pk_room", "uq_room_client_id_id")),
            ("lock", ("pk_room", "uq_room_client_id_id")),
        ],
    )
    async def test_a_room_by_its_id(
        self, talk: Talk, seeded: Seeded, method: str, index: tuple[str, ...]
    ) -> None:
        [plan] = await plans(talk, seeded, method, seeded.client_id, seeded.room_id)
        assert any(name in plan for name in index)
        assert "Seq Scan" not in plan

    async def test_a_room_by_the_clients_own_name(self, talk: Talk, seeded: Seeded) -> None:
        [plan] = await plans(talk, seeded, "find_external", seeded.client_id, "x-77")
        assert "uq_room_external_id" in plan

    @pytest.mark.parametrize("method", ["find_member", "has_left"])
    async def test_a_seat(self, talk: Talk, seeded: Seeded, method: str) -> None:
        [plan] = await plans(talk, seeded, method, seeded.room_id, seeded.user_id)
        assert "Seq Scan" not in plan

    async def test_the_versions_of_people(self, talk: Talk, seeded: Seeded) -> None:
        for plan in await plans(talk, seeded, "change_room_sets", [seeded.user_id]):
            assert "pk_app_user" in plan
            assert "Seq Scan" not in plan

    async def test_a_slice_of_a_deleted_room(self, talk: Talk, seeded: Seeded) -> None:
        for plan in await plans(talk, seeded, "purge", seeded.client_id, seeded.room_id, 100):
            assert "Seq Scan on room_event" not in plan
            assert "Seq Scan on message" not in plan
            assert "Seq Scan on member" not in plan
