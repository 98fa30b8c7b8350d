import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from sqlalchemy import text

from chatserver.infra import jobs, outbox
from chatserver.infra.database import Database
from chatserver.infra.job_kinds import JobKind
from chatserver.infra.outbox import MOST_ATTEMPTS, OutboxRow
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.events import SYSTEM, Fact
from chatserver.kernel.opening import Open
from tests.integration.workers.conftest import Eventually, Rows, running
from workers.outbox import BATCH, Dispatcher

CLIENT = UUID(int=1)
FOLLOW = JobKind("test.follow", "sweep")

Read = Callable[[str], Awaitable[Rows]]


@pytest.fixture(autouse=True)
async def client(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(
            text(
                "insert into client (id, slug, name, status) values (:id, 'acme', 'Acme', 'active')"
            ),
            {"id": CLIENT},
        )


async def keep(database: Database, *types: str) -> None:
    async with database.transaction() as session:
        for name in types:
            fact = Fact(type=name, client_id=CLIENT, room_id=None, actor=SYSTEM, data={"n": name})
            assert await outbox.add(session, [fact], {}, lambda _: True)


async def follow(work: UnitOfWork, row: OutboxRow) -> None:
    """A reaction as real ones are: it plans a job, in the row's own transaction."""
    assert await jobs.plan(work.session, FOLLOW, dedupe=str(row.fact_id), client_id=row.client_id)


async def fail(work: UnitOfWork, row: OutboxRow) -> None:
    await follow(work, row)
    raise ValueError("no reaction today")


class TestDispatch:
    async def test_the_reactions_of_a_row_run_in_order_and_it_is_gone(
        self, database: Database, open_work: Open[UnitOfWork], read: Read
    ) -> None:
        seen: list[tuple[str, str]] = []

        async def first(_: UnitOfWork, row: OutboxRow) -> None:
            seen.append(("first", row.type))

        async def second(_: UnitOfWork, row: OutboxRow) -> None:
            assert (row.client_id, row.data) == (CLIENT, {"n": row.type})
            seen.append(("second", row.type))

        await keep(database, "a", "b")
        dispatcher = Dispatcher(open_work, {"a": (first, second), "b": (second,)}, poll_s=3600)
        assert await dispatcher.dispatch_all() == 2
        assert seen == [("first", "a"), ("second", "a"), ("second", "b")]
        assert await read("select * from outbox") == []

    async def test_two_dispatchers_dispatch_each_row_exactly_once(
        self, database: Database, open_work: Open[UnitOfWork], read: Read
    ) -> None:
        seen: Counter[int] = Counter()

        async def count(work: UnitOfWork, row: OutboxRow) -> None:
            await follow(work, row)
            seen[row.id] += 1

        total = BATCH * 4 + 7
        await keep(database, *["a"] * total)
        first, second = (Dispatcher(open_work, {"a": (count,)}, poll_s=3600) for _ in range(2))
        done = await asyncio.gather(first.dispatch_all(), second.dispatch_all())
        assert sum(done) == total
        assert len(seen) == total
        assert set(seen.values()) == {1}
        assert (await read("select count(*) as made from job"))[0]["made"] == total

    async def test_a_row_that_somebody_holds_delays_no_other(
        self, database: Database, open_work: Open[UnitOfWork], read: Read
    ) -> None:
        await keep(database, "a", "a", "a")
        async with database.transaction() as session:
            (held,) = await outbox.take(session, limit=1)
            assert await Dispatcher(open_work, {"a": (follow,)}, poll_s=3600).dispatch_all() == 2
        assert str(held.fact_id) not in {row["dedupe"] for row in await read("select * from job")}

    async def test_waking_it_is_enough(
        self, database: Database, open_work: Open[UnitOfWork], read: Read, eventually: Eventually
    ) -> None:
        dispatcher = Dispatcher(open_work, {"a": (follow,)}, poll_s=3600)
        async with running(dispatcher.run(), dispatcher.stop):
            await keep(database, "a")
            await asyncio.to_thread(dispatcher.wake)
            await eventually(lambda: read("select 1 from job"))

    async def test_the_poll_is_enough(
        self, database: Database, open_work: Open[UnitOfWork], read: Read, eventually: Eventually
    ) -> None:
        dispatcher = Dispatcher(open_work, {"a": (follow,)}, poll_s=0.05)
        async with running(dispatcher.run(), dispatcher.stop):
            await keep(database, "a")
            await eventually(lambda: read("select 1 from job"))


class TestFailing:
    async def test_a_failing_row_leaves_no_trace_but_its_error_and_blocks_nobody(
        self, database: Database, open_work: Open[UnitOfWork], read: Read
    ) -> None:
        await keep(database, "good", "bad", "good")
        dispatcher = Dispatcher(open_work, {"good": (follow,), "bad": (fail,)}, poll_s=3600)
        await dispatcher.dispatch_all()
        assert len(await read("select 1 from job")) == 2
        (row,) = await read(
            "select type, attempts, error, set_aside_at, due_at > clock_timestamp() as waits"
            " from outbox"
        )
        assert row == {
            "type": "bad",
            "attempts": 1,
            "error": "ValueError: no reaction today",
            "set_aside_at": None,
            "waits": True,
        }

    async def test_it_is_not_tried_again_before_its_time(
        self, database: Database, open_work: Open[UnitOfWork]
    ) -> None:
        await keep(database, "bad")
        dispatcher = Dispatcher(open_work, {"bad": (fail,)}, poll_s=3600)
        assert await dispatcher.dispatch_all() == 1
        assert await dispatcher.dispatch_all() == 0

    async def test_it_is_dispatched_once_its_reactions_work_again(
        self, database: Database, open_work: Open[UnitOfWork], read: Read
    ) -> None:
        await keep(database, "a")
        await Dispatcher(open_work, {"a": (fail,)}, poll_s=3600).dispatch_all()
        await _make_due(database)
        await Dispatcher(open_work, {"a": (follow,)}, poll_s=3600).dispatch_all()
        assert len(await read("select 1 from job")) == 1
        assert await read("select 1 from outbox") == []

    async def test_a_type_that_only_a_newer_worker_knows_is_kept_for_it(
        self, database: Database, open_work: Open[UnitOfWork], read: Read
    ) -> None:
        await keep(database, "from.tomorrow")
        await Dispatcher(open_work, {}, poll_s=3600).dispatch_all()
        assert [row["attempts"] for row in await read("select attempts from outbox")] == [1]

    async def test_after_many_tries_it_is_set_aside_until_somebody_puts_it_back(
        self, database: Database, open_work: Open[UnitOfWork], read: Read
    ) -> None:
        await keep(database, "bad")
        dispatcher = Dispatcher(open_work, {"bad": (fail,)}, poll_s=3600)
        for _ in range(MOST_ATTEMPTS):
            assert await dispatcher.dispatch_all() == 1
            await _make_due(database)
        assert await dispatcher.dispatch_all() == 0
        (row,) = await read("select attempts, set_aside_at is not null as aside from outbox")
        assert row == {"attempts": MOST_ATTEMPTS, "aside": True}
        async with database.transaction() as session:
            await session.execute(text("update outbox set set_aside_at = null"))
        await Dispatcher(open_work, {"bad": (follow,)}, poll_s=3600).dispatch_all()
        assert await read("select 1 from outbox") == []


async def _make_due(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("update outbox set due_at = clock_timestamp()"))
