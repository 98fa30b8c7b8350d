"""Every query about how far people have read: single statements on raw connections."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from chatserver.chat.since import UNREAD_MENTIONS
from chatserver.infra.database import Database, OneSession, outages

# The number of the last message that a seq covers; where the log was truncated before it, of the
# one before the first that is left.
_PLACE: Final = """
  select r.*, $3::bigint as wanted, coalesce(
    (select q.msg_no from message q
      where q.room_id = r.id and q.seq > 0 and q.seq <= coalesce($3, r.last_seq)
      order by q.seq desc limit 1),
    (select q.msg_no - (not q.silent)::int from message q
      where q.room_id = r.id and q.seq > 0 and q.seq > coalesce($3, r.last_seq)
      order by q.seq limit 1),
    r.msg_no) as no
  from room r where r.id = $1 and r.client_id = $4 and r.deleted_at is null
"""
# `greatest` in the update itself: two devices, or a send at the same time, never move it back.
_MARK: Final = f"""
with place as ({_PLACE}), moved as (
  update member m set
    read_seq = greatest(m.read_seq, coalesce(p.wanted, p.last_seq)),
    read_msg_no = greatest(m.read_msg_no, p.no),
    marked_unread = false, updated_at = clock_timestamp()
  from place p
  where m.room_id = p.id and m.user_id = $2 and coalesce(p.wanted, 0) <= p.last_seq
    and (m.read_seq < coalesce(p.wanted, p.last_seq) or m.marked_unread)
  returning m.*
), x as (
  select * from moved
  union all
  select m.* from member m
  where m.room_id = $1 and m.user_id = $2 and not exists (select from moved)
)
select r.id, r.type, r.members_count, r.last_seq, r.epoch, x.read_seq,
  greatest(0, r.msg_no - x.read_msg_no) as unread, {UNREAD_MENTIONS} as mentions, x.marked_unread,
  exists (select from moved) as has_moved
from place r join x on true join app_user u on u.id = x.user_id
"""  # noqa: S608 - constants of this file
_UNMARK: Final = f"""
with moved as (
  update member m set marked_unread = true, updated_at = clock_timestamp()
  from room r
  where r.id = $1 and r.client_id = $3 and r.deleted_at is null
    and m.room_id = r.id and m.user_id = $2 and not m.marked_unread
  returning m.*
), x as (
  select * from moved
  union all
  select m.* from member m
  where m.room_id = $1 and m.user_id = $2 and not exists (select from moved)
)
select r.id, r.type, r.members_count, r.last_seq, r.epoch, x.read_seq,
  greatest(0, r.msg_no - x.read_msg_no) as unread, {UNREAD_MENTIONS} as mentions, x.marked_unread,
  exists (select from moved) as has_moved
from room r join x on x.room_id = r.id join app_user u on u.id = x.user_id
where r.id = $1 and r.client_id = $3 and r.deleted_at is null
"""  # noqa: S608
_STATE: Final = f"""
select r.id, r.type, r.members_count, r.last_seq, r.epoch, x.read_seq,
  greatest(0, r.msg_no - x.read_msg_no) as unread, {UNREAD_MENTIONS} as mentions, x.marked_unread,
  false as has_moved
from room r join member x on x.room_id = r.id join app_user u on u.id = x.user_id
where r.id = $1 and x.user_id = $2 and r.client_id = $3 and r.deleted_at is null
"""  # noqa: S608
_TOTALS: Final = f"""
select coalesce(sum(s.unread), 0)::bigint as total_unread,
  coalesce(sum(s.unread) filter (where s.is_muted), 0)::bigint as muted_unread,
  coalesce(sum(s.mentions), 0)::bigint as total_mentions,
  count(*) filter (where s.unread > 0 or s.marked_unread) as unread_rooms
from (
  select greatest(0, r.msg_no - x.read_msg_no) as unread, x.is_muted, x.marked_unread,
    case when r.msg_no > x.read_msg_no then {UNREAD_MENTIONS} else 0 end as mentions
  from member x join room r on r.id = x.room_id join app_user u on u.id = x.user_id
  where x.user_id = $1 and r.deleted_at is null) s
"""  # noqa: S608
_UNREAD: Final = """
select coalesce(sum(greatest(0, r.msg_no - x.read_msg_no)), 0)::bigint
from member x join room r on r.id = x.room_id where x.user_id = $1 and r.deleted_at is null
"""
_OF_ROOMS: Final = """
select m.room_id, u.external_id, m.read_seq from member m
join room r on r.id = m.room_id join app_user u on u.id = m.user_id
where m.room_id = any ($1) and ($2::text[] is null or r.type = any ($2)) and r.members_count <= $3
  and ($4::timestamptz is null or m.updated_at > $4)
order by m.room_id, u.external_id
"""
_READERS: Final = """
select (select count(*) from member m where m.room_id = $1 and m.read_seq >= $2),
  array(select u.external_id from member m join app_user u on u.id = m.user_id
    where m.room_id = $1 and m.read_seq >= $2 order by u.external_id limit $3)
"""


_NOT_READERS: Final = """
select m.user_id, u.external_id, m.is_muted, m.notification_level
from member m join app_user u on u.id = m.user_id
where m.room_id = $1 and m.read_seq < $2 and m.min_seq <= $2 order by u.external_id limit $3
"""
# What is still to be planned of a fact stands in the outbox.
_FACT: Final = """
select e.id, e.created_at, e.actor_type, e.actor_id, o.attempts, o.due_at, o.error, o.set_aside_at
from room_event e left join outbox o on o.client_id = e.client_id and o.fact_id = e.id
where e.room_id = $1 and e.seq = $2 order by o.id limit 1
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """Where a member's pointer is after a command, and what that leaves unread."""

    room_id: UUID
    type: str
    members_count: int
    last_seq: int
    epoch: int
    read_seq: int
    unread: int
    mentions: int
    marked_unread: bool
    has_moved: bool


class PointerRepository:
    """Pointers move by one statement each: no transaction, and no lock of the room."""

    def __init__(self, database: Database | OneSession) -> None:
        self._database = database

    async def mark_read(
        self, client_id: UUID, room_id: UUID, user_id: UUID, seq: int | None
    ) -> Seen | None:
        """Move a pointer forward, at most to the log's end; None for whoever has none there."""
        rows = await self._fetch(_MARK, room_id, user_id, seq, client_id)
        return Seen(*rows[0]) if rows else None

    async def mark_unread(self, client_id: UUID, room_id: UUID, user_id: UUID) -> Seen | None:
        rows = await self._fetch(_UNMARK, room_id, user_id, client_id)
        return Seen(*rows[0]) if rows else None

    async def state(self, client_id: UUID, room_id: UUID, user_id: UUID) -> Seen | None:
        """Read where a pointer is; None for whoever has none there."""
        rows = await self._fetch(_STATE, room_id, user_id, client_id)
        return Seen(*rows[0]) if rows else None

    async def totals(self, user_id: UUID) -> dict[str, int]:
        """Count what a user has not read, over all rooms."""
        [row] = await self._fetch(_TOTALS, user_id)
        return dict(row)

    async def unread(self, user_id: UUID) -> int:
        """Count the messages alone: what each answer about a pointer says."""
        [row] = await self._fetch(_UNREAD, user_id)
        return int(row[0])

    async def readers(self, room_id: UUID, seq: int, *, limit: int) -> tuple[list[str], int]:
        """Read who has read up to a seq, by name up to `limit`, and how many they are."""
        [row] = await self._fetch(_READERS, room_id, seq, limit)
        return row[1], row[0]

    async def not_readers(self, room_id: UUID, seq: int, *, limit: int) -> list[dict[str, Any]]:
        """Read members who may read up to a seq and have not, by name."""
        return [dict(row) for row in await self._fetch(_NOT_READERS, room_id, seq, limit)]

    async def fact(self, room_id: UUID, seq: int) -> dict[str, Any]:
        """Read a row of the log as it is, and what still waits to follow from it."""
        return dict((await self._fetch(_FACT, room_id, seq))[0])

    async def of_rooms(
        self,
        room_ids: Sequence[UUID],
        *,
        types: Sequence[str] | None,
        most: int,
        since: datetime | None = None,
    ) -> dict[UUID, list[dict[str, Any]]]:
        """Read who has read how far, in rooms of at most so many and of these types (None: any)."""
        rows = await self._fetch(_OF_ROOMS, list(room_ids), types, most, since)
        found: dict[UUID, list[dict[str, Any]]] = {}
        for room_id, name, read_seq in rows:
            found.setdefault(room_id, []).append({"user_id": name, "read_seq": read_seq})
        return found

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        with outages():
            pool = await self._database.fast()
            return list(await pool.fetch(statement, *values))
