"""The schema and its two roles, on the embedded PostgreSQL and on every other that is here."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import asyncpg
import pytest
from alembic import command
from alembic.script import ScriptDirectory

from chatserver.chat.schemas import Replay, Sync
from chatserver.infra import migrations, revisions
from chatserver.infra.database import TIMEOUTS
from chatserver.infra.database import Database as Pools
from chatserver.infra.migrations import MigrationError
from chatserver.kernel.ids import uuid7
from chatserver.rooms.schemas import RoomRef
from tests.support.installed_postgres import InstalledPostgres, installed
from tests.support.servers import Database, Servers, run, run_migrate, run_sql
from tests.support.talk import Talk, draft_of, holding


@pytest.fixture(
    scope="module",
    params=[None, *installed()],
    ids=lambda programs: "embedded" if programs is None else programs.parent.name,
)
def postgres(
    request: pytest.FixtureRequest, servers: Servers
) -> Iterator[Servers | InstalledPostgres]:
    programs: Path | None = request.param
    with ExitStack() as stack:
        yield servers if programs is None else stack.enter_context(InstalledPostgres(programs))


@pytest.fixture
def empty(postgres: Servers | InstalledPostgres) -> Iterator[Database]:
    made = postgres.empty_database()
    yield made
    postgres.drop(made)


@pytest.fixture
def migrated(empty: Database) -> Database:
    migrations.migrate(empty.migrator_url, empty.app_url)
    return empty


@pytest.fixture(scope="module")
def shared(postgres: Servers | InstalledPostgres) -> Iterator[Database]:
    """A migrated database for tests that leave nothing behind."""
    made = postgres.empty_database()
    migrations.migrate(made.migrator_url, made.app_url)
    run_sql(
        made.admin_url,
        ["create schema secret create table thing (a int)", "create table theirs (a int)"],
    )
    yield made
    postgres.drop(made)


def rows(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    async def fetch() -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(statement, *values)]
        finally:
            await connection.close()

    return run(fetch())


def objects(url: str) -> list[tuple[Any, ...]]:
    """Everything that migrations make, with its definition."""
    return rows(
        url,
        """
        select 'column', table_name || '.' || column_name,
          data_type || coalesce(column_default, '') || is_nullable
          from information_schema.columns where table_schema = 'public'
        union all
        select 'index', indexname, indexdef from pg_indexes where schemaname = 'public'
        union all
        select 'constraint', conname, pg_get_constraintdef(oid) from pg_constraint
          where connamespace = 'public'::regnamespace
        union all
        select 'function', p.oid::regprocedure::text, pg_get_functiondef(p.oid) from pg_proc p
          where p.pronamespace = 'public'::regnamespace
          and not exists (select 1 from pg_depend d where d.objid = p.oid and d.deptype = 'e')
        order by 1, 2
        """,
    )


def revision(database: Database) -> str | None:
    found = rows(database.migrator_url, "select version_num from alembic_version")
    return found[0][0] if found else None


class TestMigrate:
    def test_from_nothing_to_head_and_again(self, empty: Database) -> None:
        for _ in range(2):
            migrations.migrate(empty.migrator_url, empty.app_url)
            assert revision(empty) == revisions.head()
        assert rows(empty.app_url, "select count(*) from room") == [(0,)]

    def test_each_step_down_and_up_again_gives_the_same(self, migrated: Database) -> None:
        config = migrations.config(migrated.migrator_url)
        script = ScriptDirectory(str(revisions.DIRECTORY))
        steps = [each.revision for each in script.walk_revisions()]
        made = {}
        for step in steps:
            assert revision(migrated) == step
            made[step] = objects(migrated.migrator_url)
            command.downgrade(config, "-1")
        left = [row for row in objects(migrated.migrator_url) if "alembic_version" not in row[1]]
        assert left == []
        for step in reversed(steps):
            command.upgrade(config, "+1")
            assert objects(migrated.migrator_url) == made[step]

    def test_models_and_migrations_say_the_same(self, migrated: Database) -> None:
        command.check(migrations.config(migrated.migrator_url))

    def test_two_at_once_do_not_trip_over_each_other(self, empty: Database) -> None:
        with ThreadPoolExecutor(2) as threads:
            for done in [threads.submit(run_migrate, empty.environment()) for _ in range(2)]:
                done.result()
        assert rows(empty.app_url, "select count(*) from room") == [(0,)]

    def test_one_role_for_both_is_refused_before_anything_is_made(self, empty: Database) -> None:
        with pytest.raises(MigrationError, match="the same role"):
            migrations.migrate(empty.migrator_url, empty.migrator_url)
        assert objects(empty.admin_url) == []

    def test_a_role_that_may_not_make_tables_is_told_so_in_a_sentence(
        self, empty: Database
    ) -> None:
        migrations.migrate(empty.migrator_url, empty.app_url)
        with pytest.raises(
            MigrationError, match=r"refused: permission denied to create role\. Check MIGRATOR_"
        ):
            migrations.migrate(empty.app_url, "postgresql://another:x@/x")
        command.downgrade(migrations.config(empty.migrator_url), "base")
        with pytest.raises(
            MigrationError, match=r"refused: permission denied .*\. Check MIGRATOR_"
        ):
            migrations.migrate(empty.app_url, "postgresql://another:x@/x")

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://chatserver_migrator:x@127.0.0.1:1/x",
            "postgresql://chatserver_migrator:x@/x?host=/nowhere",
            "postgresql://chatserver_migrator:x@host.invalid/x",
            "postgresql://chatserver_migrator:x@127.0.0.1:notaport/x",
        ],
    )
    def test_a_server_that_is_not_there_is_told_in_a_sentence(self, url: str) -> None:
        with pytest.raises(MigrationError):
            migrations.migrate(url, "postgresql://app:x@/x")

    def test_a_url_without_a_user_is_refused(self) -> None:
        with pytest.raises(MigrationError, match="names no user"):
            migrations.migrate("postgresql://a:b@/x", "postgresql:///x")


class TestApplicationRole:
    @pytest.mark.parametrize(
        "statement",
        [
            "create table t (a int)",
            "create temporary table t (a int)",
            "create schema s",
            "create function f() returns int language sql as 'select 1'",
            "create index i on room (title)",
            "alter table room add column x int",
            "alter table room disable trigger all",
            "drop table outbox",
            "drop function cluster_generation_now()",
            "truncate room cascade",
            "truncate outbox",
            "update alembic_version set version_num = 'x'",
            "delete from alembic_version",
            "create role another",
            "alter role chatserver_app superuser",
            "set role chatserver_migrator",
            "set session authorization postgres",
            "select * from pg_authid",
            "select * from secret.thing",
            "select * from theirs",
            "insert into theirs values (1)",
            "copy room to '/tmp/x'",
            "copy room to program 'cat'",
            "select pg_read_file('/etc/passwd')",
            "alter system set work_mem = '1MB'",
        ],
    )
    def test_it_may_not(self, shared: Database, statement: str) -> None:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            rows(shared.app_url, statement)

    def test_it_reads_and_writes_rows_of_every_table_and_runs_both_functions(
        self, shared: Database
    ) -> None:
        tables = rows(
            shared.app_url,
            "select tablename, has_table_privilege(t.schemaname || '.' || t.tablename, p)"
            " from pg_tables t, unnest(array['select', 'insert', 'update', 'delete']) p"
            " where schemaname = 'public' and tablename not in ('alembic_version', 'theirs')",
        )
        assert len(tables) >= 4 * 12
        assert all(may for _, may in tables)
        assert rows(shared.app_url, "select cluster_generation_now()") == [(1,)]
        assert rows(shared.app_url, "select version_num from alembic_version")

    def test_nobody_else_gets_at_anything(self, shared: Database) -> None:
        name = f"stranger_{uuid7().hex}"
        run_sql(shared.admin_url, [f"create role {name} login"])
        [(reads, calls)] = rows(
            shared.admin_url,
            "select bool_or(has_table_privilege($1, c.oid, 'select')),"
            " has_function_privilege($1, 'cluster_generation_now()', 'execute')"
            " from pg_class c where relnamespace = 'public'::regnamespace and relkind = 'r'",
            name,
        )
        assert (reads, calls) == (False, False)

    def test_another_application_role_is_made_and_granted_beside_the_first(
        self, shared: Database
    ) -> None:
        name = f"app_{uuid7().hex[:12]}"
        url = shared.app_url.replace("chatserver_app:", f"{name}:")
        migrations.migrate(shared.migrator_url, url)
        for each in (url, shared.app_url):
            assert rows(each, "select count(*) from room") == [(0,)]

    def test_the_schemas_owner_is_the_migrator(self, shared: Database) -> None:
        owners = rows(
            shared.admin_url,
            "select distinct tableowner from pg_tables"
            " where schemaname = 'public' and tablename <> 'theirs'",
        )
        assert owners == [("chatserver_migrator",)]


class TestTenants:
    """A row of one client can't point at another's."""

    SEED = """
    insert into client (id, slug, name, status) values
      ('{a}', '{a}', 'a', 'active'), ('{b}', '{b}', 'b', 'active');
    insert into app_user (id, client_id, external_id) values
      ('{ua}', '{a}', 'u'), ('{ub}', '{b}', 'u');
    insert into room (id, client_id, type, history, is_active, epoch, members_count) values
      ('{ra}', '{a}', 'group', 'all', true, 1, 0), ('{rb}', '{b}', 'group', 'all', true, 1, 0);
    insert into key_family (kid, client_id, user_id, device_id, scopes, rotation, status, cur_gen,
        cur_id, cur_mac, idle_expires_at, abs_expires_at, pepper_id, epoch)
      values ('ka', '{a}', '{ua}', 'd', '{{}}', 'always', 'active', 1, '{ra}', '', now(), now(),
        1, 1);
    """
    ROWS: ClassVar = {
        "another client's user as a member": """
            insert into member (room_id, user_id, client_id, role, is_muted, is_favorite,
              notification_level) values ('{ra}', '{ub}', '{a}', 'member', false, false, 'all')""",
        "a member of another client's room": """
            insert into member (room_id, user_id, client_id, role, is_muted, is_favorite,
              notification_level) values ('{rb}', '{ua}', '{a}', 'member', false, false, 'all')""",
        "a message in another client's room": """
            insert into message (id, client_id, room_id, seq, msg_no, sender, sender_key,
              client_msg_id, body_hash, content, status, pinned)
            values ('{ra}', '{a}', '{rb}', 1, 1, 'user', 'x', 'x', '', 'x', 'complete', false)""",
        "a fact of another client's room": """
            insert into room_event (room_id, seq, client_id, id, type, actor_type)
            values ('{rb}', 1, '{a}', '{ra}', 'x', 'user')""",
        "another client's user who left": """
            insert into departure (room_id, user_id, client_id, reason)
            values ('{ra}', '{ub}', '{a}', 'left')""",
        "a retired key of another client's family": """
            insert into key_retired (kid, gen, client_id, mac, key_id, reason, valid_until)
            values ('ka', 1, '{b}', '', '{ra}', 'x', now())""",
        "a family of another client's user": """
            update key_family set user_id = '{ub}' where kid = 'ka'""",
        "a user who has rows and goes to another client": """
            update app_user set client_id = '{b}', external_id = 'v' where id = '{ua}'""",
        "a room of nobody": """
            insert into room (id, client_id, type, history, is_active, epoch, members_count)
            values (gen_random_uuid(), gen_random_uuid(), 'group', 'all', true, 1, 0)""",
    }

    @pytest.mark.parametrize("row", ROWS)
    async def test_a_row_that_points_at_another_clients_is_refused(
        self, shared: Database, row: str
    ) -> None:
        ids = {name: uuid7() for name in ("a", "b", "ua", "ub", "ra", "rb")}
        connection = await asyncpg.connect(shared.app_url)
        try:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(self.SEED.format(**ids))
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                await connection.execute(self.ROWS[row].format(**ids))
            await transaction.rollback()
        finally:
            await connection.close()


class TestConnections:
    async def test_every_connection_has_its_timeouts(self, shared: Database) -> None:
        pools = Pools(shared.app_url, name="test")
        expected = {"statement_timeout": "5s", "lock_timeout": "2s"} | {
            "idle_in_transaction_session_timeout": "10s"
        }
        assert set(expected) == set(TIMEOUTS)
        try:
            pool = await pools.fast()
            for name, value in expected.items():
                assert await pool.fetchval(f"show {name}") == value
                for engine in (pools.engine, pools.alone):
                    async with engine.connect() as connection:
                        found = await connection.exec_driver_sql(f"show {name}")
                        assert found.scalar_one() == value
            assert await pool.fetchval("show application_name") == "test"
        finally:
            await pools.close()


class TestConversation:
    async def test_all_of_the_main_job_runs_on_this_version(self, migrated: Database) -> None:
        talk = Talk(migrated)
        await talk.start()
        try:
            await self.converse(talk, migrated)
        finally:
            await talk.stop()

    async def converse(self, talk: Talk, migrated: Database) -> None:
        master = await talk.client()
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob)
        cursor = (await talk.container.catch_up.sync(bob, Sync())).cursor
        async with holding(migrated, room.id):
            [busy] = await talk.store(draft_of(alice, room.id, "1"))
        first = await talk.send(alice, room.id, client_msg_id="1", metadata={"a": [1, None]})
        again = await talk.send(alice, room.id, client_msg_id="1", metadata={"a": [1, None]})
        assert (busy.outcome, first.duplicate, again.duplicate) == ("busy", False, True)
        assert first.message.model_dump(mode="json") == again.message.model_dump(mode="json")
        async with talk.container.open_rooms() as rooms:
            await rooms.deactivate(alice, RoomRef(room_id=room.id))
        await talk.send(bob, room.id, mentions=["alice"])
        await talk.invite(alice, room.id, carol)
        await talk.remove(alice, room.id, bob)
        found = await talk.container.catch_up.replay(alice, Replay(room_id=room.id, after_seq=0))
        assert [(event["seq"], event["type"]) for event in found.events] == [
            (1, "room.created"),
            (2, "message.created"),
            (3, "room.deactivated"),
            (4, "room.reactivated"),
            (5, "message.created"),
            (6, "member.joined"),
            (7, "member.left"),
        ]
        changed = await talk.container.catch_up.sync(bob, Sync(cursor=cursor))
        assert [each.reason for each in changed.removed] == ["removed"]
        seen = await talk.container.catch_up.sync(alice, Sync())
        assert seen.rooms[str(room.id)].mentions == 1
        await talk.run(
            "update room set deactivation_check_at = now() - interval '1 s',"
            " last_activity_at = now() - interval '1 year'"
        )
        async with talk.container.open_rooms() as rooms:
            assert await rooms.deactivate_due(limit=10) == 1
