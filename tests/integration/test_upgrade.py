"""Upgrades beside a server that works, and of databases that hold something."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from uuid import UUID

import asyncpg
import pytest
from alembic import command
from alembic.config import Config

from chatserver.chat.policies import body_hash
from chatserver.chat.schemas import Replay, SendMessage, Sync
from chatserver.cli.schema import schema_problem
from chatserver.infra import migrations, revisions
from chatserver.infra.migrations import MigrationError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import ALL_SCOPES, Caller, Principal
from tests.support.servers import Database, Servers, run, run_sql
from tests.support.talk import Talk, settings_of
from tests.support.talking import talk

__all__ = ["talk"]

FILLED = 5_000
# What a sender may wait for: less than the time after which a send is given up.
LONGEST_S = 1.9

EXPAND = '''
"""A column, an index on it, and a rule, as docs/upgrading.md has it."""

import sqlalchemy as sa
from alembic import op

from chatserver.infra.expanding import add_constraint, add_index, fill

revision = "9001"
down_revision = "{head}"


def upgrade() -> None:
    op.add_column("message", sa.Column("mood", sa.Text(), nullable=True))
    add_index("ix_message_mood", "message", "(mood) where mood is not null")
    fill(
        "update message set mood = 'calm' where id = any (array(select id from message"
        " where mood is null limit :limit for update skip locked))"
    )
    add_constraint("ck_message_mood", "message", "check (mood <> '')")
'''

FILL = """
insert into message select (jsonb_populate_record(m, jsonb_build_object('id', gen_random_uuid(),
  'seq', {first} + n, 'msg_no', {first} + n, 'client_msg_id', 'old-' || n))).*
from message m, generate_series(1, {count}) n
where m.room_id = '{room}' and m.client_msg_id = 'first'
"""
FILL_LOG = """
insert into room_event select (jsonb_populate_record(e, jsonb_build_object(
  'id', gen_random_uuid(), 'seq', m.seq, 'message_id', m.id))).*
from room_event e, message m
where e.room_id = '{room}' and e.seq = {first} and m.room_id = e.room_id and m.seq > {first}
"""


def steps_beside(database: Database, directory: Path, source: str) -> Config:
    """Give the migrations that there are, and one that may come some day."""
    directory.mkdir(exist_ok=True)
    (directory / "9001_later.py").write_text(source.replace("{head}", revisions.head()))
    made = migrations.config(database.migrator_url)
    made.set_main_option("path_separator", "os")
    versions = revisions.DIRECTORY / "versions"
    made.set_main_option("version_locations", f"{versions}:{directory}")
    return made


def schema_of(database: Database) -> str:
    async def fetch() -> str:
        connection = await asyncpg.connect(database.migrator_url)
        try:
            return str(await connection.fetchval("select version_num from alembic_version"))
        finally:
            await connection.close()

    return run(fetch())


class Holder:
    """Somebody whose transaction has read messages and goes on for long: a report, a dump."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._end = threading.Event()
        self._began = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._hold()))

    async def _hold(self) -> None:
        connection = await asyncpg.connect(self._url)
        async with connection.transaction():
            await connection.fetch("select id from message limit 1")
            self._began.set()
            await asyncio.to_thread(self._end.wait, 20)
        await connection.close()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._began.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._thread.join()

    def end(self) -> None:
        self._end.set()


class TestUnderLoad:
    async def test_messages_flow_while_a_filled_table_gets_a_column_an_index_and_a_rule(
        self, talk: Talk, database: Database, tmp_path: Path
    ) -> None:
        master = await talk.client()
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        first = await talk.send(alice, room.id, client_msg_id="first")
        seq = first.message.seq
        for statement in (FILL, FILL_LOG):
            await talk.run(statement.format(first=seq, count=FILLED, room=room.id))
        await talk.run(
            "update room set last_seq = last_seq + $1, msg_no = msg_no + $1 where id = $2",
            FILLED,
            room.id,
        )
        refused: list[float] = []
        took: list[float] = []
        done = asyncio.Event()

        async def send_all_the_time() -> None:
            while not done.is_set():
                began = time.monotonic()
                await talk.send(bob, room.id)
                took.append(time.monotonic() - began)

        sending = asyncio.create_task(send_all_the_time())
        with Holder(database.admin_url) as holder:

            def waits() -> None:
                refused.append(time.monotonic())
                if len(refused) > 1:
                    holder.end()

            config = steps_beside(database, tmp_path / "later", EXPAND)
            await asyncio.to_thread(migrations.upgrade, config, waits=waits)
        done.set()
        await sending
        assert len(refused) == 2
        assert len(took) > 50
        assert max(took) < LONGEST_S
        assert await talk.rows("select version_num from alembic_version") == [
            {"version_num": "9001"}
        ]
        rest = await talk.rows("select count(*) as n from message where mood is null")
        assert rest[0]["n"] <= len(took)
        [index] = await talk.rows(
            "select indisvalid from pg_index where indexrelid = 'ix_message_mood'::regclass"
        )
        assert index["indisvalid"]
        log = [row["seq"] for row in await talk.log(room.id)]
        assert log == list(range(1, seq + FILLED + len(took) + 1))
        # This version works on beside the newer schema, and after a restart, too.
        assert await schema_problem(settings_of(database)) == ""
        await talk.send(alice, room.id)

    def test_who_holds_a_lock_for_too_long_is_told_of_and_nothing_is_half_done(
        self, database: Database, tmp_path: Path
    ) -> None:
        config = steps_beside(database, tmp_path / "later", EXPAND)
        with (
            Holder(database.admin_url),
            pytest.raises(MigrationError, match="pg_stat_activity"),
        ):
            migrations.upgrade(config, patience_s=0)
        assert schema_of(database) == revisions.head()
        migrations.upgrade(config)
        assert schema_of(database) == "9001"


class TestVersions:
    async def test_a_version_works_with_a_newer_schema_only_as_far_as_that_says(
        self, database: Database
    ) -> None:
        settings = settings_of(database)
        assert await schema_problem(settings) == ""
        newer = "update alembic_version set version_num = '9999'"
        run_sql(database.migrator_url, [newer])
        assert await schema_problem(settings) == ""
        raised = "create or replace function schema_floor() returns text language sql immutable as"
        run_sql(database.migrator_url, [f"{raised} $$ select '9998' $$"])
        assert "too new for this version" in await schema_problem(settings)
        older = "update alembic_version set version_num = '0001'"
        run_sql(database.migrator_url, [older])
        assert "Run `chatserver migrate`" in await schema_problem(settings)


@pytest.fixture
def old(servers: Servers) -> Iterator[Database]:
    """A database of the very first version."""
    made = servers.empty_database()
    command.upgrade(migrations.config(made.migrator_url), "0002")
    yield made
    servers.drop(made)


class TestFromTheFirstVersion:
    async def test_everything_that_it_held_is_there_and_goes_on(self, old: Database) -> None:
        ids = {name: uuid7() for name in ("client", "alice", "bob")}
        rooms = [uuid7() for _ in range(3)]
        await asyncio.to_thread(run, _fill(old, ids, rooms))
        await asyncio.to_thread(migrations.migrate, old.migrator_url, old.app_url)
        talk = Talk(old)
        await talk.start()
        try:
            alice, bob = (
                Principal(
                    caller=Caller.USER,
                    client_id=ids["client"],
                    user_id=ids[name],
                    external_id=name,
                    scopes=ALL_SCOPES,
                )
                for name in ("alice", "bob")
            )
            told = await talk.container.catch_up.sync(alice, Sync())
            assert set(told.rooms) == {str(room) for room in rooms}
            for room in rooms:
                sent = await talk.send(bob, room, "after the upgrade")
                assert (sent.message.seq, sent.message.msg_no) == (21, 21)
                again = await talk.send(alice, room, "old 3", client_msg_id="3")
                assert (again.duplicate, again.message.seq) == (True, 3)
                found = await talk.container.catch_up.replay(
                    alice, Replay(room_id=room, after_seq=0)
                )
                assert [event["seq"] for event in found.events] == list(range(1, 22))
        finally:
            await talk.stop()


def _message(room: UUID, number: int) -> SendMessage:
    return SendMessage(room_id=room, content=f"old {number}", client_msg_id=str(number))


async def _fill(old: Database, ids: dict[str, UUID], rooms: list[UUID]) -> None:
    connection = await asyncpg.connect(old.migrator_url)
    try:
        await connection.execute(
            "insert into client (id, slug, name, status) values ($1, 'old', 'Old', 'active')",
            ids["client"],
        )
        for name in ("alice", "bob"):
            await connection.execute(
                "insert into app_user (id, client_id, external_id) values ($1, $2, $3)",
                ids[name],
                ids["client"],
                name,
            )
        for room in rooms:
            await connection.execute(
                "insert into room (id, client_id, type, history, is_active, epoch, members_count)"
                " values ($1, $2, 'group', 'all', true, 1, 2)",
                room,
                ids["client"],
            )
            for name in ("alice", "bob"):
                await connection.execute(
                    "insert into member (room_id, user_id, client_id, role, is_muted,"
                    " is_favorite, notification_level)"
                    " values ($1, $2, $3, 'member', false, false, 'all')",
                    room,
                    ids[name],
                    ids["client"],
                )
            for number in range(1, 21):
                stored = await connection.fetchrow(
                    "select o_outcome, o_seq from chat_store(array[$1::uuid], array[$2::uuid],"
                    " array[$3::uuid], array[$4::uuid], array[$5::uuid], array[$6::uuid],"
                    " array['user'], array['alice'], array[$6::text], array[$7::text],"
                    " array[$8::bytea], array[$9::text], array[null::uuid], array['[]'::jsonb],"
                    " array['[]'::jsonb], array['{}'::jsonb], true)",
                    ids["client"],
                    room,
                    *(uuid7(), uuid7(), uuid7()),
                    ids["alice"],
                    str(number),
                    body_hash(_message(room, number)),
                    _message(room, number).content,
                )
                assert stored is not None
                assert (stored["o_outcome"], stored["o_seq"]) == ("stored", number)
    finally:
        await connection.close()
