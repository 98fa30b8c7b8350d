"""What waits in the whole deployment, asked of PostgreSQL when the metrics are; by one process."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from chatserver.deliveries.service import first_id
from chatserver.infra.database import Database, outages
from chatserver.infra.figures import gauge
from chatserver.kernel.clock import Clock, utc_now
from chatserver.kernel.errors import UnavailableError
from workers.scheduler import Scheduler

FRESH_S: Final = 5.0
LEDGER_S: Final = 300.0
WITHIN_S: Final = 2.0

# Each gives (figure, labels, value); the partial indexes of what is due make them small.
_JOBS: Final = """
select 'jobs', array[kind, 'due'], count(*)::float8 from job
where state = 'queued' and run_at <= statement_timestamp() group by kind
union all
select 'jobs', array[kind, 'planned'], count(*) from job
where state = 'queued' and run_at > statement_timestamp() group by kind
union all
select 'jobs', array[kind, 'running'], count(*) from job where state = 'running' group by kind
union all
select 'job_oldest_due_seconds', array[kind],
  extract(epoch from statement_timestamp() - min(run_at))::float8 from job
where state = 'queued' and run_at <= statement_timestamp() group by kind
"""
_OUTBOX: Final = """
select 'outbox_rows', array['waiting'], count(*)::float8 from outbox where set_aside_at is null
union all
select 'outbox_rows', array['set_aside'], count(*) from outbox where set_aside_at is not null
union all
select 'outbox_oldest_seconds', array[]::text[],
  coalesce(extract(epoch from statement_timestamp() - min(created_at)), 0)::float8
from outbox where set_aside_at is null
"""
_DELIVERIES: Final = """
with waiting as materialized (
  select channel::text, state::text, count(*)::float8 as n, min(next_at) as since from delivery
  where state in ('scheduled', 'queued', 'retry_wait') group by 1, 2)
select 'deliveries_waiting', array[channel, state], n from waiting
union all
select 'deliveries_waiting', array[channel::text, 'sending'], count(*) from delivery
where state = 'sending' group by channel
union all
select 'delivery_oldest_due_seconds', array[channel],
  greatest(0, extract(epoch from statement_timestamp() - min(since)))::float8
from waiting group by channel
union all
select 'delivery_targets', array[channel::text, state::text], count(*) from delivery_target
where state <> 'deleted' group by channel, state
"""
_ANSWERS: Final = """
select 'answers_running', array[]::text[], count(*)::float8 from generation
where status in ('pending', 'in_progress')
"""
# What was promised on a day and has no row. Ids hold their time; a day's are a range of them.
_LEDGER: Final = """
with days as (
  select d.channel::text, d.promised, kept.n
  from unnest($1::date[], $2::uuid[], $3::uuid[]) as one (day, low, high)
  join delivery_day d on d.day = one.day
  cross join lateral (select count(*) as n from delivery x
    where x.client_id = d.client_id and x.channel = d.channel
      and x.id >= one.low and x.id < one.high) kept)
select 'ledger_promised', array[channel], sum(promised)::float8 from days group by channel
union all
select 'ledger_missing', array[channel], sum(promised - n)::float8 from days group by channel
"""

log = structlog.get_logger(__name__)


class Standing:
    """Looks when somebody asks, at most every few seconds; the ledger every few minutes."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        database: Database,
        scheduler: Scheduler,
        clock: Clock = utc_now,
    ) -> None:
        self._clock = clock
        self._database = database
        self._scheduler = scheduler
        self._looked_at = float("-inf")
        self._ledger_at = float("-inf")
        self._found: list[Any] = []
        self._ledger: list[Any] = []
        self._took_s = 0.0
        registry.register(self)

    async def look(self) -> None:
        """Have the figures be of now; where PostgreSQL is away or too slow, they are missing."""
        if not self._scheduler.is_active:
            self._found, self._ledger = [], []
            return
        began = time.monotonic()
        if began - self._looked_at < FRESH_S:
            return
        self._looked_at = began
        found: list[Any] = []
        for statement in (_JOBS, _OUTBOX, _DELIVERIES, _ANSWERS):
            found += await self._ask(statement)
        self._found = found
        if began - self._ledger_at >= LEDGER_S:
            self._ledger_at = began
            today = self._clock().date()
            days = [today - timedelta(days=1), today]
            low = [first_id(day) for day in days]
            high = [first_id(day + timedelta(days=1)) for day in days]
            self._ledger = await self._ask(_LEDGER, days, low, high)
        self._took_s = time.monotonic() - began

    async def _ask(self, statement: str, *values: object) -> list[Any]:
        try:
            with outages():
                reads = await self._database.fast()
                return list(await reads.fetch(statement, *values, within_s=WITHIN_S))
        except UnavailableError:
            log.info("standing_unknown")
            return []

    def collect(self) -> Iterator[Metric]:
        yield gauge("scheduler_active", float(self._scheduler.is_active))
        if not self._scheduler.is_active:
            return
        families: dict[str, Any] = {}
        for name, labels, value in (*self._found, *self._ledger):
            if name not in families:
                families[name] = gauge(name)
            families[name].add_metric(labels, value)
        yield from families.values()
        yield gauge("standing_seconds", self._took_s)
