"""Every query about sessions: rooms of type `assistant`, joined with their owners' seats."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from chatserver.kernel.paging import EXACT_TOTAL

_SESSION: Final = """
select r.id, r.title, r.is_active, r.msg_no, r.last_activity_at, r.created_at,
  m.is_favorite, m.user_id as owner_id, u.external_id as user_id,
  (select b.bot_id from room_bot b where b.room_id = r.id order by b.added_at, b.bot_id limit 1)
    as bot_id
from member m join room r on r.id = m.room_id join app_user u on u.id = m.user_id
where m.client_id = :client and r.client_id = :client and r.type = 'assistant'
  and r.deleted_at is null and m.role = 'owner'
"""
_OWNED: Final = " and (cast(:owner as uuid) is null or m.user_id = :owner)"
# Within one person's sessions; `position` finds the words as they are, without patterns.
_FOUND: Final = """
  and (cast(:q as text) is null or position(lower(:q) in lower(coalesce(r.title, ''))) > 0
    or exists (select from message x where x.room_id = r.id and x.seq > 0 and x.deleted_at is null
      and position(lower(:q) in lower(x.content)) > 0))
"""
_SEARCH: Final = """
select r.id as session_id, r.title as session_title, x.id as message_id, x.seq, x.sender,
  x.content as text, x.created_at
from member m join room r on r.id = m.room_id join message x on x.room_id = r.id and x.seq > 0
where m.client_id = :client and r.client_id = :client and r.type = 'assistant'
  and r.deleted_at is null and m.role = 'owner'
  and (cast(:owner as uuid) is null or m.user_id = :owner) and x.deleted_at is null
  and position(lower(:q) in lower(x.content)) > 0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """A session as it is stored. `owner_id` is a server id."""

    id: UUID
    title: str | None
    is_active: bool
    msg_no: int
    last_activity_at: datetime
    created_at: datetime
    is_favorite: bool
    owner_id: UUID
    user_id: str
    bot_id: UUID | None


class SessionRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, client_id: UUID, room_id: UUID, owner: UUID | None) -> SessionRow | None:
        """Find a session; of one person, or whosever it is."""
        await self._session.flush()
        found = await self._session.execute(
            text(_SESSION + _OWNED + " and r.id = :room"),
            {"client": client_id, "room": room_id, "owner": owner},
        )
        row = found.mappings().first()
        return None if row is None else SessionRow(**row)

    async def page(
        self, client_id: UUID, owner: UUID | None, *, q: str | None, offset: int, limit: int
    ) -> tuple[list[SessionRow], int]:
        """Read one person's sessions or everybody's, favourites first, and how many there are."""
        values = {"client": client_id, "owner": owner, "q": q, "offset": offset, "limit": limit}
        where = _SESSION + _OWNED + _FOUND
        found = await self._session.execute(
            text(
                where + " order by m.is_favorite desc, r.last_activity_at desc, r.id"
                " offset :offset limit :limit"
            ),
            values,
        )
        return [SessionRow(**row) for row in found.mappings()], await self._count(where, values)

    async def search(
        self, client_id: UUID, owner: UUID | None, *, q: str, offset: int, limit: int
    ) -> tuple[list[dict[str, Any]], int]:
        """Find messages of a person's sessions that hold these words, the latest first."""
        values = {"client": client_id, "owner": owner, "q": q, "offset": offset, "limit": limit}
        found = await self._session.execute(
            text(_SEARCH + " order by x.created_at desc, x.id offset :offset limit :limit"),
            values,
        )
        return [dict(row) for row in found.mappings()], await self._count(_SEARCH, values)

    async def latest_answer(self, client_id: UUID, room_id: UUID) -> UUID | None:
        """Give the message id of the session's last answer that was ever begun."""
        found = await self._session.execute(
            text(
                "select g.message_id from generation g where g.client_id = :client"
                " and g.room_id = :room order by g.created_at desc, g.message_id desc limit 1"
            ),
            {"client": client_id, "room": room_id},
        )
        message_id: UUID | None = found.scalar_one_or_none()
        return message_id

    async def messages(self, room_id: UUID, *, limit: int) -> list[dict[str, Any]]:
        """Read the latest messages of a session in order, for an export."""
        found = await self._session.execute(
            text(
                "select id, sender, content, context, created_at, status, partial_content from ("
                " select * from message where room_id = :room and seq > 0 and deleted_at is null"
                "   and sender in ('user', 'ai') order by seq desc limit :limit) late"
                " order by seq"
            ),
            {"room": room_id, "limit": limit},
        )
        return [dict(row) for row in found.mappings()]

    async def _count(self, statement: str, values: dict[str, Any]) -> int:
        counted = await self._session.execute(
            text(f"select count(*) from (select 1 from ({statement} limit :most) x) y"),  # noqa: S608 - a constant
            {**values, "most": EXACT_TOTAL + 1},
        )
        return int(counted.scalar_one())
