"""Queries about many of a client's deliveries at once: those that a filter leaves."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from chatserver.deliveries.schemas import DeliveryFilter
from chatserver.kernel.principal import NOBODY

# Ids hold their time: a client's deliveries of some days are a range of one index.
_WHERE: Final = """
d.client_id = :client and d.id >= :low and d.id < :high
  and (cast(:channel as text) is null or d.channel = :channel)
  and (cast(:reason as text) is null or d.reason = :reason)
  and (cast(:provider as uuid) is null or d.target_id = :provider)
  and (cast(:notification as uuid) is null or d.source_id = :notification)
"""
_COLUMNS: Final = """
d.id, d.channel, d.target_id, d.source_id, d.source_seq, d.state, d.reason, d.generation, d.tries,
  d.next_at, d.expires_at, d.created_at, d.settled_at, d.replayed_by
"""


def provider_of(target: str) -> str:
    """Write in SQL which provider or endpoint a target of a delivery `d` is.

    What goes to any address of its own has none, nor what could go nowhere: its target is nobody.
    """
    return f"case when d.channel not in ('socket', 'forward') then nullif({target}, '{NOBODY}') end"


PROVIDER: Final = provider_of("d.target_id")
_PAGE: Final = text(f"""
select {_COLUMNS} from delivery d where {_WHERE}
  and (cast(:states as text[]) is null or d.state = any (:states))
order by d.id desc limit :limit
""")  # noqa: S608 - constants of this file
_FORWARD: Final = text(f"""
select {_COLUMNS}, {PROVIDER} as provider_id, nd.person from delivery d
left join notification_delivery nd on nd.delivery_id = d.id
where {_WHERE} and (cast(:states as text[]) is null or d.state = any (:states))
  and d.id > :after order by d.id limit :limit
""")  # noqa: S608
_CANCEL: Final = text(f"""
update delivery set state = 'cancelled', reason = 'cancelled', settled_at = clock_timestamp()
where id = any (array(
  select d.id from delivery d where {_WHERE}
    and d.state in ('scheduled', 'queued', 'retry_wait')
    and (cast(:states as text[]) is null or d.state = any (:states))
  order by d.id limit :limit for update skip locked)) returning id
""")  # noqa: S608
# What has nowhere to go (no address, no provider) is not sent by asking again.
_REPLAY: Final = text(f"""
update delivery set state = 'queued', reason = null, generation = generation + 1, attempts = 0,
  tries = 0, next_at = clock_timestamp(), settled_at = null, replayed_by = :by,
  expires_at = clock_timestamp() + make_interval(secs => :deadline)
where id = any (array(
  select d.id from delivery d join delivery_target t on t.id = d.target_id and t.state <> 'deleted'
  where {_WHERE} and d.state = any (:states) and d.settled_at <= :before
  order by d.id limit :limit for update of d skip locked)) returning id
""")  # noqa: S608
_DAY: Final = """
(to_timestamp(('x' || left(replace(d.id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
  at time zone 'UTC')::date
""".replace("::", "\\:\\:")
_STATES: Final = text(f"""
select {_DAY} as day, d.channel, {PROVIDER} as provider_id, d.state, count(*) as n
from delivery d where {_WHERE} group by 1, 2, 3, 4
""")  # noqa: S608
# From when it was to go out until it was settled; what waited as a fallback says nothing of speed.
_TAKEN: Final = text(f"""
select {_DAY} as day, d.channel, {PROVIDER} as provider_id, count(*) as n,
  percentile_cont(array[0.5, 0.95, 0.99]) within group (order by extract(epoch from
    d.settled_at - greatest(d.created_at, coalesce(n.scheduled_at, d.created_at))) * 1000) as ms
from delivery d left join notification n on n.id = d.source_id and n.client_id = d.client_id
where {_WHERE} and d.state in ('accepted', 'delivered') and d.generation = 1 and d.tries > 0
  and not exists (select from notification_delivery nd
    where nd.delivery_id = d.id and nd.unless is not null)
group by 1, 2, 3
""")  # noqa: S608
_TRIES: Final = text(f"""
select {_DAY} as day, d.channel, {provider_of("a.target_id")} as provider_id,
  count(*) as n, count(*) filter (where a.outcome = 'accepted') as taken,
  percentile_cont(array[0.5, 0.95, 0.99]) within group (order by a.latency_ms) as ms
from delivery d join delivery_attempt a on a.delivery_id = d.id
where {_WHERE} group by 1, 2, 3
""")  # noqa: S608


class SelectionRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def page(
        self, client_id: UUID, wanted: DeliveryFilter, *, before: UUID | None, limit: int
    ) -> Sequence[Any]:
        """Read a page, the newest first."""
        values = _values(client_id, wanted)
        if before is not None:
            values["high"] = min(values["high"], before)
        found = await self._session.execute(
            _PAGE, {**values, "states": wanted.states, "limit": limit}
        )
        return found.all()

    async def onwards(
        self, client_id: UUID, wanted: DeliveryFilter, *, after: UUID, limit: int
    ) -> Sequence[Any]:
        """Read a page, the oldest first, each with the person it is for."""
        found = await self._session.execute(
            _FORWARD,
            {
                **_values(client_id, wanted),
                "states": wanted.states,
                "after": after,
                "limit": limit,
            },
        )
        return found.all()

    async def cancel(self, client_id: UUID, wanted: DeliveryFilter, *, limit: int) -> int:
        done = await self._session.execute(
            _CANCEL, {**_values(client_id, wanted), "states": wanted.states, "limit": limit}
        )
        return len(done.all())

    async def replay(
        self,
        client_id: UUID,
        wanted: DeliveryFilter,
        *,
        states: Sequence[str],
        before: datetime,
        by: str,
        deadline_s: float,
        limit: int,
    ) -> int:
        """Queue settled deliveries again that settled up to a time; how many."""
        done = await self._session.execute(
            _REPLAY,
            {
                **_values(client_id, wanted),
                "states": list(states),
                "before": before,
                "by": by,
                "deadline": deadline_s,
                "limit": limit,
            },
        )
        return len(done.all())

    async def states(self, client_id: UUID, wanted: DeliveryFilter) -> Sequence[Any]:
        """Count by day, channel, provider and state."""
        return (await self._session.execute(_STATES, _values(client_id, wanted))).all()

    async def taken(self, client_id: UUID, wanted: DeliveryFilter) -> Sequence[Any]:
        """Tell by day, channel and provider how long it took until deliveries were accepted."""
        return (await self._session.execute(_TAKEN, _values(client_id, wanted))).all()

    async def tries(self, client_id: UUID, wanted: DeliveryFilter) -> Sequence[Any]:
        """Tell by day, channel and provider how single tries went."""
        return (await self._session.execute(_TRIES, _values(client_id, wanted))).all()

    async def now(self) -> datetime:
        moment: datetime = (
            await self._session.execute(text("select clock_timestamp()"))
        ).scalar_one()
        return moment


def first_id(moment: datetime) -> UUID:
    """Give the first id that can be made at a time."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def whole_days(first: date, last: date) -> tuple[datetime, datetime]:
    """Give when the first of some days (UTC) begins, and when the last one is over."""
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    return start, datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)


def _values(client_id: UUID, wanted: DeliveryFilter) -> dict[str, Any]:
    return {
        "client": client_id,
        "low": UUID(int=0) if wanted.from_ is None else first_id(wanted.from_),
        "high": UUID(int=(1 << 128) - 1) if wanted.to is None else first_id(wanted.to),
        "channel": wanted.channel,
        "reason": wanted.reason,
        "provider": wanted.provider_id,
        "notification": wanted.notification_id,
    }
