"""Databases that are used again: a copy of ninety empty tables costs more than most tests do.

A test that ends gives its database back: sessions are ended, rows deleted, sequences set back. One
whose schema, grants or settings are not as they were, or that has grown, is not used again.
"""

from typing import Any

import asyncpg

from tests.support.servers import Database, Servers, run

LARGEST_BYTES = 40 * 2**20

# What `chatserver migrate` puts into tables, and how it is put back.
AS_MIGRATED = {
    "alembic_version": None,
    "search_progress": "update search_progress set at = '0001-01-01 00:00:00+00',"
    " room_id = '00000000-0000-0000-0000-000000000000', seq = 0",
}

ALONE = """
select pg_terminate_backend(pid, 5000) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""

# Everything of the database that is not a row: its catalogs, and what belongs to it from outside.
SHAPE = """
with ours as (select * from pg_class where relnamespace = 'public'::regnamespace)
select md5(concat_ws('/',
  (select string_agg(version_num, ',') from alembic_version),
  (select string_agg(concat(oid, relname, relkind, relacl, relowner, reloptions, relrowsecurity),
     ',' order by oid) from ours),
  (select string_agg(concat(attrelid, attname, atttypid, attnotnull, atthasdef),
     ',' order by attrelid, attnum) from pg_attribute a join ours on ours.oid = a.attrelid),
  (select string_agg(concat(oid, xmin, proowner, proacl), ',' order by oid) from pg_proc
     where pronamespace = 'public'::regnamespace),
  (select string_agg(concat(t.oid, t.xmin, t.tgenabled), ',' order by t.oid) from pg_trigger t
     where not t.tgisinternal),
  (select string_agg(concat(oid, xmin), ',' order by oid) from pg_constraint
     where connamespace = 'public'::regnamespace),
  (select string_agg(concat(extname, extversion), ',' order by extname) from pg_extension),
  (select string_agg(nspname, ',' order by nspname) from pg_namespace where nspname !~ '^pg_'),
  (select concat(datallowconn, datconnlimit, datacl) from pg_database
     where datname = current_database()),
  (select string_agg(concat(setrole::regrole, setconfig), ',' order by setrole)
     from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
     where d.datname = current_database())))
"""

EMPTY = """
do $$
declare each regclass;
begin
  -- No trigger counts anything, no key is checked: all of it goes.
  set local session_replication_role = replica;
  for each in
    select oid from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace
      and pg_relation_size(oid) > 0 and relname <> all (array[{kept}])
  loop
    execute format('delete from %s', each);
  end loop;
  perform setval(seqrelid, seqstart, false) from pg_sequence;
end $$
"""


class Recycler:
    """Lends databases of one `Servers`."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._free: list[Database] = []
        self._shapes: dict[str, str] = {}

    def lend(self) -> Database:
        """A migrated database without a row."""
        if self._free:
            return self._free.pop()
        made = self._servers.fresh_database()
        self._shapes[made.name] = run(self._shape(made))
        return made

    def take_back(self, database: Database) -> None:
        if run(self._is_as_new(database)):
            self._free.append(database)
        else:
            self._servers.drop(database)

    async def _shape(self, database: Database) -> str:
        connection = await asyncpg.connect(database.admin_url)
        try:
            return str(await connection.fetchval(SHAPE))
        finally:
            await connection.close()

    async def _is_as_new(self, database: Database) -> bool:
        try:
            connection = await asyncpg.connect(database.admin_url)
        except asyncpg.PostgresError:  # it was dropped, renamed or closed
            return False
        try:
            return await self._empty(connection, self._shapes[database.name])
        finally:
            await connection.close()

    async def _empty(self, connection: "asyncpg.Connection[Any]", shape: str) -> bool:
        await connection.execute(ALONE)
        if await connection.fetchval("select pg_database_size(current_database())") > LARGEST_BYTES:
            return False
        if await connection.fetchval(SHAPE) != shape:
            return False
        await connection.execute(EMPTY.format(kept=", ".join(f"'{name}'" for name in AS_MIGRATED)))
        for put_back in AS_MIGRATED.values():
            if put_back is not None:
                await connection.execute(put_back)
        return True
