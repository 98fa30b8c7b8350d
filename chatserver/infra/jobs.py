"""Work for later, as rows: PostgreSQL owns what is due, a Dramatiq message only says *look*."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import dramatiq
import orjson
import structlog
from dramatiq.brokers.redis import RedisBroker
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import BigInteger, Column, Index, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, SQLModel

from chatserver.infra import tracing
from chatserver.infra.job_kinds import KINDS, JobKind
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import NOBODY
from chatserver.kernel.tables import json_column, time_column, uuid_column

log = structlog.get_logger()


UNHEARD_RINGS: Final = 100


class Job(SQLModel, table=True):
    """One piece of work. `dedupe` makes planning it twice harmless while it waits or runs."""

    __tablename__ = "job"
    __table_args__ = (
        Index("ix_job_due", "kind", "run_at", postgresql_where=text("state = 'queued'")),
        Index(
            "ix_job_waiting",
            "kind",
            "client_id",
            "run_at",
            postgresql_where=text("state = 'queued'"),
        ),
        Index("ix_job_lease_until", "lease_until", postgresql_where=text("state = 'running'")),
        Index(
            "uq_job_dedupe",
            "kind",
            "dedupe",
            unique=True,
            postgresql_where=text("state in ('queued', 'running')"),
        ),
        Index("ix_job_ended_at", "ended_at", postgresql_where=text("ended_at is not null")),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    kind: str = Field(max_length=64)
    client_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    dedupe: str = Field(max_length=128)
    payload: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    state: str = Field(default="queued", max_length=16)
    attempt: int = 0
    # Rises with every claim: a worker that was taken over can't write any more.
    fence: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    run_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    lease_until: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    error: str | None = None
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    ended_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this process holds until its lease ends."""

    id: UUID
    kind: str
    client_id: UUID | None
    payload: dict[str, Any]
    attempt: int
    fence: int
    lease_s: float
    # The trace that planned it, where anything is traced.
    traceparent: str | None = None


_PLAN = text(
    "insert into job (id, kind, client_id, dedupe, payload, state, attempt, run_at)"
    " values (:id, :kind, :client, :dedupe,"
    "         cast(:payload as jsonb) || cast(:carried as jsonb), 'queued', 0,"
    "         clock_timestamp() + make_interval(secs => :delay))"
    " on conflict (kind, dedupe) where state in ('queued', 'running') do nothing"
)
# Clients take turns: whoever has a thousand jobs waiting gets one, then the next client one. Up to
# 2 x 200 clients are looked at, from the one that had its turn last: one look into an index each.
# Materialized: as a plain sub-select it may be run once per row and then take more than the limit.
_CLAIM = text(
    "with recursive above (client_id) as ("
    "  (select client_id from job where state = 'queued' and kind = :kind"
    "     and client_id > :start order by client_id limit 1)"
    "  union all select (select j.client_id from job j where j.state = 'queued'"
    "     and j.kind = :kind and j.client_id > above.client_id order by j.client_id limit 1)"
    "  from above where above.client_id is not null),"
    " below (client_id) as ("
    "  (select client_id from job where state = 'queued' and kind = :kind"
    "     and client_id <= :start order by client_id limit 1)"
    "  union all select (select j.client_id from job j where j.state = 'queued'"
    "     and j.kind = :kind and j.client_id > below.client_id and j.client_id <= :start"
    "     order by j.client_id limit 1)"
    "  from below where below.client_id is not null),"
    " client_waiting as ((select client_id from above where client_id is not null limit 200)"
    "  union all (select client_id from below where client_id is not null limit 200)),"
    " waiting as ("
    "  select found.id, found.run_at, found.turn from client_waiting c cross join lateral ("
    "    select id, run_at, row_number() over (order by run_at) as turn from ("
    "      select id, run_at from job where state = 'queued' and kind = :kind"
    "        and client_id = c.client_id and run_at <= statement_timestamp()"
    "      order by run_at limit :several) first) found"
    "  union all"
    "  select id, run_at, row_number() over (order by run_at) from ("
    "    select id, run_at from job where state = 'queued' and kind = :kind"
    "      and client_id is null and run_at <= statement_timestamp()"
    "    order by run_at limit :several) nobodys),"
    " due as materialized (select job.id from job join waiting on waiting.id = job.id"
    "   where job.state = 'queued' order by waiting.turn, waiting.run_at limit :limit"
    "   for update of job skip locked)"
    " update job set state = 'running', attempt = attempt + 1, fence = fence + 1,"
    "  lease_until = clock_timestamp() + make_interval(secs => :lease)"
    " from due where job.id = due.id"
    " returning job.id, kind, client_id, payload, attempt, fence"
)
_TAKE = text(
    "update job set state = 'running', attempt = attempt + 1, fence = fence + 1,"
    "  lease_until = clock_timestamp() + make_interval(secs => :lease)"
    " where kind = :kind and dedupe = :dedupe and state = 'queued'"
    " returning id, kind, client_id, payload, attempt, fence"
)
_DUE = text(
    "select kind from unnest(cast(:kinds as text[])) as kind where exists"
    " (select from job where job.state = 'queued' and job.kind = kind.kind"
    "   and job.run_at <= statement_timestamp())"
)
_RENEW = text(
    "update job set lease_until = clock_timestamp() + make_interval(secs => :lease)"
    " where id = :id and fence = :fence and state = 'running' returning id"
)
_END = text(
    "update job set state = cast(:state as text), error = :error, lease_until = null,"
    "  run_at = clock_timestamp() + make_interval(secs => :delay),"
    "  ended_at = case when cast(:state as text) = 'queued' then null else clock_timestamp() end"
    " where id = :id and fence = :fence and state = 'running' returning id"
)
_SWEEP = text(
    "update job set state = case when attempt >= :most then 'failed' else 'queued' end,"
    "  error = 'its worker died', lease_until = null, run_at = clock_timestamp(),"
    "  ended_at = case when attempt >= :most then clock_timestamp() end"
    " where id in (select id from job where state = 'running' and kind = :kind"
    "   and lease_until < statement_timestamp() for update skip locked)"
    " returning id, state"
)


async def plan(
    session: AsyncSession,
    kind: JobKind,
    *,
    dedupe: str,
    client_id: UUID | None = None,
    payload: str = "{}",
    delay_s: float = 0.0,
) -> bool:
    """Queue a job unless the same one waits or runs already. True when a row was made."""
    made = await session.execute(
        _PLAN,
        {
            "id": uuid7(),
            "kind": kind.name,
            "client": client_id,
            "dedupe": dedupe,
            "payload": payload,
            "carried": orjson.dumps(tracing.carried()).decode(),
            "delay": delay_s,
        },
    )
    return bool(made.rowcount)  # type: ignore[attr-defined]  # an insert gives a cursor result


async def take(session: AsyncSession, kind: JobKind, *, dedupe: str) -> Claim | None:
    """Take this very job, due or not. None: it does not wait, or somebody has it."""
    taken = await session.execute(
        _TAKE, {"kind": kind.name, "dedupe": dedupe, "lease": kind.lease_s}
    )
    row = taken.mappings().one_or_none()
    return None if row is None else Claim(**row, lease_s=kind.lease_s)


async def due(session: AsyncSession, names: Sequence[str]) -> list[str]:
    """Tell which of these kinds have something to claim."""
    found = await session.execute(_DUE, {"kinds": list(names)})
    return [row.kind for row in found]


async def claim(
    session: AsyncSession, kind: JobKind, *, limit: int, after: UUID = NOBODY
) -> list[Claim]:
    """Take due jobs, of every client in turn; `after` is a client that had its turn last time.

    The attempt is counted before it runs, so that a poison job ends.
    """
    taken = await session.execute(
        _CLAIM,
        {
            "kind": kind.name,
            "limit": limit,
            # More than are wanted: other workers hold some of them.
            "several": limit * 4,
            "start": after,
            "lease": kind.lease_s,
        },
    )
    return [
        Claim(**row, lease_s=kind.lease_s, traceparent=tracing.taken_from(row["payload"]))
        for row in taken.mappings()
    ]


async def renew(session: AsyncSession, claimed: Claim) -> bool:
    """Prolong a lease. False: it was lost, and whatever this worker still does must not count."""
    kept = await session.execute(
        _RENEW,
        {"id": claimed.id, "fence": claimed.fence, "lease": claimed.lease_s},
    )
    return kept.first() is not None


async def end(
    session: AsyncSession,
    claimed: Claim,
    *,
    state: str,
    error: str | None = None,
    delay_s: float = 0.0,
) -> bool:
    """Record how an attempt ended: `done`, `failed`, or `queued` again after `delay_s`.

    False: the lease was lost meanwhile, and nothing was written.
    """
    ended = await session.execute(
        _END,
        {
            "id": claimed.id,
            "fence": claimed.fence,
            "state": state,
            "error": error,
            "delay": delay_s,
        },
    )
    return ended.first() is not None


async def sweep(session: AsyncSession, kind: JobKind) -> dict[str, int]:
    """Give back the jobs of dead workers, end those that were tried too often; counts by state."""
    swept = await session.execute(_SWEEP, {"kind": kind.name, "most": kind.max_attempts})
    counts: dict[str, int] = {}
    for row in swept.mappings():
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    return counts


class Doorbell:
    """Tells workers to look, by actor name, off the event loop. A lost ring costs one poll."""

    def __init__(self, url: str) -> None:
        client = queue_client(url, timeout_s=1.0)
        self._broker = RedisBroker(client=client, middleware=[])  # type: ignore[no-untyped-call]
        # The rings under way, and whether the same bell was rung again meanwhile.
        self._ringing: dict[str, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_heard = True
        # For metrics.
        self.rung = 0
        self.unheard = 0

    def ring(self, names: Sequence[str]) -> None:
        """Ring for some kinds of job; rings for the same kind are joined while one is under way."""
        for name in names:
            if name in self._ringing:
                self._ringing[name] = True
                continue
            self._ringing[name] = False
            task = asyncio.get_running_loop().create_task(self._ring(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ring(self, name: str) -> None:
        try:
            await self._ring_once(name)
            # Whoever came meanwhile may have committed after the worker had looked.
            while self._ringing[name]:
                self._ringing[name] = False
                await self._ring_once(name)
        finally:
            del self._ringing[name]

    async def _ring_once(self, name: str) -> None:
        try:
            await asyncio.to_thread(self._enqueue, message(name))
        except (RedisError, OSError) as error:
            self.unheard += 1
            if self.is_heard:
                log.warning("doorbell_unheard", job=name, error=type(error).__name__)
            self.is_heard = False
        else:
            self.rung += 1
            if not self.is_heard:
                log.info("doorbell_heard_again", job=name)
            self.is_heard = True

    def _enqueue(self, bell: "dramatiq.Message[Any]") -> None:
        # With no worker about, rings would fill Redis; whoever starts looks at everything anyway.
        if self._broker.client.llen(f"{self._broker.namespace}:{bell.queue_name}") < UNHEARD_RINGS:
            self._broker.enqueue(bell)

    async def close(self) -> None:
        """Wait for rings under way, then let the connections go."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)
        await asyncio.to_thread(self._broker.client.close)


def queue_client(url: str, *, timeout_s: float) -> Redis:
    """Give a Redis client for a broker: one try per command, which takes `timeout_s` at most.

    Dramatiq drops such options when it is given a URL, and then waits for ever on a dead line.
    """
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )


def message(name: str) -> "dramatiq.Message[Any]":
    """Give the message that wakes the workers of a kind of job."""
    kind = KINDS.get(name)
    return dramatiq.Message(
        queue_name=kind.queue if kind else "sweep",
        actor_name=name,
        args=(),
        kwargs={},
        options={},
    )
