"""Generations that no two restores of one backup share, and which version may use a newer schema.

Revision ID: 0130
Revises: 0123
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0130"
down_revision: str | None = "0123"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# A number that only rises by one is given again when the same backup is restored again, and whoever
# saw what was written in between would take new facts for old ones. So it is a time: the seconds
# since 2026, which an integer holds for 68 years.
NEXT = "greatest(g.generation + 1, (extract(epoch from clock_timestamp())::bigint - 1767225600)::integer)"
NOW = """
create or replace function cluster_generation_now() returns integer
language plpgsql volatile security definer
set search_path = public, pg_temp
as $$
declare
  v_system bigint := (select system_identifier from pg_control_system());
  -- The control file tells the new timeline only after the first checkpoint, minutes later.
  v_timeline bigint := ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint;
  v_generation integer;
begin
  select g.generation into v_generation from cluster_generation g
    where g.system_identifier = v_system and g.timeline = v_timeline;
  if found then
    return v_generation;
  end if;
  insert into cluster_generation as g (singleton, generation, system_identifier, timeline)
    values (true, 1, v_system, v_timeline)
    on conflict (singleton) do update set
      generation = {next}, system_identifier = v_system, timeline = v_timeline,
      since = clock_timestamp()
    where (g.system_identifier, g.timeline) is distinct from (v_system, v_timeline);
  select g.generation into strict v_generation from cluster_generation g;
  return v_generation;
end
$$
"""
# For whoever restores a backup into the same PostgreSQL, where nothing else tells that writes are
# gone. Neither the server nor its workers call it.
RAISE = f"""
create function cluster_generation_raise() returns integer
language sql volatile security definer
set search_path = public, pg_temp
as $$
update cluster_generation g set generation = {NEXT}, since = clock_timestamp(),
  system_identifier = (select system_identifier from pg_control_system()),
  timeline = ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint
returning generation
$$
"""
# The oldest version, by its newest revision, that works with this schema. A migration that takes
# away what an older version needs replaces it.
FLOOR = "create function schema_floor() returns text language sql immutable as $$ select '0130' $$"


def upgrade() -> None:
    op.execute(NOW.format(next=NEXT))
    op.execute(RAISE)
    op.execute(FLOOR)
    op.execute("revoke all on function cluster_generation_raise() from public")
    op.execute("revoke all on function schema_floor() from public")


def downgrade() -> None:
    op.execute("drop function schema_floor()")
    op.execute("drop function cluster_generation_raise()")
    op.execute(NOW.format(next="g.generation + 1"))
