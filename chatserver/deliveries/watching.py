"""Whether the ledger balances: what was promised since a day against what is there."""

from datetime import date
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

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


class WatchRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def unbalanced(self, first: date, low: UUID) -> list[tuple[UUID, str, int, int]]:
        """Find books that don't balance since a day: (client, channel, promised, there)."""
        rows = await self._session.execute(_UNBALANCED, {"first": first, "low": low})
        return [(row.client_id, row.channel, row.promised, row.made) for row in rows]
