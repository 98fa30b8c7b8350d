"""Every query about deliveries but those of the hot path, which are in `queue.py`."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.deliveries.models import Attempt, AttemptPart, Delivery, Planned, Target
from chatserver.deliveries.policies import Change, Health

_PLAN: Final = text("""
insert into delivery (id, client_id, channel, target_id, source_id, source_seq, priority, state,
  next_at, expires_at, attempts, tries, generation, created_at)
select p.id, p.client_id, :channel, p.target_id, p.source_id, p.source_seq, :priority, 'queued',
  clock_timestamp(), clock_timestamp() + make_interval(secs => :deadline), 0, 0, 1,
  clock_timestamp()
from unnest(cast(:ids as uuid[]), cast(:clients as uuid[]), cast(:targets as uuid[]),
  cast(:sources as uuid[]), cast(:seqs as bigint[]))
  as p(id, client_id, target_id, source_id, source_seq)
on conflict (target_id, source_seq) do nothing
returning id, client_id
""")
_KEEP: Final = text("""
insert into delivery (id, client_id, channel, target_id, source_id, priority, state, reason,
  next_at, expires_at, attempts, tries, generation, created_at, settled_at)
select r.id, r.client_id, r.channel, r.target_id, r.source_id, r.priority, r.state, r.reason,
  r.next_at, r.expires_at, 0, 0, 1, clock_timestamp(),
  case when r.is_settled then clock_timestamp() end
from jsonb_to_recordset(cast(:rows as jsonb)) as r (id uuid, client_id uuid, channel text,
  target_id uuid, source_id uuid, priority int, state text, reason text, next_at timestamptz,
  expires_at timestamptz, is_settled boolean)
""")
_PROMISE: Final = text("""
insert into delivery_day as d (client_id, channel, day, promised)
select p.client_id, :channel, p.day, p.n
from unnest(cast(:clients as uuid[]), cast(:days as date[]), cast(:counts as bigint[]))
  as p(client_id, day, n)
order by p.client_id, p.day
on conflict (client_id, channel, day) do update set promised = d.promised + excluded.promised
""")
_HEALTH: Final = text("""
select state, failures, opened, is_proven, is_draining, warned_at is not null as is_warned,
  extract(epoch from clock_timestamp() - first_failure_at)::float8 as failing_s,
  extract(epoch from clock_timestamp() - told_at)::float8 as told_s,
  extract(epoch from clock_timestamp() - since)::float8 as since_s
from delivery_target where id = :target for update
""")
_CHANGE: Final = text("""
update delivery_target set state = cast(:state as text), reason = :reason,
  failures = :failures, opened = :opened,
  since = case when state = cast(:state as text) then since else clock_timestamp() end,
  first_failure_at = case when :failures > 0 then coalesce(first_failure_at, clock_timestamp()) end,
  open_until = case when cast(:open_s as float8) is null then open_until
    when :open_s > 0 then clock_timestamp() + make_interval(secs => :open_s) end,
  is_draining = :is_draining,
  tokens = case when :is_draining and not is_draining then 0 else tokens end,
  tokens_at = case when :is_draining and not is_draining then clock_timestamp() else tokens_at end,
  is_proven = is_proven or :is_well,
  told_at = case when :is_told then clock_timestamp() else told_at end,
  warned_at = case when :is_well then null when :warned then clock_timestamp() else warned_at end
where id = :target
""")
# What failed while its target did is due again at once, in its old place: the oldest go first.
_RELEASE: Final = text("""
update delivery set next_at = created_at where id = any (array(
  select id from delivery where channel = :channel and target_id = :target
    and state in ('scheduled', 'queued', 'retry_wait') and state = 'retry_wait'
    and next_at > created_at order by id limit :limit for update skip locked))
""")
_REPLAY: Final = """
update delivery set state = 'queued', reason = null, generation = generation + 1, attempts = 0,
  tries = 0, next_at = clock_timestamp(), settled_at = null, replayed_by = :by,
  expires_at = clock_timestamp() + make_interval(secs => :deadline)
"""
_REPLAY_ONE: Final = text(
    f"{_REPLAY} where id = :id and client_id = :client and state = any (:settled) and exists"
    " (select from delivery_target t where t.id = target_id) returning id"
)
_HASTEN: Final = text("""
update delivery set next_at = clock_timestamp()
where id = :id and client_id = :client and state in ('scheduled', 'queued', 'retry_wait')
returning id
""")
_REPLAY_SINCE: Final = text(
    f"""{_REPLAY} where id = any (array(
      select id from delivery where client_id = :client and target_id = :target
        and source_seq > :after and source_seq <= :upto and state = any (:settled)
        and settled_at <= :before
      order by source_seq limit :limit for update skip locked)) returning source_seq"""  # noqa: S608
)
_LEDGER: Final = text("""
select channel, 'promised' as state, sum(promised)::bigint as n from delivery_day
where client_id = :client and day >= :first and day <= :last group by channel
union all
select channel, state, count(*) from delivery
where client_id = :client and id >= :low and id < :high group by channel, state
""")


class DeliveryRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def plan(
        self, planned: Sequence[Planned], *, channel: str, priority: int, deadline_s: float
    ) -> list[tuple[UUID, UUID]]:
        """Make deliveries, each once per target and source; those that are new: (id, client)."""
        made = await self._session.execute(
            _PLAN,
            {
                "channel": channel,
                "priority": priority,
                "deadline": deadline_s,
                "ids": [each.id for each in planned],
                "clients": [each.client_id for each in planned],
                "targets": [each.target_id for each in planned],
                "sources": [each.source_id for each in planned],
                "seqs": [each.source_seq for each in planned],
            },
        )
        return [(row.id, row.client_id) for row in made]

    async def keep(self, rows: Sequence[dict[str, Any]]) -> None:
        """Make deliveries as they are described, settled ones too."""
        await self._session.execute(_KEEP, {"rows": orjson.dumps(rows, default=str).decode()})

    async def promise(self, channel: str, counts: dict[tuple[UUID, date], int]) -> None:
        """Count what was promised, by client and day."""
        await self._session.execute(
            _PROMISE,
            {
                "channel": channel,
                "clients": [client for client, _ in counts],
                "days": [day for _, day in counts],
                "counts": list(counts.values()),
            },
        )

    async def lock_health(self, target_id: UUID) -> Health | None:
        """Read a target under its lock."""
        found = (await self._session.execute(_HEALTH, {"target": target_id})).mappings().first()
        return None if found is None else Health(**found)

    async def change(self, target_id: UUID, change: Change, *, is_well: bool) -> None:
        await self._session.execute(
            _CHANGE,
            {
                "target": target_id,
                "state": change.state,
                "reason": change.reason,
                "failures": change.failures,
                "opened": change.opened,
                "open_s": change.open_s,
                "is_draining": change.is_draining,
                "is_well": is_well,
                "is_told": bool(change.told),
                "warned": change.warned,
            },
        )

    async def release(self, channel: str, target_id: UUID, *, limit: int) -> None:
        await self._session.execute(
            _RELEASE, {"channel": channel, "target": target_id, "limit": limit}
        )

    def add_target(self, target: Target) -> None:
        self._session.add(target)

    async def update_target(self, client_id: UUID, target_id: UUID, **values: Any) -> None:  # noqa: ANN401 - columns
        await self._session.execute(
            update(Target)
            .where(col(Target.client_id) == client_id, col(Target.id) == target_id)
            .values(**values)
        )

    async def targets(self, client_id: UUID, ids: Sequence[UUID]) -> dict[UUID, Target]:
        found = await self._session.scalars(
            select(Target)
            .where(col(Target.client_id) == client_id, col(Target.id).in_(ids))
            .execution_options(populate_existing=True)
        )
        return {target.id: target for target in found}

    async def find(self, client_id: UUID, delivery_id: UUID) -> Delivery | None:
        found = await self._session.execute(
            select(Delivery)
            .where(col(Delivery.client_id) == client_id, col(Delivery.id) == delivery_id)
            .execution_options(populate_existing=True)
        )
        return found.scalar_one_or_none()

    async def of_source(self, target_id: UUID, source_seq: int) -> UUID | None:
        found = await self._session.execute(
            select(col(Delivery.id)).where(
                col(Delivery.target_id) == target_id, col(Delivery.source_seq) == source_seq
            )
        )
        return found.scalar_one_or_none()

    async def page(
        self,
        client_id: UUID,
        target_id: UUID,
        *,
        state: str | None,
        before: int | None,
        limit: int,
    ) -> list[Delivery]:
        """Read a target's deliveries, the newest first."""
        where = [col(Delivery.client_id) == client_id, col(Delivery.target_id) == target_id]
        if state is not None:
            where.append(col(Delivery.state) == state)
        if before is not None:
            where.append(col(Delivery.source_seq) < before)
        found = await self._session.scalars(
            select(Delivery)
            .where(*where)
            .order_by(col(Delivery.source_seq).desc())
            .limit(limit)
            .execution_options(populate_existing=True)
        )
        return list(found)

    async def attempts(self, delivery_id: UUID) -> list[Attempt]:
        found = await self._session.scalars(
            select(Attempt)
            .where(col(Attempt.delivery_id) == delivery_id)
            .order_by(col(Attempt.generation), col(Attempt.no))
            .limit(500)
        )
        return list(found)

    async def parts(self, delivery_id: UUID) -> list[AttemptPart]:
        """Read what tries did at each of several addresses."""
        found = await self._session.scalars(
            select(AttemptPart)
            .where(col(AttemptPart.delivery_id) == delivery_id)
            .order_by(col(AttemptPart.generation), col(AttemptPart.no), col(AttemptPart.part_id))
            .limit(500)
        )
        return list(found)

    async def replay(
        self, client_id: UUID, delivery_id: UUID, *, by: str, deadline_s: float, settled: list[str]
    ) -> bool:
        """Queue a settled delivery again; False when it is not settled."""
        done = await self._session.execute(
            _REPLAY_ONE,
            {
                "id": delivery_id,
                "client": client_id,
                "by": by,
                "deadline": deadline_s,
                "settled": settled,
            },
        )
        return done.first() is not None

    async def hasten(self, client_id: UUID, delivery_id: UUID) -> bool:
        """Let a waiting delivery be due now; False when it does not wait."""
        done = await self._session.execute(_HASTEN, {"id": delivery_id, "client": client_id})
        return done.first() is not None

    async def replay_since(  # noqa: PLR0913 - a range has that many ends
        self,
        client_id: UUID,
        target_id: UUID,
        *,
        after: int,
        upto: int,
        before: datetime,
        by: str,
        deadline_s: float,
        settled: list[str],
        limit: int,
    ) -> int:
        """Queue a target's deliveries of a range again that settled before a time; how many."""
        done = await self._session.execute(
            _REPLAY_SINCE,
            {
                "client": client_id,
                "target": target_id,
                "after": after,
                "upto": upto,
                "before": before,
                "by": by,
                "deadline": deadline_s,
                "settled": settled,
                "limit": limit,
            },
        )
        return len(done.all())

    async def counts(
        self, client_id: UUID, *, first: date, last: date, low: UUID, high: UUID
    ) -> list[tuple[str, str, int]]:
        """Count (channel, state, number) of some days, by rows; `promised` as it was counted."""
        found = await self._session.execute(
            _LEDGER,
            {"client": client_id, "first": first, "last": last, "low": low, "high": high},
        )
        return [(row.channel, row.state, row.n) for row in found]

    async def now(self) -> datetime:
        moment: datetime = (
            await self._session.execute(text("select clock_timestamp()"))
        ).scalar_one()
        return moment
