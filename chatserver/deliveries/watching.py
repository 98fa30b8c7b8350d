"""Whether deliveries go out and the ledger balances: looked at by a job, read by every node."""

from collections.abc import Mapping
from datetime import date
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from chatserver.infra.database import Database, outages

_FIGURES: Final = text("""
select 'due' as name, count(*)::float8 as value from delivery
where state in ('scheduled', 'queued', 'retry_wait') and next_at <= clock_timestamp()
union all
select 'oldest_due_seconds', coalesce(extract(epoch from clock_timestamp() - min(next_at)), 0)
from delivery where state in ('scheduled', 'queued', 'retry_wait') and next_at <= clock_timestamp()
union all
select 'sending', count(*) from delivery where state = 'sending'
union all
select 'outbox', count(*) from outbox where set_aside_at is null
union all
select 'oldest_outbox_seconds',
  coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)
from outbox where set_aside_at is null
""")
# One statement, and so one moment: what is promised is written with its rows.
_UNBALANCED: Final = text("""
with promised as (
  select client_id, channel, sum(promised) as n from delivery_day where day >= :first
  group by client_id, channel
), made as (
  select client_id, channel, count(*) as n from delivery where id >= :low
  group by client_id, channel
)
select client_id, channel, coalesce(p.n, 0)::bigint as promised, coalesce(m.n, 0) as made
from promised p full join made m using (client_id, channel)
where coalesce(p.n, 0) <> coalesce(m.n, 0)
""")
_KEEP: Final = text("""
insert into delivery_watch (name, value)
select n, v from unnest(cast(:names as text[]), cast(:values as float8[])) as g (n, v)
on conflict (name) do update set value = excluded.value, seen_at = clock_timestamp()
""")
_READ: Final = """
select name, value from delivery_watch where seen_at > clock_timestamp() - interval '1 hour'
"""


class WatchRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def figures(self) -> dict[str, float]:
        """Count what is due, and how long the oldest of it has been."""
        rows = await self._session.execute(_FIGURES)
        return {row.name: row.value for row in rows}

    async def unbalanced(self, first: date, low: UUID) -> list[tuple[UUID, str, int, int]]:
        """Find books that don't balance since a day: (client, channel, promised, there)."""
        rows = await self._session.execute(_UNBALANCED, {"first": first, "low": low})
        return [(row.client_id, row.channel, row.promised, row.made) for row in rows]

    async def keep(self, figures: Mapping[str, float]) -> None:
        await self._session.execute(
            _KEEP, {"names": list(figures), "values": [float(it) for it in figures.values()]}
        )


async def last_seen(database: Database) -> dict[str, float]:
    """Read what was found within the last hour.

    Raises:
        UnavailableError: PostgreSQL is away.
    """
    with outages():
        pool = await database.fast()
        return {row["name"]: row["value"] for row in await pool.fetch(_READ)}
