import asyncio

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from chatserver.infra import database as infra
from chatserver.infra.cluster import AdvisoryLeader, Generation
from chatserver.infra.database import Database, outages
from chatserver.kernel.errors import UnavailableError
from tests.support.servers import Database as Address
from tests.support.talk import Talk

NOWHERE = "postgresql://nobody:x@127.0.0.1:1/nothing"


async def execute(database: Database, *statements: str) -> object:
    """Run statements in one transaction; gives what the last one gave."""
    given: object = None
    async with database.transaction() as session:
        for statement in statements:
            given = (await session.execute(text(statement))).scalar_one_or_none()
    return given


class TestTransaction:
    async def test_leaving_the_block_commits_and_an_error_undoes(self, talk: Talk) -> None:
        insert = (
            "insert into client (id, slug, name, status)"
            " values (gen_random_uuid(), '{}', 'x', 'active') returning slug"
        )
        await execute(talk.container.database, insert.format("kept"))
        with pytest.raises(ProgrammingError):
            await execute(talk.container.database, insert.format("undone"), "select nothing")
        assert await talk.rows("select slug from client") == [{"slug": "kept"}]

    async def test_a_server_that_is_not_there_is_unavailable_within_seconds(self) -> None:
        database = Database(NOWHERE, name="test")
        async with asyncio.timeout(4):
            with pytest.raises(UnavailableError):
                await execute(database, "select 1")
            with pytest.raises(UnavailableError), outages():
                await (await database.fast()).fetchval("select 1")
            await database.close()

    async def test_a_session_that_the_server_ends_is_unavailable_and_the_next_works(
        self, talk: Talk
    ) -> None:
        database = talk.container.database
        with pytest.raises(UnavailableError):
            await execute(database, "select pg_terminate_backend(pg_backend_pid())", "select 1")
        assert await execute(database, "select 1") == 1

    async def test_statements_and_locks_that_take_too_long_are_unavailable(
        self, talk: Talk
    ) -> None:
        database = talk.container.database
        with pytest.raises(UnavailableError):
            await execute(
                database, "select set_config('statement_timeout', '50', true)", "select pg_sleep(5)"
            )
        async with database.transaction() as holder:
            await holder.execute(text("select pg_advisory_xact_lock(1)"))
            with pytest.raises(UnavailableError):
                await execute(
                    database,
                    "select set_config('lock_timeout', '50', true)",
                    "select pg_advisory_xact_lock(1)",
                )

    async def test_no_free_connection_is_unavailable_soon(
        self, database: Address, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(infra, "ACQUIRE_S", 0.1)
        small = Database(database.app_url, name="test", pool_size=1)
        try:
            async with small.transaction() as session:
                await session.execute(text("select 1"))
                with pytest.raises(UnavailableError):
                    await execute(small, "select 1")
        finally:
            await small.close()

    async def test_a_bug_stays_a_bug(self, talk: Talk) -> None:
        for statement, error in (
            ("select nothing", ProgrammingError),
            ("insert into client (id) values (null)", IntegrityError),
        ):
            with pytest.raises(error):
                await execute(talk.container.database, statement)
        pool = await talk.container.database.fast()
        with pytest.raises(asyncpg.UndefinedColumnError), outages():
            await pool.execute("select nothing")


class TestGeneration:
    async def test_it_is_unknown_until_postgresql_was_reached(self) -> None:
        database = Database(NOWHERE, name="test")
        generation = Generation(database)
        await generation.start()
        with pytest.raises(UnavailableError):
            generation()
        await generation.stop()
        await database.close()

    async def test_it_rises_once_for_another_system_or_timeline(
        self, talk: Talk, second: Talk
    ) -> None:
        one, other = talk.container.generation, second.container.generation
        assert (one(), other()) == (1, 1)
        changes: list[int] = []
        one.changed = lambda: changes.append(one())
        for change in ("timeline = timeline + 1", "system_identifier = 5"):
            before = one()
            await talk.run(f"update cluster_generation set {change}")
            await asyncio.gather(one._look(), other._look())
            assert one() == other() > before
            await one._look()
            assert changes[-1] == one()
        assert len(changes) == 2
        assert len(await talk.rows("select 1 from cluster_generation")) == 1

    async def test_a_backup_that_is_restored_again_gets_another_number_than_the_first_time(
        self, talk: Talk
    ) -> None:
        generation = talk.container.generation
        await talk.run("update cluster_generation set generation = 1")
        await talk.run("select cluster_generation_raise()")
        await generation._look()
        [row] = await talk.rows(
            "select extract(epoch from clock_timestamp() - timestamptz '2026-01-01Z')::int as now"
        )
        # A number that only counts would be 2 each time, and nobody would notice the second.
        assert row["now"] - 60 < generation() <= row["now"]
        first = generation()
        await talk.run("select cluster_generation_raise()")
        await generation._look()
        assert generation() > first

    async def test_the_timeline_is_the_one_that_is_written_now(self, talk: Talk) -> None:
        [row] = await talk.rows(
            "select timeline, ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"
            " as written, system_identifier = (select system_identifier from pg_control_system())"
            " as is_this from cluster_generation"
        )
        assert row["timeline"] == row["written"]
        assert row["is_this"]


class TestAdvisoryLeader:
    async def test_one_of_all_leads_until_it_resigns_or_loses_its_connection(
        self, talk: Talk, second: Talk
    ) -> None:
        one = AdvisoryLeader(talk.container.database, 77)
        other = AdvisoryLeader(second.container.database, 77)
        assert [await each.leads() for each in (one, other, one, other)] == [
            True,
            False,
            True,
            False,
        ]
        await one.resign()
        async with asyncio.timeout(2):
            while not await other.leads():  # noqa: ASYNC110 - the server sees the end a bit later
                await asyncio.sleep(0.02)
        assert not await one.leads()
        assert other.connection is not None
        pid = (await other.connection.execute(text("select pg_backend_pid()"))).scalar_one()
        await second.run("select pg_terminate_backend($1)", pid)
        with pytest.raises(UnavailableError):
            await other.leads()
        assert await one.leads()
        await one.resign()

    async def test_roles_are_led_apart(self, talk: Talk) -> None:
        leaders = [AdvisoryLeader(talk.container.database, role) for role in (1, 2)]
        assert [await each.leads() for each in leaders] == [True, True]
        for each in leaders:
            await each.resign()

    async def test_without_postgresql_nobody_knows(self) -> None:
        database = Database(NOWHERE, name="test")
        with pytest.raises(UnavailableError):
            await AdvisoryLeader(database, 1).leads()
        await database.close()
