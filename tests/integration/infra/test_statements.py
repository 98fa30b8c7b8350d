"""Connections of the hot paths: handed on as they are, unless something happened to them."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from chatserver.infra import statements
from chatserver.infra.statements import Statements, _stands
from tests.support.nodes import eventually
from tests.support.servers import Database as Address

PID = "select pg_backend_pid()"


@pytest.fixture
async def one(database: Address) -> AsyncIterator[Statements]:
    made = Statements(database.app_url, size=1, settings={"application_name": "test"})
    yield made
    await made.close()


async def test_one_connection_serves_one_after_the_other(one: Statements) -> None:
    assert len({await one.fetchval(PID) for _ in range(5)}) == 1
    rows = await one.fetch("select * from generate_series(1, $1) n", 3)
    assert [row["n"] for row in rows] == [1, 2, 3]
    assert await one.fetchrow("select 1 where false") is None
    assert await one.execute("select 1") == "SELECT 1"


async def test_no_more_than_so_many_are_opened_and_the_rest_wait(database: Address) -> None:
    three = Statements(database.app_url, size=3, settings={})
    statement = "select pg_backend_pid() from pg_sleep(0.01)"
    pids = await asyncio.gather(*(three.fetchval(statement) for _ in range(30)))
    assert 1 <= len(set(pids)) <= 3
    await three.close()


async def test_a_fault_of_the_statement_costs_no_connection(one: Statements) -> None:
    pid = await one.fetchval(PID)
    for _ in range(3):
        with pytest.raises(asyncpg.UndefinedColumnError):
            await one.execute("select nothing")
    assert await one.fetchval(PID) == pid


async def test_whoever_is_cancelled_leaves_nothing_for_the_next(one: Statements) -> None:
    """B7: an answer that nobody waited for is not the next one's."""
    for number in range(20):
        slow = asyncio.create_task(one.fetchval("select 'old' from pg_sleep(5)"))
        await asyncio.sleep(0.001 * (number % 4))
        slow.cancel()
        assert await one.fetchval("select $1::int", number) == number
        with pytest.raises(asyncio.CancelledError):
            await slow


async def test_one_that_takes_too_long_is_given_up_and_the_next_works(one: Statements) -> None:
    with pytest.raises(TimeoutError):
        await one.execute("select pg_sleep(5)", within_s=0.05)
    assert await one.fetchval("select 7") == 7


async def test_a_connection_that_was_cut_is_not_handed_on(
    one: Statements, database: Address
) -> None:
    pid = await one.fetchval(PID)
    other = await asyncpg.connect(database.admin_url)
    await other.execute("select pg_terminate_backend($1, 5000)", pid)
    await other.close()
    # Whether the end was read in time is a matter of turns: one may fail, the next works.
    try:
        found = await one.fetchval(PID)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        found = await one.fetchval(PID)
    assert found != pid


async def test_one_that_idled_for_long_is_not_used_again(database: Address) -> None:
    now = 0.0
    made = Statements(database.app_url, size=1, settings={}, clock=lambda: now)
    first = await made.fetchval(PID)
    now = statements.IDLE_S
    assert await made.fetchval(PID) == first
    now += statements.IDLE_S + 1
    assert await made.fetchval(PID) != first
    await made.close()


async def test_closing_waits_for_nobody_who_idles(database: Address) -> None:
    made = Statements(database.app_url, size=4, settings={})
    await asyncio.gather(*(made.fetchval("select 1 from pg_sleep(0.01)") for _ in range(4)))
    async with asyncio.timeout(1):
        await made.close()
    with pytest.raises(asyncpg.InterfaceError):
        await made.fetchval("select 1")


async def test_one_may_be_had_to_oneself(one: Statements) -> None:
    async with one.acquire() as connection:
        pid = await connection.fetchval(PID)
    assert await one.fetchval(PID) == pid
    with pytest.raises(ZeroDivisionError):
        async with one.acquire():
            raise ZeroDivisionError
    assert await one.fetchval("select 1") == 1


async def test_those_that_were_cut_off_while_they_were_idle_cost_nobody_a_statement(
    database: Address,
) -> None:
    """After a restart of PostgreSQL nobody gets an error for each connection that is gone."""
    three = Statements(database.app_url, size=3, settings={"application_name": "cut"})
    admin = await asyncpg.connect(database.admin_url)
    try:
        await asyncio.gather(*(three.fetchval("select 1 from pg_sleep(0.05)") for _ in range(3)))
        assert three.standing().idle > 1
        await admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where application_name = 'cut'"
        )
        # The driver has heard of it when the loop has come round.
        await eventually(lambda: all(not _stands(each) for each, _ in three._idle), why="it heard")
        assert [await three.fetchval("select 1") for _ in range(3)] == [1, 1, 1]
    finally:
        await admin.close()
        await three.close()
