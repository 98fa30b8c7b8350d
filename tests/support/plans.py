"""Seeds tables until plans matter, and reads the plans of what the repositories run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import event

from chatserver.infra.database import Database
from chatserver.kernel.ids import uuid7
from tests.support.servers import Database as Address
from tests.support.servers import run

ROOMS = 6_000
PEOPLE = 2_000
MEMBERS_EACH = 4
EVENTS_EACH = 10

_SEED = f"""
insert into client (id, slug, name, status) values
  ('{{client}}', 'big', 'big', 'active'), ('{{other}}', 'small', 'small', 'active');
insert into app_user (id, client_id, external_id)
  select gen_random_uuid(), '{{client}}', 'user-' || n from generate_series(1, {PEOPLE}) n;
insert into room (id, client_id, type, title, external_id, history, is_active, epoch,
    members_count, last_seq, msg_no, created_at, last_event_at, last_activity_at,
    deactivation_check_at)
  select gen_random_uuid(), case when n % 10 = 0 then '{{other}}'::uuid else '{{client}}' end,
    'group', 'room ' || n, 'x-' || n, 'all', true, 1, {MEMBERS_EACH}, {EVENTS_EACH},
    {EVENTS_EACH}, m, m, m, now() + interval '1 day' - n * interval '1 minute'
  from generate_series(1, {ROOMS}) n, lateral (select now() - n * interval '1 minute' as m) t;
insert into member (room_id, user_id, client_id, role, is_muted, is_favorite, notification_level)
  select r.id, u.id, '{{client}}', 'member', false, false, 'mentions'
  from (select id, row_number() over (order by id) as n from room
    where client_id = '{{client}}') r
  join (select id, row_number() over (order by id) as n from app_user) u
    on (u.n + r.n) % {PEOPLE} < {MEMBERS_EACH};
insert into message (id, client_id, room_id, seq, msg_no, sender, sender_key, client_msg_id,
    body_hash, content, status, pinned)
  select gen_random_uuid(), r.client_id, r.id, n, n, 'system', 'system:api', n, '', 'hi',
    'complete', false from room r, generate_series(1, {EVENTS_EACH}) n;
insert into mention (room_id, target, seq, client_id)
  select m.room_id, 'user-' || (m.seq * 7 + length(m.room_id::text)) % {PEOPLE}, m.seq, m.client_id
  from message m;
insert into room_event (room_id, seq, client_id, id, type, actor_type, message_id, created_at)
  select m.room_id, m.seq, m.client_id, gen_random_uuid(), 'message.created', 'system', m.id,
    r.created_at + m.seq * interval '1 second'
  from message m join room r on r.id = m.room_id;
insert into departure (room_id, user_id, client_id, reason, at)
  select gen_random_uuid(), u.id, '{{client}}', 'left', now() - n * interval '1 hour'
  from app_user u, generate_series(1, 5) n;
"""


@dataclass(frozen=True)
class Seeded:
    """A database with many rows, and some of them to ask for."""

    address: Address
    client_id: UUID
    room_id: UUID
    user_id: UUID
    message_id: UUID


def seed(address: Address) -> Seeded:
    async def work() -> Seeded:
        client = uuid7()
        connection = await asyncpg.connect(address.admin_url)
        try:
            await connection.execute(_SEED.format(client=client, other=uuid7()))
            await connection.execute("vacuum analyze")
            row = await connection.fetchrow(
                "select m.room_id, m.user_id, (select q.id from message q"
                "  where q.room_id = m.room_id limit 1) as message_id from member m limit 1"
            )
            assert row is not None
            return Seeded(address, client, row["room_id"], row["user_id"], row["message_id"])
        finally:
            await connection.close()

    return run(work())


@contextmanager
def recorded(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """Note the statements that sessions run, with their values."""
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        statements.append((statement, values))

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def plan_of(address: Address, statement: str, values: Any) -> str:
    """Explain a statement as the application role would run it."""
    connection = await asyncpg.connect(address.app_url)
    try:
        async with connection.transaction():
            rows = await connection.fetch(f"explain {statement}", *values)
    finally:
        await connection.close()
    return "\n".join(row[0] for row in rows)
