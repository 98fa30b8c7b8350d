"""Every query about what came by inbound webhooks, and what was done about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.clients.models import Client
from chatserver.infra.database import Database, outages
from chatserver.infra.job_kinds import RUN_INBOUND
from chatserver.kernel.ids import uuid7
from chatserver.webhooks.sources.models import InboundEffect, InboundEvent, InboundSource

# All that taking a request writes, in one round trip: the event, the job that runs its rules, and
# that the source works. The key is locked so that the source can't go meanwhile.
_KEEP: Final = """
with source as (
  select id from inbound_source where client_id = $2 and id = $3 for key share),
kept as (
  insert into inbound_event
    (id, client_id, source_id, external_id, headers, body, secret_hint, hops, status)
  select $1, $2, id, $4, $5::jsonb, $6, $7, $8, $9 from source
  on conflict (source_id, external_id) do nothing returning id),
noted as (
  update inbound_source set verified_at = clock_timestamp()
  where id = $3 and verified_at is null and exists (select from kept)),
queued as (
  insert into job (id, kind, client_id, dedupe, payload, state, attempt, run_at)
  select $10, $11, $2, id::text, jsonb_build_object('event_id', id), 'queued', 0,
    clock_timestamp() from kept where $9 = 'received'
  on conflict (kind, dedupe) where state in ('queued', 'running') do nothing)
select exists (select from source) as is_there, exists (select from kept) as is_new
"""
_SAME: Final = "select id from inbound_event where source_id = $1 and external_id = $2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A request that is to be kept: a row of `inbound_event`, without what making a model costs."""

    client_id: UUID
    source_id: UUID
    external_id: str
    headers: Mapping[str, str]
    body: bytes
    secret_hint: str
    hops: int
    status: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What a request became: an event of its own, or (not `is_new`) one that came before."""

    id: UUID
    is_new: bool


class Arrivals:
    """Keeps what comes, in one statement under autocommit."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, event: Arrival) -> Kept | None:
        """Keep an event and plan its rules; None: its source is gone by now.

        Raises:
            UnavailableError: PostgreSQL is away; whether it was kept is not known.
        """
        event_id = uuid7()
        with outages():
            pool = await self._database.writing()
            row = await pool.fetchrow(
                _KEEP,
                event_id,
                event.client_id,
                event.source_id,
                event.external_id,
                orjson.dumps(event.headers).decode(),
                event.body,
                event.secret_hint,
                event.hops,
                event.status,
                uuid7(),
                RUN_INBOUND.name,
            )
            if row is None or not row["is_there"]:
                return None
            if row["is_new"]:
                return Kept(event_id, is_new=True)
            # In a statement of its own: the first may have been committed while this waited for it.
            same = await pool.fetchval(_SAME, event.source_id, event.external_id)
        return None if same is None else Kept(UUID(bytes=same.bytes), is_new=False)


class EventRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

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
