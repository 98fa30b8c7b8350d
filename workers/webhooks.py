"""Jobs about webhooks: long replays, and what ages out."""

from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy import text

from chatserver.infra.database import Database
from chatserver.infra.job_kinds import REPLAY_EVENTS, TRIM_DELIVERIES
from chatserver.infra.jobs import Claim
from chatserver.kernel.opening import Open
from chatserver.webhooks.endpoints.policies import ATTEMPTS_KEPT_DAYS, KEPT_DAYS
from chatserver.webhooks.endpoints.replays import Replaying
from workers.holding import Handling

SLICE: Final = 2000

_ATTEMPTS: Final = text("""
delete from delivery_attempt where ctid = any (array(
  select ctid from delivery_attempt
  where started_at < clock_timestamp() - make_interval(days => :days)
  limit :limit for update skip locked))
""")
_PARTS: Final = text(_ATTEMPTS.text.replace("delivery_attempt", "delivery_attempt_part"))
_TOLD: Final = text("""
delete from delivery_event where ctid = any (array(
  select ctid from delivery_event
  where received_at < clock_timestamp() - make_interval(days => :days)
  limit :limit for update skip locked))
""")
# Ids hold their time: what is older stands before `below`, and the index of ids finds it.
_DELIVERIES: Final = text("""
delete from delivery where id = any (array(
  select id from delivery where id < :below and settled_at is not null
    and settled_at < clock_timestamp() - make_interval(days => :days)
  order by id limit :limit for update skip locked))
""")
# Whom a delivery was for goes with it, and the request with the last of them.
_RECIPIENTS: Final = text("""
delete from notification_delivery where delivery_id = any (array(
  select nd.delivery_id from notification_delivery nd where nd.delivery_id < :below
    and not exists (select from delivery d where d.id = nd.delivery_id)
  order by nd.delivery_id limit :limit for update skip locked))
""")
_REQUESTS: Final = text("""
delete from notification where id = any (array(
  select n.id from notification n where n.id < :below
    and not exists (select from notification_delivery nd where nd.notification_id = n.id)
  order by n.id limit :limit for update skip locked))
""")
_BATCHES: Final = text("""
delete from notification_batch where id = any (array(
  select b.id from notification_batch b where b.id < :below and b.ended_at is not null
    and not exists (select from notification n where n.batch_id = b.id)
  order by b.id limit :limit for update skip locked))
""")
_DAYS: Final = text("""
delete from delivery_day where day < :day and not exists (
  select from delivery d where d.client_id = delivery_day.client_id and d.id < :below)
""")
# From the oldest on, and without a hole: whoever polls is told where the rest begins.
_EVENTS: Final = text("""
delete from webhook_event e using (
  select n.client_id, (select max(x.seq) from (
    select v.seq, v.created_at from webhook_event v where v.client_id = n.client_id
    order by v.seq limit :limit) x
    where x.created_at < clock_timestamp() - make_interval(days => :days)) as upto
  from webhook_event_number n) old
where e.client_id = old.client_id and e.seq <= old.upto
""")
_GONE: Final = text("""
delete from delivery_target t where t.state = 'deleted'
  and t.since < clock_timestamp() - make_interval(days => :days)
  and not exists (select from delivery d where d.target_id = t.id)
""")
_NOW: Final = text("select clock_timestamp()")


class Resends(Protocol):
    async def replay_slice(self, replaying: Replaying) -> Replaying | None:
        """Do a slice of a replay; what is left, or None."""
        ...


class WebhookJobs:
    def __init__(self, open_replays: Open[Resends], database: Database) -> None:
        self._open_replays = open_replays
        self._database = database

    def handlings(self) -> tuple[Handling, ...]:
        return (
            Handling(REPLAY_EVENTS, self.replay, concurrency=2),
            Handling(TRIM_DELIVERIES, self.trim),
        )

    async def replay(self, claim: Claim) -> None:
        if claim.client_id is None:
            raise ValueError("events are replayed for a client")
        await self.replay_of(claim.client_id, claim.payload)

    async def replay_of(self, client_id: UUID, payload: dict[str, Any]) -> None:
        """Send a range of events again, a slice in each transaction."""
        left: Replaying | None = Replaying(
            client_id,
            UUID(payload["endpoint_id"]),
            int(payload["after"]),
            int(payload["upto"]),
            only_lost=bool(payload["only_lost"]),
            by=str(payload["by"]),
            asked_at=datetime.fromisoformat(payload["asked_at"]),
        )
        while left is not None:
            async with self._open_replays() as replays:
                left = await replays.replay_slice(left)

    async def trim(self, _: Claim) -> None:
        await self.trim_all()

    async def trim_all(self) -> None:
        """Remove what is older than it is kept, in slices."""
        async with self._database.transaction() as session:
            now = (await session.execute(_NOW)).scalar_one()
        below = first_id(now - timedelta(days=KEPT_DAYS))
        await self._all(_ATTEMPTS, {"days": ATTEMPTS_KEPT_DAYS})
        await self._all(_PARTS, {"days": ATTEMPTS_KEPT_DAYS})
        await self._all(_TOLD, {"days": KEPT_DAYS})
        await self._all(_DELIVERIES, {"days": ATTEMPTS_KEPT_DAYS, "below": below})
        await self._all(_RECIPIENTS, {"below": below})
        await self._all(_REQUESTS, {"below": below})
        await self._all(_BATCHES, {"below": below})
        await self._all(_EVENTS, {"days": KEPT_DAYS})
        async with self._database.transaction() as session:
            day = (now - timedelta(days=KEPT_DAYS)).date()
            await session.execute(_DAYS, {"day": day, "below": below})
            await session.execute(_GONE, {"days": KEPT_DAYS})

    async def _all(self, statement: object, values: dict[str, object]) -> None:
        removed = 1
        while removed:
            async with self._database.transaction() as session:
                done = await session.execute(statement, values | {"limit": SLICE})  # type: ignore[call-overload]
                removed = int(done.rowcount)


def first_id(moment: datetime) -> UUID:
    """Give the first id that can be made at a time."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
