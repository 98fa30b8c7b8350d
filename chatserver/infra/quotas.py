"""Hourly and daily quotas of clients: counted in memory, shared by Redis, kept by PostgreSQL.

Nobody waits for a count. A node adds what it counted to Redis once a second and to PostgreSQL every
five; what it knows of the whole is that old, so a quota may be overrun by what all nodes together
let pass within a second.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID

import structlog
from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index
from sqlmodel import Field, SQLModel

from chatserver.infra.database import Database, outages
from chatserver.infra.redis_scripts import RedisAwayError, RedisScripts
from chatserver.kernel.clock import Clock, utc_now
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.tables import time_column, uuid_column

log = structlog.get_logger(__name__)

METRICS: Final = ("messages", "notifications", "ai_tokens", "storage_bytes", "connections")
WINDOWS: Final = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
SHARE_S: Final = 1.0
# Every so many shares are also written to PostgreSQL.
WRITE_EVERY: Final = 5
PREFIX: Final = "cs:quota:"
_FIELDS: Final = {
    (metric, window): f"{metric}_per_{window}" for metric in METRICS for window in WINDOWS
}

Name: TypeAlias = tuple[UUID, str, str]  # client, metric, window


class ClientUsage(SQLModel, table=True):
    """What a client used of something in one hour, or on one day (UTC)."""

    __tablename__ = "client_usage"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        Index("ix_client_usage_starts_at", "starts_at"),
    )

    client_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    metric: str = Field(max_length=32, primary_key=True)
    period: str = Field(max_length=8, primary_key=True)
    starts_at: datetime = Field(
        default=None, sa_column=Column(time_column().type, primary_key=True, nullable=False)
    )
    used: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))


@dataclass(frozen=True, slots=True)
class Use:
    """What is used of a quota; `limit` None: there is none."""

    metric: str
    window: str
    limit: int | None
    used: int
    resets_at: datetime

    @property
    def left(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.used)


@dataclass(slots=True)
class _Count:
    starts_at: datetime
    # Of all nodes, as far as this one knows.
    known: int = 0
    unshared: int = 0
    unwritten: int = 0

    @property
    def used(self) -> int:
        return self.known + self.unshared


_WRITE: Final = """
insert into client_usage (client_id, metric, period, starts_at, used)
select * from unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[])
on conflict (client_id, metric, period, starts_at)
  do update set used = client_usage.used + excluded.used
returning client_id, metric, period, starts_at, used
"""
_READ: Final = """
select metric, period, used from client_usage
where client_id = $1
  and ((period = 'hour' and starts_at = $2) or (period = 'day' and starts_at = $3))
"""


class Quotas:
    """All counts of one node."""

    def __init__(self, database: Database, redis: RedisScripts, *, clock: Clock = utc_now) -> None:
        self._database = database
        self._redis = redis
        self._clock = clock
        self._counts: dict[Name, _Count] = {}
        self._loaded: set[UUID] = set()
        self._starts: dict[str, datetime] = {}
        # What was counted within this hour, at hand; whatever replaces a count empties it.
        self._current: dict[tuple[UUID, str], tuple[_Count, ...]] = {}
        self._since = self._until = datetime.min.replace(tzinfo=UTC)

    def spend(self, client_id: UUID, metric: str, amount: int = 1) -> None:
        """Count something that was done."""
        for count in self._both(client_id, metric):
            count.unshared += amount
            count.unwritten += amount

    def _both(self, client_id: UUID, metric: str) -> tuple[_Count, ...]:
        """Give the counts of this hour and of this day, in the order of `WINDOWS`."""
        now = self._clock()
        if not self._since <= now < self._until:
            self._current.clear()
            self._since = _start("hour", now)
            self._until = self._since + WINDOWS["hour"]
        found = self._current.get((client_id, metric))
        if found is None:
            found = tuple(self._count((client_id, metric, window)) for window in WINDOWS)
            self._current[client_id, metric] = found
        return found

    def exceeded(
        self, client_id: UUID, metric: str, limits: Mapping[str, int | None], amount: int = 1
    ) -> Use | None:
        """Tell which quota `amount` more would exceed; None: go on."""
        for window, count in zip(WINDOWS, self._both(client_id, metric), strict=True):
            limit = limits.get(_FIELDS[metric, window])
            if limit is not None and count.used + amount > limit:
                return self._use((client_id, metric, window), limit)
        return None

    async def uses(self, client_id: UUID, limits: Mapping[str, int | None]) -> list[Use]:
        """Give everything that is counted of a client, with what PostgreSQL knows of it."""
        await self._load(client_id)
        return [
            self._use((client_id, metric, window), limits.get(f"{metric}_per_{window}"))
            for metric in METRICS
            for window in WINDOWS
        ]

    async def run(self) -> None:
        """Share and write until cancelled; then once more."""
        try:
            while True:
                for _ in range(WRITE_EVERY):
                    await asyncio.sleep(SHARE_S)
                    await self.share()
                await self.write()
                self._forget()
        finally:
            await self.write()

    async def share(self) -> None:
        """Add what was counted to Redis, and learn what the others counted."""
        waiting: list[tuple[Name, _Count, int, asyncio.Future[Any]]] = []
        for name, count in self._counts.items():
            if count.unshared == 0:
                continue
            key = _key(name, count.starts_at)
            try:
                added = self._redis.run("INCRBY", key, count.unshared)
                _ = self._redis.run("PEXPIRE", key, int(WINDOWS[name[2]].total_seconds() * 2000))
            except RedisAwayError:
                return
            waiting.append((name, count, count.unshared, added))
        for name, count, amount, added in waiting:
            try:
                total = int(await added)
            except RedisAwayError:
                continue
            count.known = max(count.known + amount, total)
            count.unshared -= amount
            if name[0] not in self._loaded:
                await self._load(name[0])

    async def write(self) -> None:
        """Add what was counted to PostgreSQL. What can't be written waits for the next time."""
        rows = sorted(
            (*name, count.starts_at, count.unwritten)
            for name, count in self._counts.items()
            if count.unwritten
        )
        if not rows:
            return
        try:
            with outages():
                pool = await self._database.fast()
                totals = await pool.fetch(_WRITE, *(list(each) for each in zip(*rows, strict=True)))
        except UnavailableError:
            return
        except Exception as error:  # noqa: BLE001 - a client that is gone must not stop the others
            log.warning("usage_not_written", error=repr(error))
            self._counts = {name: it for name, it in self._counts.items() if not it.unwritten}
            self._current.clear()
            return
        for row in rows:
            count = self._counts[row[:3]]
            if count.starts_at == row[3]:
                count.unwritten -= row[4]
        for total in totals:
            name = (total["client_id"], total["metric"], total["period"])
            kept = self._counts.get(name)
            if kept is not None and kept.starts_at == total["starts_at"]:
                kept.known = max(kept.known, total["used"] - kept.unshared)

    async def _load(self, client_id: UUID) -> None:
        now = self._clock()
        try:
            with outages():
                pool = await self._database.fast()
                rows = await pool.fetch(_READ, client_id, _start("hour", now), _start("day", now))
        except UnavailableError:
            return
        for row in rows:
            count = self._count((client_id, row["metric"], row["period"]))
            written = count.used - count.unwritten
            count.known += max(0, row["used"] - written)
        self._loaded.add(client_id)

    def _use(self, name: Name, limit: int | None) -> Use:
        count = self._count(name)
        resets_at = count.starts_at + WINDOWS[name[2]]
        return Use(name[1], name[2], limit, count.used, resets_at)

    def _start(self, window: str) -> datetime:
        now = self._clock()
        starts = self._starts
        if not starts or not starts["hour"] <= now < starts["hour"] + WINDOWS["hour"]:
            starts = self._starts = {each: _start(each, now) for each in WINDOWS}
        return starts[window]

    def _count(self, name: Name) -> _Count:
        starts_at = self._start(name[2])
        count = self._counts.get(name)
        if count is None or count.starts_at != starts_at:
            # What was not written of the last window is lost: at most a few seconds of it.
            count = self._counts[name] = _Count(starts_at)
        return count

    def _forget(self) -> None:
        """Let go of clients that were not seen in this window."""
        now = self._clock()
        self._counts = {
            name: count
            for name, count in self._counts.items()
            if count.unwritten or count.starts_at == _start(name[2], now)
        }
        self._loaded &= {name[0] for name in self._counts}


def _start(window: str, now: datetime) -> datetime:
    now = now.astimezone(UTC)
    start = now.replace(minute=0, second=0, microsecond=0)
    return start if window == "hour" else start.replace(hour=0)


def _key(name: Name, starts_at: datetime) -> str:
    client_id, metric, window = name
    return f"{PREFIX}{client_id}:{metric}:{window}:{int(starts_at.timestamp())}"
