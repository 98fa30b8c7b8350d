import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import IntegrityError, NoResultFound

from chatserver.infra.unit_of_work import UnitOfWork, Units
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.events import SYSTEM, Committed, Effect, Fact
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from tests.support.talk import Talk, draft_of


class Bench:
    """Units of work whose service is the unit itself."""

    def __init__(self, talk: Talk) -> None:
        self.told: list[list[Committed]] = []
        self.rung = 0
        self.generation: Callable[[], int] = lambda: 7
        self.open = Units(
            talk.container.database,
            generation=self._generation,
            publish=self.publish,
            has_later=lambda name: name == "room.deleted",
            ring=self.ring,
        ).open(lambda work: work)

    def publish(self, facts: list[Committed]) -> None:
        self.told.append(facts)

    def ring(self) -> None:
        self.rung += 1

    def _generation(self) -> int:
        return self.generation()

    async def record(self, *facts: Fact) -> None:
        async with self.open() as work:
            for each in facts:
                work.record(each)


@pytest.fixture
def bench(talk: Talk) -> Bench:
    return Bench(talk)


def fact(master: Principal, room_id: UUID | None, name: str = "room.updated", **more: Any) -> Fact:
    members: dict[str, Any] = {"actor": SYSTEM, "data": {"n": 1}} | more
    return Fact(type=name, client_id=master.client_id, room_id=room_id, **members)


class TestCommit:
    async def test_facts_get_their_seqs_and_are_shown_after_the_commit(
        self, talk: Talk, bench: Bench, master: Principal
    ) -> None:
        room = await talk.room(master)
        seen: list[int] = []
        async with bench.open() as work:
            assert work.next_seq(room.id, 1) == 2
            work.record(fact(master, room.id))
            work.record(fact(master, room.id, sequenced=False))
            assert work.next_seq(room.id, 1) == 3
            work.record(fact(master, room.id, "room.deactivated"))
            work.after_commit(lambda: seen.append(len(bench.told)))
            assert bench.told == []
        [facts] = bench.told
        assert [(each.seq, each.type) for each in facts] == [
            (2, "room.updated"),
            (3, "room.deactivated"),
            (None, "room.updated"),
        ]
        assert b'"epoch":"7.1","seq":2' in facts[0].body
        assert b'"seq"' not in facts[2].body
        assert seen == [1]
        log = await talk.log(room.id)
        assert [(row["seq"], row["type"], row["id"]) for row in log[1:]] == [
            (2, "room.updated", log[1]["id"]),
            (3, "room.deactivated", log[2]["id"]),
        ]
        assert bench.rung == 0
        assert await talk.rows("select 1 from outbox") == []

    async def test_a_fact_with_later_reactions_is_kept_for_them_and_rung_for(
        self, talk: Talk, bench: Bench, master: Principal
    ) -> None:
        room = await talk.room(master)
        recorded = fact(master, room.id, "room.deleted", effect=Effect(closed=True))
        async with bench.open() as work:
            work.record(recorded)
        [row] = await talk.rows("select * from outbox")
        assert (row["fact_id"], row["type"], row["room_id"]) == (
            recorded.id,
            "room.deleted",
            room.id,
        )
        assert bench.rung == 1

    async def test_a_fact_that_the_client_follows_is_kept_with_its_place(
        self, talk: Talk, bench: Bench, master: Principal
    ) -> None:
        room = await talk.room(master)
        await talk.run("update client set followed = '{room.updated}'")
        async with bench.open() as work:
            work.record(fact(master, room.id))
            work.record(fact(master, room.id, "room.reactivated"))
        [row] = await talk.rows("select * from outbox")
        assert (row["type"], row["seq"], row["actor_type"]) == ("room.updated", 2, "system")
        assert bench.rung == 1

    async def test_nothing_recorded_is_nothing_told(self, bench: Bench) -> None:
        async with bench.open():
            pass
        assert (bench.told, bench.rung) == ([], 0)

    async def test_a_failing_push_is_no_failure_of_the_call(
        self, talk: Talk, bench: Bench, master: Principal
    ) -> None:
        room = await talk.room(master)

        def broken(_facts: list[Committed]) -> None:
            raise RuntimeError("the push is broken")

        opened = Units(
            talk.container.database,
            generation=lambda: 1,
            publish=broken,
            has_later=lambda _: False,
            ring=bench.ring,
        ).open(lambda work: work)
        async with opened() as work:
            work.record(fact(master, room.id))
        assert len(await talk.log(room.id)) == 2


class TestRollback:
    async def test_an_error_leaves_neither_row_nor_fact_nor_number(
        self, talk: Talk, bench: Bench, master: Principal
    ) -> None:
        room = await talk.room(master)
        ran: list[str] = []
        with pytest.raises(LookupError):
            await self.fail(bench, master, room.id, ran)
        assert len(await talk.log(room.id)) == 1
        assert await talk.rows("select 1 from outbox") == []
        assert (bench.told, bench.rung, ran) == ([], 0, [])
        async with bench.open() as work:
            work.record(fact(master, room.id))
        assert [row["seq"] for row in await talk.log(room.id)] == [1, 2]

    async def fail(self, bench: Bench, master: Principal, room: UUID, ran: list[str]) -> None:
        async with bench.open() as work:
            work.record(fact(master, room, "room.deleted"))
            work.after_commit(lambda: ran.append("ran"))
            raise LookupError

    async def test_a_fact_of_an_unknown_or_foreign_room_undoes_everything(
        self, talk: Talk, bench: Bench, master: Principal
    ) -> None:
        room = await talk.room(master)
        other = await talk.client("other")
        for wrong in (fact(master, uuid7()), fact(other, room.id)):
            with pytest.raises((NoResultFound, IntegrityError)):
                await bench.record(fact(master, room.id), wrong)
        assert len(await talk.log(room.id)) == 1
        assert bench.told == []

    async def test_without_a_generation_nothing_is_committed(
        self, talk: Talk, bench: Bench, master: Principal
    ) -> None:
        room = await talk.room(master)

        def unknown() -> int:
            raise UnavailableError

        bench.generation = unknown
        with pytest.raises(UnavailableError):
            await bench.record(fact(master, room.id))
        assert len(await talk.log(room.id)) == 1


class TestSeveralRooms:
    async def test_each_room_has_its_own_numbers_in_the_order_of_recording(
        self, talk: Talk, bench: Bench, master: Principal
    ) -> None:
        rooms = [(await talk.room(master)).id for _ in range(3)]
        async with bench.open() as work:
            for n in range(9):
                work.record(fact(master, rooms[n % 3], data={"n": n}))
        for at, room in enumerate(rooms):
            log = await talk.log(room)
            assert [(row["seq"], row["data"]) for row in log[1:]] == [
                (seq, f'{{"n": {at + 3 * (seq - 2)}}}') for seq in (2, 3, 4)
            ]

    async def test_opposite_orders_never_wait_for_one_another_in_a_circle(
        self, talk: Talk, bench: Bench, master: Principal
    ) -> None:
        rooms = [(await talk.room(master)).id for _ in range(6)]

        async def work(order: list[UUID]) -> None:
            async with bench.open() as unit:
                for room in order:
                    unit.record(fact(master, room))

        await asyncio.gather(*(work(rooms[::step]) for step in (1, -1) * 10))
        for room in rooms:
            assert [row["seq"] for row in await talk.log(room)] == list(range(1, 22))

    async def test_services_and_sends_share_one_sequence(
        self, talk: Talk, bench: Bench, master: Principal
    ) -> None:
        room = (await talk.room(master)).id

        async def note() -> None:
            async with bench.open() as unit:
                unit.record(fact(master, room))

        async def send(n: int) -> None:
            await talk.container.writer.write(draft_of(master, room, str(n)))

        await asyncio.gather(*(note() for _ in range(20)), *(send(n) for n in range(20)))
        log = await talk.log(room)
        assert [row["seq"] for row in log] == list(range(1, 42))
        assert [row["created_at"] for row in log] == sorted(row["created_at"] for row in log)


class TestPersonal:
    async def test_a_fact_about_a_person_is_in_no_log(
        self, talk: Talk, bench: Bench, master: Principal
    ) -> None:
        person = uuid7()
        async with bench.open() as work:
            work.record(fact(master, None, sequenced=False, audience=(person,)))
            assert isinstance(work, UnitOfWork)
        [[told]] = bench.told
        assert (told.room_id, told.seq, told.audience) == (None, None, (person,))
        assert await talk.rows("select 1 from room_event") == []
