"""Every query about notifications."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.infra.database import Database, outages
from chatserver.infra.idempotency import remember_made
from chatserver.kernel.paging import EXACT_TOTAL
from chatserver.notifications.requests.models import (
    Notification,
    NotificationContent,
    NotificationDelivery,
    NotificationFile,
)
from chatserver.notifications.requests.policies import GENERAL

# In their order, but first those that are well. One that is to be probed counts as well: somebody
# must try it, if not with what is urgent.
_ROUTES: Final = text("""
select p.channel, array_agg(p.id order by
    case when t.open_until > clock_timestamp() then 1
      when t.state in ('active', 'degraded') then 0
      when t.state = 'paused' and :may_probe then 0 else 1 end, p.position, p.id) as route
from provider p join delivery_target t on t.id = p.id
where p.client_id = :client and p.enabled group by p.channel
""")
_TARGETS: Final = text("""
insert into delivery_target (id, client_id, channel, state, concurrency, is_proven, failures,
  opened, is_draining)
select * from unnest(cast(:ids as uuid[]), cast(:clients as uuid[]), cast(:channels as text[]),
  cast(:states as text[]), cast(:concurrency as int[]), cast(:no as boolean[]),
  cast(:zero as int[]), cast(:zero as int[]), cast(:no as boolean[]))
on conflict (id) do nothing
""")
_STATES: Final = text("""
select d.state, count(*) as n from notification_delivery nd join delivery d on d.id = nd.delivery_id
where nd.notification_id = :id group by d.state
""")
_PAGE: Final = text("""
select d.id, d.channel, d.state, d.reason, d.generation, d.tries, d.next_at, d.expires_at,
  d.created_at, d.settled_at, d.replayed_by, nd.person, nd.address
from notification_delivery nd join delivery d on d.id = nd.delivery_id
where nd.notification_id = :id and (cast(:state as text) is null or d.state = :state)
  and (cast(:after as uuid) is null or (nd.position, d.id) > (
    select b.position, b.delivery_id from notification_delivery b
    where b.notification_id = :id and b.delivery_id = :after))
order by nd.position, d.id limit :limit
""")
_CANCEL: Final = text("""
update delivery d set state = 'cancelled', reason = 'cancelled', settled_at = clock_timestamp()
from notification_delivery nd where nd.notification_id = :id and d.id = nd.delivery_id
  and d.state in ('scheduled', 'queued', 'retry_wait') returning d.id
""")
_MARK: Final = text("""
update notification set cancelled_at = coalesce(cancelled_at, clock_timestamp()) where id = :id
""")
# Whom a message was told to outside of its room. What the application sent names it in its
# metadata; `ids` of deliveries rise with time, so only those since the message are looked at. What
# we put into an inbox stands for all of a room up to a seq, and has no delivery of its own; the
# mail or the push that follows unless it is read waits for its `delivery_id`.
_TRACED: Final = text("""
with stored as materialized (
  select distinct on (u.id) u.external_id as person, i.id, i.delivery_id, i.upto_seq, i.acked_at,
    i.created_at
  from app_user u join in_app_notification i
    on i.user_id = u.id and i.room_id = :room and i.upto_seq >= :seq
  where u.client_id = :client and u.external_id = any (:people)
  order by u.id, i.upto_seq
), sent as (
  select nd.delivery_id from notification_delivery nd
  join notification n on n.id = nd.notification_id
  where nd.client_id = :client and nd.person = any (:people) and nd.delivery_id >= :since
    and n.details ->> 'message_id' = :message
  union
  select nd.delivery_id from stored s join notification_delivery nd
    on nd.instead_of = s.delivery_id and nd.client_id = :client
)
select nd.person as user_id, nd.channel, d.state, d.reason, d.id as delivery_id, d.settled_at,
  null::uuid as notification_id, null::bigint as upto_seq, d.created_at
from sent join notification_delivery nd on nd.delivery_id = sent.delivery_id
join delivery d on d.id = sent.delivery_id
union all
select person, 'socket', case when acked_at is null then 'accepted' else 'delivered' end, null,
  null, created_at, id, upto_seq, created_at
from stored
order by created_at, user_id, channel limit 500
""")
# What follows a notice of messages is met, too, when the message is deleted or its reader removed;
# only our own requests follow such a notice, so that their `message_id` is an id.
# What a sender needs to know, for many at once: whom, what, through whom, and whether still. What a
# person or an address does not want any more is asked here too: much may happen before its time.
_SENDABLE: Final = """
select d.id, n.category, n.priority, nd.person, nd.address, nd.notification_id, nd.unless,
  c.sealed as content, p.id as provider_id, p.kind as provider_kind, p.sealed as provider_config,
  n.created_at, n.expires_at, n.traceparent,
  case nd.unless
    when 'accepted' then f.state in ('accepted', 'delivered')
    when 'delivered' then f.state = 'delivered'
    when 'read' then i.read_at is not null or i.room_id is not null and (
      not exists (select from member m where m.room_id = i.room_id and m.user_id = i.user_id
        and m.read_seq < i.upto_seq)
      or case when i.room_id is not null and n.details ->> 'message_id' is not null
        then exists (select from message q where q.id = (n.details ->> 'message_id')::uuid
          and q.deleted_at is not null) else false end)
    else false end as is_met,
  array(select s.scope || ' ' || s.reason from suppression s
    where s.client_id = d.client_id and s.channel = w.channel and s.address_hash = nd.address_hash
      and (s.expires_at is null or s.expires_at > clock_timestamp())) as against,
  (select p.enabled from app_user u join preference p on p.user_id = u.id
    where n.priority > 0 and u.client_id = d.client_id and u.external_id = nd.person
      and p.channel = w.channel and p.category in (coalesce(n.category, $2), '*')
    order by p.category = '*' limit 1) as is_wanted,
  t.unknowns, t.unknown_since
from unnest($1::uuid[]) with ordinality as given(id, place)
join delivery d on d.id = given.id
join notification_delivery nd on nd.delivery_id = d.id
join notification n on n.id = nd.notification_id
left join notification_content c
  on c.notification_id = nd.notification_id and c.channel = nd.channel
left join provider p on p.id = d.target_id and p.client_id = d.client_id
cross join lateral (
  select case nd.channel when 'forward' then 'webhook' else nd.channel end as channel) w
cross join lateral (
  select count(*) as unknowns, min(a.started_at) as unknown_since from delivery_attempt a
  where d.tries > 1 and a.delivery_id = d.id and a.generation = d.generation
    and a.outcome = 'unknown') t
left join delivery f on f.id = nd.instead_of
left join in_app_notification i
  on i.client_id = d.client_id and i.delivery_id = nd.instead_of
order by given.place
"""
_FORWARD_KEY: Final = """
select sealed, id from provider where client_id = $1 and channel = 'webhook' and enabled
order by position, id limit 1
"""
# To the next provider in the route that is well: the one that failed keeps what it can't pass on.
_REROUTE: Final = """
update delivery d set next_at = clock_timestamp(), target_id = coalesce((
  select p.id from notification_delivery nd
  cross join lateral unnest(nd.route) with ordinality as p(id, place)
  join delivery_target t on t.id = p.id
  where nd.delivery_id = d.id and p.id <> d.target_id and t.state in ('active', 'degraded')
    and (t.open_until is null or t.open_until <= clock_timestamp())
  order by p.place limit 1), d.target_id)
where d.id = any (array(
  select w.id from delivery w join notification_delivery nd on nd.delivery_id = w.id
  where {which} and w.state in ('queued', 'scheduled', 'retry_wait')
    and cardinality(nd.route) > 1 and exists (
      select from unnest(nd.route) as p(id) join delivery_target t on t.id = p.id
      where p.id <> w.target_id and t.state in ('active', 'degraded')
        and (t.open_until is null or t.open_until <= clock_timestamp()))
  limit 1000 for update of w skip locked))
"""
_REROUTE_ONE: Final = _REROUTE.replace("{which}", "w.id = $1")
# What may have arrived stays where it was tried: another would send it again.
_REROUTE_ALL: Final = _REROUTE.replace(
    "{which}",
    "w.channel = $2 and w.target_id = $1 and w.state <> 'scheduled'"
    " and w.reason is distinct from 'unknown_outcome'",
)
# What is planned for a target that has just been stopped, and what waits while another probes it.
_REROUTE_STUCK: Final = _REROUTE.replace(
    "{which}",
    """w.channel = $1 and w.reason is distinct from 'unknown_outcome'
    and (w.state <> 'scheduled' or w.next_at <= clock_timestamp())
    and w.target_id in (
      select s.id from delivery_target s where s.channel = $1
        and (s.state in ('paused', 'disabled', 'deleted') or s.open_until > clock_timestamp())
        and (s.state <> 'paused' or s.open_until > clock_timestamp() or exists (
          select from delivery b where b.target_id = s.id and b.state = 'sending')))""",
)
# Whoever was to be told only if this one did not come so far need not wait any more.
_HASTEN: Final = """
update delivery d set next_at = clock_timestamp() from notification_delivery nd
where nd.instead_of = $1 and d.id = nd.delivery_id and d.state = 'scheduled'
  and d.next_at > clock_timestamp()
"""
# Late events win by their rank, and every one is harmless to hear again.
_SETTLED: Final = """
update delivery set state = $3, reason = null,
  settled_at = coalesce(settled_at, clock_timestamp())
where client_id = $1 and id = any ($2::uuid[]) and state = any ($4::text[])
"""


class NotificationRepository:
    """Notifications of one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def now(self) -> datetime:
        moment: datetime = (
            await self._session.execute(text("select clock_timestamp()"))
        ).scalar_one()
        return moment

    async def routes(self, client_id: UUID, *, may_probe: bool) -> dict[str, list[UUID]]:
        """Read a client's providers by channel, in the order in which they are asked.

        `may_probe`: one that was left in peace for long enough may be tried with this.
        """
        rows = await self._session.execute(_ROUTES, {"client": client_id, "may_probe": may_probe})
        return {row.channel: row.route for row in rows}

    async def traced(
        self,
        client_id: UUID,
        people: Sequence[str],
        *,
        message_id: UUID,
        room_id: UUID,
        seq: int,
        since: datetime,
    ) -> list[dict[str, Any]]:
        """Read what people were notified of because of a message: by us, or by the application."""
        values = {
            "client": client_id,
            "people": list(people),
            "since": UUID(int=int(since.timestamp() * 1000) << 80),
            "message": str(message_id),
            "room": room_id,
            "seq": seq,
        }
        found = await self._session.execute(_TRACED, values)
        return [
            {name: row[name] for name in row if name != "created_at"} for row in found.mappings()
        ]

    async def add(
        self,
        notification: Notification,
        contents: Sequence[NotificationContent],
        deliveries: Sequence[Mapping[str, Any]],
        files: Sequence[NotificationFile],
    ) -> None:
        self._session.add(notification)
        await self._session.flush()
        await remember_made(self._session, notification.id)
        self._session.add_all([*contents, *files])
        await self._session.flush()
        await self._session.execute(insert(NotificationDelivery), list(deliveries))

    async def targets(self, rows: Sequence[tuple[UUID, UUID, str, int]]) -> None:
        """Make targets that are not there yet: (id, client, channel, concurrency)."""
        if not rows:
            return
        await self._session.execute(
            _TARGETS,
            {
                "ids": [row[0] for row in rows],
                "clients": [row[1] for row in rows],
                "channels": [row[2] for row in rows],
                "states": ["active"] * len(rows),
                "concurrency": [row[3] for row in rows],
                "no": [False] * len(rows),
                "zero": [0] * len(rows),
            },
        )

    async def find(self, client_id: UUID, notification_id: UUID) -> Notification | None:
        found: Notification | None = await self._session.scalar(
            select(Notification)
            .where(
                col(Notification.client_id) == client_id, col(Notification.id) == notification_id
            )
            .execution_options(populate_existing=True)
        )
        return found

    async def page(
        self, client_id: UUID, *, category: str | None, offset: int, limit: int
    ) -> tuple[Sequence[Notification], int]:
        """Read a client's notifications, the newest first, and how many there are."""
        where = [col(Notification.client_id) == client_id]
        if category is not None:
            where.append(col(Notification.category) == category)
        rows = await self._session.scalars(
            select(Notification)
            .where(*where)
            .order_by(col(Notification.id).desc())
            .offset(offset)
            .limit(limit)
        )
        counted = await self._session.scalar(
            select(func.count()).select_from(
                select(col(Notification.id)).where(*where).limit(EXACT_TOTAL + 1).subquery()
            )
        )
        return rows.all(), int(counted or 0)

    async def states(self, notification_id: UUID) -> dict[str, int]:
        rows = await self._session.execute(_STATES, {"id": notification_id})
        return {row.state: row.n for row in rows}

    async def deliveries(
        self, notification_id: UUID, *, state: str | None, after: UUID | None, limit: int
    ) -> Sequence[Any]:
        """Read deliveries in the order of their recipients, those behind one of them."""
        values = {"id": notification_id, "state": state, "after": after, "limit": limit}
        return (await self._session.execute(_PAGE, values)).all()

    async def cancel(self, notification_id: UUID) -> int:
        """Cancel what has not been tried to its end; how many it were."""
        done = await self._session.execute(_CANCEL, {"id": notification_id})
        await self._session.execute(_MARK, {"id": notification_id})
        return len(done.all())


class NotificationLookup:
    """The hot path of the channels, on raw connections."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sendable(self, deliveries: Sequence[UUID]) -> dict[UUID, Any]:
        """Read what some deliveries say, and to whom. Absent: there is nothing to send any more.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        with outages():
            pool = await self._database.fast()
            rows = await pool.fetch(_SENDABLE, list(deliveries), GENERAL)
        return {row["id"]: row for row in rows}

    async def forward_key(self, client_id: UUID) -> Any:  # noqa: ANN401 - a row, or None
        """Read what signs webhooks to addresses, sealed."""
        with outages():
            pool = await self._database.fast()
            return await pool.fetchrow(_FORWARD_KEY, client_id)

    async def reroute(self, delivery_id: UUID) -> bool:
        """Give a delivery to the next provider that is well. False: there is none."""
        return await self._execute(_REROUTE_ONE, delivery_id) > 0

    async def reroute_all(self, target_id: UUID, channel: str) -> int:
        """Give all that waits for a provider to others that are well; how many it were."""
        return await self._execute(_REROUTE_ALL, target_id, channel)

    async def reroute_stuck(self, channel: str) -> int:
        """Give what waits for any provider that is stopped to others that are well; how many."""
        return await self._execute(_REROUTE_STUCK, channel)

    async def hasten_fallbacks(self, delivery_id: UUID) -> int:
        """Let what waits instead of a delivery that did not arrive go now; how many it were."""
        return await self._execute(_HASTEN, delivery_id)

    async def settle(
        self, client_id: UUID, deliveries: Sequence[UUID], state: str, *, over: list[str]
    ) -> int:
        """Put deliveries into a state that are in one of `over`; how many it were."""
        return await self._execute(_SETTLED, client_id, list(deliveries), state, over)

    async def _execute(self, statement: str, *values: object) -> int:
        with outages():
            pool = await self._database.writing()
            done = await pool.execute(statement, *values)
        return int(done.rpartition(" ")[2])
