"""The group commit locks a room only for somebody who may be heard there.

Revision ID: 0100
Revises: 0097
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0100"
down_revision: str | None = "0097"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# A stranger who sends to a room all day must not hold its row: members would wait for it. So who is
# no member is looked up before the lock, and members are looked up once more behind it: who left
# meanwhile is refused there, and who came meanwhile is told that the room was busy, and tried again.
_LOCKED = """      select r.id from room r where r.id = any (p_room) order by r.id"""
# Joined, and not `exists (…) or …`: of that PostgreSQL may make a table of all members there are.
_LOCKED_FOR_MEMBERS = """      select r.id from room r
      where r.id = any (array(
        select s.room_id from unnest(p_room, p_user) s (room_id, user_id)
        left join member m on m.room_id = s.room_id and m.user_id = s.user_id
        where s.user_id is null or m.user_id is not null))
      order by r.id"""
_BUSY = """        when r.id is null and exists (
          select 1 from room x
          where x.id = d.room_id and x.client_id = d.client_id and x.deleted_at is null)
          and not d.room_id = any (coalesce(v_locked, '{}'))
          then 'busy'
        when r.id is null or r.deleted_at is not null then 'room.not_found'
"""
# What a stranger is told needs no lock: it changes nothing, and what is stored stays.
_BUSY_FOR_MEMBERS = """        when r.id is null and not d.room_id = any (coalesce(v_locked, '{}')) and exists (
          select 1 from room x
          where x.id = d.room_id and x.client_id = d.client_id and x.deleted_at is null)
          then case
            when d.user_id is null or m.user_id is not null then 'busy'
            when old.id is not null and old.body_hash = d.hash then 'duplicate'
            when (select x.type from room x where x.id = d.room_id) = 'channel'
              or exists (
                select 1 from departure g where g.room_id = d.room_id and g.user_id = d.user_id)
              then 'room.not_member'
            else 'room.not_found'
          end
        when r.id is null or r.deleted_at is not null then 'room.not_found'
"""
_CHANGES = ((_LOCKED, _LOCKED_FOR_MEMBERS), (_BUSY, _BUSY_FOR_MEMBERS))


def _before() -> str:
    environment = op.get_context().environment_context
    assert environment is not None  # noqa: S101 - migrations/env.py has made it
    made: str = environment.script.get_revision("0031").module.CHAT_STORE
    return made.replace("create function", "create or replace function")


def upgrade() -> None:
    text = _before()
    for old, new in _CHANGES:
        assert old in text  # noqa: S101 - a migration that was released is never edited
        text = text.replace(old, new)
    op.execute(text)


def downgrade() -> None:
    op.execute(_before())
