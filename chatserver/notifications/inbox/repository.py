"""Every query about in-app notifications."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
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


class InboxRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, items: Sequence[InAppNotification]) -> list[InAppNotification]:
        """Insert notifications; those whose delivery put one here before are left out."""
        made = await self._session.execute(
            insert(InAppNotification)
            .values([it.model_dump(exclude={"created_at", "acked_at", "read_at"}) for it in items])
            .on_conflict_do_nothing(index_elements=["client_id", "delivery_id"])
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

    async def now(self) -> datetime:
        moment: datetime = (
            await self._session.execute(select(func.clock_timestamp()))
        ).scalar_one()
        return moment
