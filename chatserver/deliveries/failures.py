"""Tells clients of what was lost, some minutes' worth at a time, and never of that telling."""

from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from chatserver.deliveries.events import FailedData, LostOut, failed
from chatserver.deliveries.selection import PROVIDER
from chatserver.infra.unit_of_work import Recorder

EVERY_S: Final = 600.0
# What settled a moment ago may not be committed yet.
LAG_S: Final = 5.0
ITEMS: Final = 50

_FOLLOWING: Final = text("""
select id from client where status = 'active' and 'delivery.failed' = any (followed)
""")
_BEGIN: Final = text("""
insert into delivery_failure_told (client_id) values (:client) on conflict do nothing
""")
_SINCE: Final = text("""
select upto, clock_timestamp() - make_interval(secs => :lag) as until,
  extract(epoch from clock_timestamp() - upto) >= :every as is_time
from delivery_failure_told where client_id = :client for update skip locked
""")
_LOST: Final = text(f"""
select channel, {PROVIDER} as provider,
  state, reason, count(*) as n, (array_agg(id order by settled_at desc))[1:5] as some
from delivery d
where client_id = :client and state in ('failed', 'expired', 'bounced') and channel <> 'webhook'
  and settled_at > :since and settled_at <= :until
group by 1, 2, 3, 4 order by n desc, 1, 2, 3, 4
""")  # noqa: S608 - a constant
_TOLD: Final = text("""
update delivery_failure_told set upto = :until where client_id = :client
""")


class FailureService:
    """Failures of one transaction."""

    def __init__(self, session: AsyncSession, recorder: Recorder) -> None:
        self._session = session
        self._recorder = recorder

    async def following(self) -> list[UUID]:
        """Give the clients that have an endpoint for this."""
        return list((await self._session.execute(_FOLLOWING)).scalars())

    async def tell(self, client_id: UUID, *, every_s: float = EVERY_S, lag_s: float = LAG_S) -> int:
        """Tell a client what it lost since the last time, unless that was just now; how many.

        Who begins to follow hears of what is lost from then on.
        """
        await self._session.execute(_BEGIN, {"client": client_id})
        when = (
            await self._session.execute(
                _SINCE, {"client": client_id, "lag": lag_s, "every": every_s}
            )
        ).first()
        if when is None or not when.is_time:
            return 0
        rows = (
            await self._session.execute(
                _LOST, {"client": client_id, "since": when.upto, "until": when.until}
            )
        ).all()
        if not rows:
            return 0
        count: int = sum(row.n for row in rows)
        data = FailedData(
            since=when.upto,
            until=when.until,
            count=count,
            items=[
                LostOut(
                    channel=row.channel,
                    provider_id=row.provider,
                    state=row.state,
                    reason=row.reason,
                    count=row.n,
                    delivery_ids=list(row.some),
                )
                for row in rows[:ITEMS]
            ],
        )
        self._recorder.record(failed(client_id, data))
        await self._session.execute(_TOLD, {"client": client_id, "until": when.until})
        return count
