"""Every query about in-app notifications."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.kernel.paging import EXACT_TOTAL
from chatserver.notifications.inbox.models import InAppNotification

_UNREAD: Final = text("""
select u.id as user_id, (select count(*) from (
  select from in_app_notification n where n.user_id = u.id and n.read_at is null
  limit :most) waiting) as n
from unnest(cast(:users as uuid[])) as u(id)
""")


# Whoever has read so far in the room has read what the notification is about.
_SETTLE: Final = text("""
update in_app_notification set read_at = clock_timestamp(),
  acked_at = coalesce(acked_at, clock_timestamp())
where id = any (array(
  select i.id from in_app_notification i
  join member m on m.room_id = i.room_id and m.user_id = i.user_id and m.read_seq >= i.upto_seq
  where i.room_id is not null and i.read_at is null
    and (i.user_id = any (cast(:users as uuid[])) or i.room_id = any (cast(:rooms as uuid[])))
  -- Somebody else does the same to those that are locked.
  for update of i skip locked))
returning client_id, user_id, id, delivery_id
""")
_REPLACED: Final = text("""
delete from in_app_notification i
using unnest(cast(:users as uuid[]), cast(:rooms as uuid[])) as g (user_id, room_id)
where i.user_id = g.user_id and i.room_id = g.room_id and i.read_at is null
returning i.user_id, i.room_id, i.id, i.delivery_id, i.data
""")
# What messages say now, to whoever may still read them.
_SAID: Final = text("""
select q.id, r.type as room_type, r.title, q.sender_id,
  case when q.sender = 'user' then coalesce(u.display_name, q.sender_id) end as sender_name,
  case when q.deleted_at is null then left(q.content, 400) end as content
from message q join room r on r.id = q.room_id and r.deleted_at is null
join member m on m.room_id = r.id and m.user_id = :user and m.min_seq <= q.seq
left join app_user u on q.sender = 'user' and u.client_id = q.client_id
  and u.external_id = q.sender_id
where q.id = any (cast(:messages as uuid[]))
""")


class InboxRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, items: Sequence[InAppNotification]) -> list[InAppNotification]:
        """Insert notifications; those whose delivery put one here before are left out."""
        made = await self._session.execute(
            insert(InAppNotification)
            .values([it.model_dump(exclude={"created_at", "acked_at", "read_at"}) for it in items])
            # Of the same delivery, or of the same room by another worker in this moment.
            .on_conflict_do_nothing()
            .returning(InAppNotification)
        )
        return list(made.scalars())

    async def page(
        self, user_id: UUID, *, before: UUID | None, unread_only: bool, limit: int
    ) -> list[InAppNotification]:
        where = [col(InAppNotification.user_id) == user_id]
        if before is not None:
            where.append(col(InAppNotification.id) < before)
        if unread_only:
            where.append(col(InAppNotification.read_at).is_(None))
        found = await self._session.execute(
            select(InAppNotification)
            .where(*where)
            .order_by(col(InAppNotification.id).desc())
            .limit(limit)
        )
        return list(found.scalars())

    async def unread(self, user_ids: Sequence[UUID]) -> dict[UUID, int]:
        """Count what is unread of some people, of each up to 10,000."""
        found = await self._session.execute(_UNREAD, {"users": list(user_ids), "most": EXACT_TOTAL})
        return {row.user_id: row.n for row in found}

    async def ack(self, user_id: UUID, ids: list[UUID]) -> list[UUID]:
        """Note that a device has them; the deliveries of those that it is new for."""
        noted = await self._session.execute(
            update(InAppNotification)
            .where(
                col(InAppNotification.user_id) == user_id,
                col(InAppNotification.id).in_(ids),
                col(InAppNotification.acked_at).is_(None),
            )
            .values(acked_at=func.clock_timestamp())
            .returning(col(InAppNotification.delivery_id))
        )
        return list(noted.scalars())

    async def read(self, user_id: UUID, ids: list[UUID]) -> dict[UUID, UUID]:
        """Mark some as read; those that it is new for, with their deliveries."""
        return await self._read(user_id, col(InAppNotification.id).in_(ids))

    async def read_all(self, user_id: UUID, up_to: UUID | None) -> dict[UUID, UUID]:
        """Mark all as read, or all until one."""
        if up_to is None:
            return await self._read(user_id)
        return await self._read(user_id, col(InAppNotification.id) <= up_to)

    async def deliveries_of(self, ids: list[UUID]) -> list[UUID]:
        """Give the deliveries that brought some notifications."""
        found = await self._session.execute(
            select(col(InAppNotification.delivery_id)).where(col(InAppNotification.id).in_(ids))
        )
        return list(found.scalars())

    async def _read(self, user_id: UUID, *which: ColumnElement[bool]) -> dict[UUID, UUID]:
        marked = await self._session.execute(
            update(InAppNotification)
            .where(
                col(InAppNotification.user_id) == user_id,
                col(InAppNotification.read_at).is_(None),
                *which,
            )
            # Who has read it has it.
            .values(
                read_at=func.clock_timestamp(),
                acked_at=func.coalesce(col(InAppNotification.acked_at), func.clock_timestamp()),
            )
            .returning(col(InAppNotification.id), col(InAppNotification.delivery_id))
        )
        return {row.id: row.delivery_id for row in marked}

    async def settle(self, *, users: Sequence[UUID], rooms: Sequence[UUID]) -> Sequence[Any]:
        """Mark as read what was read in its room: (client_id, user_id, id, delivery_id)."""
        done = await self._session.execute(_SETTLE, {"users": list(users), "rooms": list(rooms)})
        return done.all()

    async def take_out(self, places: Sequence[tuple[UUID, UUID]]) -> Sequence[Any]:
        """Remove what is unread of some people's rooms: (user_id, room_id, id, delivery_id, data).

        A newer one takes its place.
        """
        gone = await self._session.execute(
            _REPLACED,
            {"users": [user for user, _ in places], "rooms": [room for _, room in places]},
        )
        return gone.all()

    async def said(self, user_id: UUID, messages: Sequence[UUID]) -> dict[UUID, Any]:
        """Read what some messages say now; those that a person may not read are left out."""
        if not messages:
            return {}
        found = await self._session.execute(_SAID, {"user": user_id, "messages": list(messages)})
        return {row.id: row for row in found}

    async def now(self) -> datetime:
        moment: datetime = (
            await self._session.execute(select(func.clock_timestamp()))
        ).scalar_one()
        return moment
