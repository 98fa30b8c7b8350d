"""Every query about inbound webhooks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.infra.database import Database, outages
from chatserver.kernel.paging import EXACT_TOTAL, PageRequest
from chatserver.webhooks.sources.models import (
    InboundRefusal,
    InboundSecret,
    InboundSource,
)

# How many refusals are kept of a source.
REFUSALS: Final = 20

# Secrets that ended are read for a week longer: the debugger knows them again.
_FIND: Final = """
select s.id, s.client_id, c.slug as client_slug, s.slug, s.scheme, s.signing, s.dedupe, s.url,
  s.tolerance_s, s.rate_per_s, s.rate_burst, s.verified_at is not null as was_verified,
  array(select k.id from inbound_secret k where k.source_id = s.id
    and k.expires_at > clock_timestamp() - interval '7 days' is not false order by k.id) as ids,
  array(select k.sealed from inbound_secret k where k.source_id = s.id
    and k.expires_at > clock_timestamp() - interval '7 days' is not false order by k.id) as sealed,
  array(select k.hint from inbound_secret k where k.source_id = s.id
    and k.expires_at > clock_timestamp() - interval '7 days' is not false order by k.id) as hints,
  array(select k.expires_at <= clock_timestamp() is true from inbound_secret k
    where k.source_id = s.id
    and k.expires_at > clock_timestamp() - interval '7 days' is not false order by k.id) as ended
from client c join inbound_source s on s.client_id = c.id
where c.slug = $1 and s.slug = $2 and c.status = 'active' and s.is_active
"""
_ONE_AT_A_TIME: Final = text("select pg_advisory_xact_lock(hashtextextended(:name, 0))")
_NOTE_REFUSAL: Final = text("""
insert into inbound_refusal (source_id, slot, client_id, reason, explanation, details, count)
select :source, (coalesce((select r.slot from inbound_refusal r where r.source_id = :source
    order by r.at desc limit 1), -1) + 1) % :slots,
  :client, :reason, :explanation, cast(:details as jsonb), :count
on conflict (source_id, slot) do update set at = clock_timestamp(), reason = excluded.reason,
  explanation = excluded.explanation, details = excluded.details, count = excluded.count
""")


@dataclass(frozen=True, slots=True)
class KeptSecret:
    id: UUID
    sealed: bytes = field(repr=False)
    hint: str
    has_ended: bool


@dataclass(frozen=True, slots=True)
class Taker:
    """A source as the inbound door needs it: one row of one statement."""

    id: UUID
    client_id: UUID
    client_slug: str
    slug: str
    scheme: str
    signing: dict[str, Any]
    dedupe: dict[str, Any] | None
    url: str | None
    tolerance_s: int
    rate_per_s: float
    rate_burst: int
    was_verified: bool
    secrets: Sequence[KeptSecret]


class SourceLookup:
    """Finds who takes a request; one statement, no transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, client_slug: str, slug: str) -> Taker | None:
        """Find an active source of an active client."""
        with outages():
            pool = await self._database.fast()
            row = await pool.fetchrow(_FIND, client_slug, slug)
        if row is None:
            return None
        kept = zip(row["ids"], row["sealed"], row["hints"], row["ended"], strict=True)
        return Taker(
            id=UUID(bytes=row["id"].bytes),
            client_id=UUID(bytes=row["client_id"].bytes),
            client_slug=row["client_slug"],
            slug=row["slug"],
            scheme=row["scheme"],
            signing=orjson.loads(row["signing"]),
            dedupe=None if row["dedupe"] is None else orjson.loads(row["dedupe"]),
            url=row["url"],
            tolerance_s=row["tolerance_s"],
            rate_per_s=row["rate_per_s"],
            rate_burst=row["rate_burst"],
            was_verified=row["was_verified"],
            secrets=[KeptSecret(UUID(bytes=it.bytes), *more) for it, *more in kept],
        )


class SourceRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, source: InboundSource) -> bool:
        """Insert a source; False when the client has one of this slug."""
        made = await self._session.execute(
            insert(InboundSource)
            .values(
                **source.model_dump(exclude={"verified_at", "created_at", "updated_at"}),
            )
            .on_conflict_do_nothing(index_elements=["client_id", "slug"])
            .returning(col(InboundSource.id))
        )
        return made.scalar_one_or_none() is not None

    async def find(self, client_id: UUID, source_id: UUID) -> InboundSource | None:
        found = await self._session.execute(
            select(InboundSource)
            .where(col(InboundSource.client_id) == client_id, col(InboundSource.id) == source_id)
            .execution_options(populate_existing=True)
        )
        return found.scalar_one_or_none()

    async def lock(self, client_id: UUID, source_id: UUID) -> InboundSource | None:
        found = await self._session.execute(
            select(InboundSource)
            .where(col(InboundSource.client_id) == client_id, col(InboundSource.id) == source_id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
        return found.scalar_one_or_none()

    async def page(self, client_id: UUID, page: PageRequest) -> tuple[list[InboundSource], int]:
        mine = select(InboundSource).where(col(InboundSource.client_id) == client_id)
        found = await self._session.execute(
            mine.order_by(col(InboundSource.slug)).offset(page.offset).limit(page.size)
        )
        counted = await self._session.execute(
            select(func.count()).select_from(mine.limit(EXACT_TOTAL + 1).subquery())
        )
        return list(found.scalars()), int(counted.scalar_one())

    async def change(self, source: InboundSource, values: dict[str, Any]) -> None:
        await self._session.execute(
            update(InboundSource)
            .where(col(InboundSource.id) == source.id)
            .values(**values, updated_at=func.clock_timestamp())
        )

    async def remove(self, client_id: UUID, source_id: UUID) -> bool:
        """Delete a source with all that came by it."""
        done = await self._session.execute(
            delete(InboundSource)
            .where(col(InboundSource.client_id) == client_id, col(InboundSource.id) == source_id)
            .returning(col(InboundSource.id))
        )
        return done.scalar_one_or_none() is not None

    async def add_secret(self, secret: InboundSecret) -> None:
        self._session.add(secret)
        await self._session.flush()

    async def secrets(self, source_ids: Sequence[UUID]) -> list[InboundSecret]:
        """Give the secrets that live, of some sources, the oldest first."""
        found = await self._session.execute(
            select(InboundSecret)
            .where(
                col(InboundSecret.source_id).in_(source_ids),
                or_(
                    col(InboundSecret.expires_at).is_(None),
                    col(InboundSecret.expires_at) > func.clock_timestamp(),
                ),
            )
            .order_by(col(InboundSecret.id))
            .execution_options(populate_existing=True)
        )
        return list(found.scalars())

    async def end_secrets(self, source_id: UUID, *, but: UUID, in_s: int) -> None:
        """Let the other secrets of a source end, unless they end earlier anyway."""
        ends = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, in_s)
        await self._session.execute(
            update(InboundSecret)
            .where(col(InboundSecret.source_id) == source_id, col(InboundSecret.id) != but)
            .values(expires_at=func.least(func.coalesce(col(InboundSecret.expires_at), ends), ends))
        )

    async def end_secret(self, source_id: UUID, secret_id: UUID) -> None:
        await self._session.execute(
            update(InboundSecret)
            .where(col(InboundSecret.source_id) == source_id, col(InboundSecret.id) == secret_id)
            .values(expires_at=func.clock_timestamp())
        )

    async def note_refusal(
        self,
        client_id: UUID,
        source_id: UUID,
        *,
        reason: str,
        explanation: str,
        details: dict[str, Any],
        count: int,
    ) -> None:
        """Keep why a request was refused; the oldest of the source's few rows goes."""
        # Two at once would take the same place of the ring.
        await self._session.execute(_ONE_AT_A_TIME, {"name": f"inbound_refusal:{source_id}"})
        await self._session.execute(
            _NOTE_REFUSAL,
            {
                "source": source_id,
                "client": client_id,
                "slots": REFUSALS,
                "reason": reason[:32],
                "explanation": explanation[:500],
                "details": orjson.dumps(details).decode(),
                "count": count,
            },
        )

    async def refusals(self, source_id: UUID) -> list[InboundRefusal]:
        found = await self._session.execute(
            select(InboundRefusal)
            .where(col(InboundRefusal.source_id) == source_id)
            .order_by(col(InboundRefusal.at).desc())
        )
        return list(found.scalars())
