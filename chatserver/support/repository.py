"""Every query about the queue of support rooms."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.kernel.paging import EXACT_TOTAL
from chatserver.rooms.models import Room

# Nothing here is stored: the status follows from the last message, so that it can't drift. A
# message after the closing opens the room again. The team is whoever may moderate, but for the
# requester, who owns the room that he made.
_QUEUE: Final = """
with waiting as (
  select r.id, r.created_at, r.closed_at, r.assignee,
    coalesce(r.created_by, first.external_id) as requester,
    last.sender_id, last.created_at as last_at, last.seq as last_seq,
    case
      when last.created_at is null then false
      when last.sender = 'ai' then true
      when last.sender_id = coalesce(r.created_by, first.external_id) then false
      else coalesce((
        select x.role in ('moderator', 'admin', 'owner') from member x
        join app_user u on u.id = x.user_id
        where x.room_id = r.id and u.client_id = r.client_id and u.external_id = last.sender_id),
        true)
    end as by_team
  from room r
  left join lateral (
    select u.external_id from member x join app_user u on u.id = x.user_id
    where r.created_by is null and x.room_id = r.id and x.role in ('guest', 'member')
    order by x.joined_at, x.user_id limit 1) first on true
  left join lateral (
    select m.sender, m.sender_id, m.created_at, m.seq from message m
    where m.room_id = r.id and m.seq > 0 and m.sender <> 'system'
    order by m.seq desc limit 1) last on true
  where r.client_id = :client and r.type = 'support' and r.deleted_at is null
    and (cast(:assignee as text) is null or r.assignee = :assignee)
    and (not :unassigned or r.assignee is null)
    and (cast(:status as text) is not null or r.closed_at is null
      or r.last_activity_at > r.closed_at)
    and (cast(:member as uuid) is null or (r.created_by is distinct from :name and exists (
      select from member x where x.room_id = r.id and x.user_id = :member
        and x.role in ('moderator', 'admin', 'owner'))))
), judged as (
  select *, case
      when closed_at is not null and (last_at is null or last_at <= closed_at) then 'closed'
      when by_team then 'waiting' else 'open' end as status
  from waiting
)
"""
_WHERE: Final = (
    " where status = coalesce(cast(:status as text), status)"
    " and (cast(:status as text) is not null or status <> 'closed')"
)
_PAGE: Final = text(
    _QUEUE  # noqa: S608 - constants of this file
    + "select id, status, requester, assignee, sender_id,"
    + " case when status = 'closed' then closed_at else coalesce(last_at, created_at) end as since"
    + " from judged"
    + _WHERE
    + " order by since, id offset :offset limit :limit"
)
_COUNT: Final = text(
    _QUEUE + "select count(*) from (select from judged" + _WHERE + f" limit {EXACT_TOTAL + 1}) c"  # noqa: S608
)


class SupportRepository:
    """The queue, and the two columns of a room that say who has it and whether it is done."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def now(self) -> datetime:
        moment: datetime = await self._session.scalar(select(func.clock_timestamp()))  # type: ignore[assignment]  # never null
        return moment

    async def flush(self, room: Room) -> None:
        """Write what changed of a locked room and read back what PostgreSQL filled in."""
        await self._session.flush()
        await self._session.refresh(room)

    async def queue(
        self,
        client_id: UUID,
        *,
        status: str | None,
        assignee: str | None,
        unassigned: bool,
        member: tuple[UUID, str] | None,
        offset: int,
        limit: int,
    ) -> tuple[Sequence[Any], dict[UUID, Room], int]:
        """Read a page of the queue, its rooms, and how many there are, longest waiting first.

        `member`: an agent, who sees the rooms that he may moderate; without, all of the client's.
        """
        values = {
            "client": client_id,
            "status": status,
            "assignee": assignee,
            "unassigned": unassigned,
            "member": None if member is None else member[0],
            "name": None if member is None else member[1],
        }
        rows = (
            await self._session.execute(_PAGE, {**values, "offset": offset, "limit": limit})
        ).all()
        rooms = await self._session.scalars(
            select(Room).where(col(Room.id).in_([row.id for row in rows]))
        )
        counted = int(await self._session.scalar(_COUNT, values) or 0)
        return rows, {room.id: room for room in rooms}, counted
