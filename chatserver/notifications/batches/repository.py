"""Every query about batches."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.infra.idempotency import remember_made
from chatserver.kernel.paging import EXACT_TOTAL
from chatserver.notifications.batches.models import BatchPart, NotificationBatch

# The batch is the lock: whoever cancels it waits for the part that is under way, and the reverse.
_LOCK: Final = text("""
select id from notification_batch where client_id = :client and id = :id for update
""")
_NEXT: Final = text("""
delete from notification_batch_part where batch_id = :id and no = (
  select min(no) from notification_batch_part where batch_id = :id) returning no, sealed
""")
_PASS: Final = text("""
update notification_batch set state = case when exists (
    select from notification_batch_part where batch_id = :id) then 'running' else 'done' end,
  done = done + :done, skipped = skipped + :skipped, error = null
where id = :id
""")
_CLOSE: Final = text("""
update notification_batch set sealed = null, ended_at = clock_timestamp()
where id = :id and state in ('done', 'cancelled') and ended_at is null
""")
_STOP: Final = text("""
update notification_batch set state = 'cancelled', error = null
where id = :id and state in ('queued', 'running') returning id
""")
_STALL: Final = text("update notification_batch set error = :error where id = :id")
_NOTE: Final = text("update notification set batch_id = :batch where id = :id")
_SENT: Final = text("select id from notification where batch_id = :id order by id")
_STATES: Final = text("""
select d.state, count(*) as n from notification n
join notification_delivery nd on nd.notification_id = n.id join delivery d on d.id = nd.delivery_id
where n.batch_id = :id group by d.state
""")


class BatchRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, batch: NotificationBatch, parts: Sequence[BatchPart]) -> None:
        self._session.add(batch)
        await self._session.flush()
        await remember_made(self._session, batch.id)
        self._session.add_all(parts)
        await self._session.flush()
        await self._session.refresh(batch)

    async def find(self, client_id: UUID, batch_id: UUID) -> NotificationBatch | None:
        found: NotificationBatch | None = await self._session.scalar(
            select(NotificationBatch)
            .where(
                col(NotificationBatch.client_id) == client_id, col(NotificationBatch.id) == batch_id
            )
            .execution_options(populate_existing=True)
        )
        return found

    async def page(
        self, client_id: UUID, *, offset: int, limit: int
    ) -> tuple[Sequence[NotificationBatch], int]:
        mine = select(NotificationBatch).where(col(NotificationBatch.client_id) == client_id)
        rows = await self._session.scalars(
            mine.order_by(col(NotificationBatch.id).desc()).offset(offset).limit(limit)
        )
        counted = await self._session.scalar(
            select(func.count()).select_from(mine.limit(EXACT_TOTAL + 1).subquery())
        )
        return rows.all(), int(counted or 0)

    async def lock(self, client_id: UUID, batch_id: UUID) -> bool:
        found = await self._session.execute(_LOCK, {"client": client_id, "id": batch_id})
        return found.first() is not None

    async def next_part(self, batch_id: UUID) -> Any:  # noqa: ANN401 - a row, or None
        """Take the first part out: (no, sealed); None: there is none left."""
        return (await self._session.execute(_NEXT, {"id": batch_id})).first()

    async def drop_parts(self, batch_id: UUID) -> None:
        await self._session.execute(
            text("delete from notification_batch_part where batch_id = :id"), {"id": batch_id}
        )

    async def note(self, batch_id: UUID, notification_id: UUID) -> None:
        """Say that a notification is a batch's."""
        await self._session.execute(_NOTE, {"batch": batch_id, "id": notification_id})

    async def move_on(self, batch_id: UUID, *, done: int, skipped: int) -> None:
        """Count lines; a batch without further parts is done."""
        await self._session.execute(_PASS, {"id": batch_id, "done": done, "skipped": skipped})
        await self._session.execute(_CLOSE, {"id": batch_id})

    async def stop(self, batch_id: UUID) -> bool:
        """Let a batch end where it stands. False: it has ended."""
        stopped = (await self._session.execute(_STOP, {"id": batch_id})).first() is not None
        if stopped:
            await self._session.execute(_CLOSE, {"id": batch_id})
        return stopped

    async def stall(self, batch_id: UUID, error: str) -> None:
        await self._session.execute(_STALL, {"id": batch_id, "error": error})

    async def notifications(self, batch_id: UUID) -> list[UUID]:
        return list((await self._session.execute(_SENT, {"id": batch_id})).scalars())

    async def states(self, batch_id: UUID) -> dict[str, int]:
        rows = await self._session.execute(_STATES, {"id": batch_id})
        return {row.state: row.n for row in rows}
