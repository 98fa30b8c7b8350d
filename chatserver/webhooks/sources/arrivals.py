"""Every query about what came by inbound webhooks, and what was done about it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.clients.models import Client
from chatserver.webhooks.sources.models import InboundEffect, InboundEvent, InboundSource


class EventRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, event: InboundEvent) -> UUID | None:
        """Insert an event; None when one of this external id came before."""
        made = await self._session.execute(
            insert(InboundEvent)
            .values(
                **event.model_dump(exclude={"received_at", "planned_at", "ended_at", "error"}),
            )
            .on_conflict_do_nothing(index_elements=["source_id", "external_id"])
            .returning(col(InboundEvent.id))
        )
        return made.scalar_one_or_none()

    async def find_external(self, source_id: UUID, external_id: str) -> UUID | None:
        found = await self._session.execute(
            select(col(InboundEvent.id)).where(
                col(InboundEvent.source_id) == source_id,
                col(InboundEvent.external_id) == external_id,
            )
        )
        return found.scalar_one_or_none()

    async def page(
        self, source_id: UUID, *, status: str | None, before: UUID | None, limit: int
    ) -> list[tuple[InboundEvent, int]]:
        """Give events without their bodies, the newest first, each with its body's length."""
        where = [col(InboundEvent.source_id) == source_id]
        if status is not None:
            where.append(col(InboundEvent.status) == status)
        if before is not None:
            where.append(col(InboundEvent.id) < before)
        light = [
            column for column in InboundEvent.__table__.columns  # type: ignore[attr-defined]  # of SQLModel
            if column.name not in {"body", "headers"}
        ]  # fmt: skip
        found = await self._session.execute(
            select(*light, func.length(col(InboundEvent.body)).label("size"))
            .where(*where)
            .order_by(col(InboundEvent.id).desc())
            .limit(limit)
        )
        rows = [dict(row) for row in found.mappings()]
        return [
            (InboundEvent.model_construct(**row, body=b"", headers={}), size)
            for row in rows
            for size in [row.pop("size")]
        ]

    async def find(self, client_id: UUID, source_id: UUID, event_id: UUID) -> InboundEvent | None:
        found = await self._session.execute(
            select(InboundEvent).where(
                col(InboundEvent.client_id) == client_id,
                col(InboundEvent.source_id) == source_id,
                col(InboundEvent.id) == event_id,
            )
        )
        return found.scalar_one_or_none()

    async def latest(self, source_id: UUID) -> InboundEvent | None:
        found = await self._session.execute(
            select(InboundEvent)
            .where(col(InboundEvent.source_id) == source_id)
            .order_by(col(InboundEvent.id).desc())
            .limit(1)
        )
        return found.scalar_one_or_none()

    async def lock(self, event_id: UUID) -> InboundEvent | None:
        """Lock an event; only for work that got its id from a row."""
        found = await self._session.execute(
            select(InboundEvent)
            .where(col(InboundEvent.id) == event_id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
        return found.scalar_one_or_none()

    async def ended(self, client_id: UUID, source_id: UUID, event_id: UUID) -> InboundEvent | None:
        """Lock an event that nothing works on."""
        found = await self._session.execute(
            select(InboundEvent)
            .where(
                col(InboundEvent.client_id) == client_id,
                col(InboundEvent.source_id) == source_id,
                col(InboundEvent.id) == event_id,
                col(InboundEvent.status).not_in(("received", "running")),
            )
            .with_for_update()
        )
        return found.scalar_one_or_none()

    async def dead(self, source_id: UUID, limit: int) -> list[InboundEvent]:
        """Lock dead events, the oldest first."""
        found = await self._session.execute(
            select(InboundEvent)
            .where(col(InboundEvent.source_id) == source_id, col(InboundEvent.status) == "dead")
            .order_by(col(InboundEvent.id))
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return list(found.scalars())

    async def source_of(self, event: InboundEvent) -> tuple[InboundSource, str]:
        """Give the source of an event, and the slug of its client."""
        found = await self._session.execute(
            select(InboundSource, col(Client.slug))
            .join(Client, col(Client.id) == col(InboundSource.client_id))
            .where(
                col(InboundSource.client_id) == event.client_id,
                col(InboundSource.id) == event.source_id,
            )
        )
        source, slug = found.one()
        return source, slug

    async def effects(self, event_id: UUID) -> list[InboundEffect]:
        """Give what an event leads to, in the order of doing it."""
        found = await self._session.execute(
            select(InboundEffect)
            .where(col(InboundEffect.event_id) == event_id)
            .order_by(col(InboundEffect.turn), col(InboundEffect.rule), col(InboundEffect.place))
            .execution_options(populate_existing=True)
        )
        return list(found.scalars())

    async def plan(self, effects: Sequence[dict[str, Any]]) -> None:
        """Keep what is to be done; what was done before under the same key stays as it is."""
        if effects:
            await self._session.execute(
                insert(InboundEffect).values(list(effects)).on_conflict_do_nothing()
            )

    async def forget_undone(self, event_id: UUID) -> None:
        await self._session.execute(
            delete(InboundEffect).where(
                col(InboundEffect.event_id) == event_id, col(InboundEffect.state) != "done"
            )
        )

    async def lock_effect(self, effect: InboundEffect) -> InboundEffect | None:
        """Lock an effect that is still to be done; None when somebody did it meanwhile."""
        found = await self._session.execute(
            select(InboundEffect)
            .where(
                col(InboundEffect.event_id) == effect.event_id,
                col(InboundEffect.rule) == effect.rule,
                col(InboundEffect.place) == effect.place,
                col(InboundEffect.state) == "planned",
            )
            .with_for_update()
            .execution_options(populate_existing=True)
        )
        return found.scalar_one_or_none()

    async def settle(self, made: InboundEffect) -> None:
        """Let what the event says in a room by its name go to the room that was just made."""
        name = col(InboundEffect.arguments)["room_external_id"].astext
        await self._session.execute(
            update(InboundEffect)
            .where(
                col(InboundEffect.event_id) == made.event_id,
                col(InboundEffect.state) == "planned",
                col(InboundEffect.room_id).is_(None),
                name == made.arguments["external_id"],
            )
            .values(room_id=made.room_id)
            .execution_options(synchronize_session=False)
        )

    async def flush(self) -> None:
        await self._session.flush()

    def moment(self) -> Any:  # noqa: ANN401 - stands for a datetime in the row that is written
        """Give what PostgreSQL's clock says when the row is written; not to be read before."""
        return func.clock_timestamp()
