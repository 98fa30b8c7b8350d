"""Every query about who was absent when something was said."""

from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from chatserver.infra.database import Database, outages
from chatserver.notifications.absences.models import Concerned, Taken

LEASE_S: Final = 60.0
SECOND_LOOK_S: Final = 75.0
# Names that stand for many, and level `all`, notify nobody in larger rooms.
MOST_MEMBERS: Final = 200
COUNTED: Final = 100

# Under the room's lock, so that whoever found the open row there has committed his message; who
# comes later opens another. Rooms that are busy just now are looked at the next time.
_TAKE: Final = """
with due as materialized (
  select id, room_id from message_notice where due_at <= clock_timestamp()
  order by due_at limit $1 for update skip locked
), held as materialized (
  select id, last_seq from room where id in (select room_id from due)
  order by id for no key update skip locked
)
update message_notice n set upto_seq = coalesce(n.upto_seq, held.last_seq),
  attempts = n.attempts + 1, due_at = clock_timestamp() + make_interval(secs => $2)
from due join held on held.id = due.room_id
where n.id = due.id returning n.id, n.room_id, n.attempts, n.is_second
"""
# In rooms of up to 200 every member is looked at, in others those alone who are named.
_CONCERNED: Final = """
with here as materialized (
  select n.id as notice_id, n.client_id, n.room_id, n.from_seq, n.upto_seq,
    r.type as room_type, r.title, r.members_count <= $2 as is_small,
    coalesce(c.settings -> 'message_notifications', '{}') as wish,
    array(select distinct t.name from message q
      cross join lateral jsonb_array_elements_text(q.mentions) t (name)
      where q.room_id = n.room_id and q.seq > 0 and q.seq >= n.from_seq and q.seq <= n.upto_seq
        and q.mentions <> '[]' and not q.silent and q.deleted_at is null) as named
  from message_notice n join room r on r.id = n.room_id and r.deleted_at is null
  join client c on c.id = n.client_id and c.status = 'active'
  where n.id = any ($1)
), seats as (
  select h.*, x.user_id, x.role, x.read_seq, x.min_seq, u.external_id, u.details,
    h.room_type = 'direct' or (h.is_small and x.notification_level = 'all') as wants_all,
    case when h.is_small then array[u.external_id::text, '!everyone', '!role:' || x.role]
      else array[u.external_id::text] end as names
  from here h cross join lateral (
    select m.* from member m where h.is_small and m.room_id = h.room_id
    union all
    select m.* from app_user v join member m on m.room_id = h.room_id and m.user_id = v.id
    where not h.is_small and v.client_id = h.client_id and v.external_id = any (h.named)
  ) x join app_user u on u.id = x.user_id and u.erasing_at is null
  where not x.is_muted and x.notification_level <> 'none' and x.read_seq < h.upto_seq
    and (h.wish ->> 'enabled') is distinct from 'false'
), told as (
  select s.*, s.names && s.named as is_named, greatest(s.read_seq, s.min_seq - 1, coalesce((
    select max(i.upto_seq) from in_app_notification i
    where i.user_id = s.user_id and i.room_id = s.room_id), 0)) as since
  from seats s where s.wants_all or s.names && s.named
)
select t.notice_id, t.client_id, t.room_id, t.room_type, t.title, t.user_id, t.external_id,
  t.details, t.wish, f.count, f.seq as upto_seq, q.id as message_id, q.sender_id,
  case when q.sender = 'user' then coalesce(w.display_name, q.sender_id) end as sender_name,
  left(q.content, 400) as content,
  case when f.is_named then 'mention' when t.room_type = 'direct' then 'direct' else 'all' end
    as why
from told t cross join lateral (
  select count(*) as count, max(g.seq) as seq, bool_or(g.is_named) as is_named from (
    select q.seq, q.mentions ?| t.names as is_named from message q
    where q.room_id = t.room_id and q.seq > 0 and q.seq <= t.upto_seq
      and q.seq > greatest(t.since, case when t.wants_all then 0 else t.from_seq - 1 end)
      and not q.silent and q.deleted_at is null and q.sender_key <> t.user_id::text
      and (t.wants_all or q.mentions ?| t.names)
    order by q.seq desc limit $3) g
) f
join message q on q.room_id = t.room_id and q.seq = f.seq and q.seq > 0
left join app_user w on q.sender = 'user' and w.client_id = t.client_id
  and w.external_id = q.sender_id
where f.count > 0
order by t.room_id, t.user_id
"""
_END: Final = text("""
delete from message_notice where id = any (cast(:ids as bigint[])) and attempts = :attempts
returning id
""")
_AGAIN: Final = text("""
update message_notice set is_second = true, attempts = 0,
  due_at = clock_timestamp() + make_interval(secs => :after)
where id = any (cast(:ids as bigint[])) and attempts = :attempts returning id
""")


class NoticeLookup:
    """The single statements of the worker, on raw connections."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, *, limit: int) -> list[Taken]:
        """Take notices that are due.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        with outages():
            pool = await self._database.writing()
            return [Taken(*row) for row in await pool.fetch(_TAKE, limit, LEASE_S)]

    async def concerned(self, notices: Sequence[int]) -> list[Concerned]:
        """Find whom what was said concerns, and who has not read it.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        with outages():
            pool = await self._database.fast()
            rows = await pool.fetch(_CONCERNED, list(notices), MOST_MEMBERS, COUNTED)
        return [Concerned(**_read(row)) for row in rows]


def _read(row: Any) -> dict[str, Any]:  # noqa: ANN401 - a row
    members = dict(row)
    for name in ("details", "wish"):
        if isinstance(members[name], str):
            members[name] = orjson.loads(members[name])
    return members


class NoticeRepository:
    """Notices of one transaction: only whoever still holds one may end it."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def end(self, taken: Sequence[Taken]) -> set[int]:
        """Remove notices; those that were still held as they were taken."""
        return await self._each(_END, taken)

    async def look_again(self, taken: Sequence[Taken]) -> set[int]:
        """Let notices come back a little later, as second looks; those that were still held."""
        return await self._each(_AGAIN, taken, after=SECOND_LOOK_S)

    async def _each(self, statement: Any, taken: Sequence[Taken], **more: float) -> set[int]:  # noqa: ANN401
        found: set[int] = set()
        for attempts in sorted({each.attempts for each in taken}):
            ids = [each.id for each in taken if each.attempts == attempts]
            done = await self._session.execute(
                statement, {"ids": ids, "attempts": attempts, **more}
            )
            found |= set(done.scalars())
        return found
