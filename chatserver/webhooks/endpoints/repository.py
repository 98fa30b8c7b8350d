"""Every query about endpoints, their secrets and events."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.deliveries.models import Target
from chatserver.infra.database import Database, outages
from chatserver.kernel.paging import EXACT_TOTAL, PageRequest
from chatserver.webhooks.endpoints.models import Endpoint, EndpointSecret, Event
from chatserver.webhooks.endpoints.policies import Wish, types_of

# The lock of this row, held until the commit, makes numbers visible in their order.
_NUMBER: Final = text("""
insert into webhook_event_number as n (client_id, last_seq) values (:client, :count)
on conflict (client_id) do update set last_seq = n.last_seq + excluded.last_seq
returning last_seq
""")
_ADD: Final = text("""
insert into webhook_event (client_id, seq, id, type, room_id, room_type, room_seq, actor_type,
  actor_id, data, only_endpoint_id, hops, created_at)
select client_id, seq, id, type, room_id, room_type, room_seq, actor_type, actor_id, data,
  only_endpoint_id, hops, coalesce(created_at, clock_timestamp())
from jsonb_to_recordset(cast(:events as jsonb)) as e (client_id uuid, seq bigint, id uuid,
  type text, room_id uuid, room_type text, room_seq bigint, actor_type text, actor_id text,
  data jsonb, only_endpoint_id uuid, hops smallint, created_at timestamptz)
on conflict (client_id, id) do nothing
""")
_FOLLOW: Final = text("update client set followed = :types where id = :client")
_ROOM_TYPES: Final = text("select id, type from room where id = any (:rooms)")
_PREVIOUS: Final = text("""
update webhook_secret set expires_at = least(coalesce(expires_at, 'infinity'),
  clock_timestamp() + make_interval(secs => :overlap))
where endpoint_id = :endpoint and (expires_at is null or expires_at > clock_timestamp())
returning expires_at
""")
_WISHES: Final = """
select e.id, e.client_id, e.events, e.room_ids, e.room_types, e.bot_ids,
  t.state not in ('disabled', 'deleted') as is_served
from webhook_endpoint e join delivery_target t on t.id = e.id
where e.client_id = any (:clients) and e.deleted_at is null
"""
_TRACED: Final = text("""
select e.id as endpoint_id, d.id as delivery_id, coalesce(d.state, '') as state, d.reason,
  coalesce(d.tries, 0) as attempts, d.next_at, d.settled_at
from webhook_endpoint e
left join webhook_event v on v.client_id = e.client_id and v.id = :event
left join delivery d on d.target_id = e.id and d.source_seq = v.seq
where e.client_id = :client and e.deleted_at is null order by e.id limit 500
""")
# What is needed to send some deliveries, for many at once.
_SENDABLE: Final = """
select p.place, v.seq, v.id, v.type, v.room_id, v.room_seq, v.actor_type, v.actor_id, v.data,
  v.hops, v.created_at, e.id as endpoint_id, e.url, e.deleted_at is not null as is_deleted,
  array(select s.id from webhook_secret s where s.endpoint_id = e.id
    and (s.expires_at is null or s.expires_at > clock_timestamp())) as secret_ids
from unnest($1::uuid[], $2::bigint[], $3::uuid[]) with ordinality
  as p(client_id, seq, endpoint_id, place)
join webhook_event v on v.client_id = p.client_id and v.seq = p.seq
join webhook_endpoint e on e.client_id = p.client_id and e.id = p.endpoint_id
"""
_SECRETS: Final = """
select id, client_id, endpoint_id, sealed from webhook_secret
where endpoint_id = any ($1::uuid[]) and (expires_at is null or expires_at > clock_timestamp())
order by endpoint_id, created_at desc
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sendable:
    """An event, and the endpoint that it goes to."""

    event: dict[str, Any]
    endpoint_id: UUID
    url: str
    is_deleted: bool
    secret_ids: frozenset[UUID]


class EndpointRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def lock_client(self, client_id: UUID) -> None:
        """Let one change a client's endpoints at a time: what is followed is of all of them."""
        await self._session.execute(
            text("select 1 from client where id = :client for no key update"), {"client": client_id}
        )

    async def follow(self, client_id: UUID, types: Sequence[str]) -> None:
        """Have facts of these types written down for later, from the next commit on."""
        await self._session.execute(_FOLLOW, {"client": client_id, "types": list(types)})

    async def add(self, endpoint: Endpoint, secret: EndpointSecret) -> None:
        self._session.add(endpoint)
        await self._session.flush()
        self._session.add(secret)
        await self._session.flush()
        await self._session.refresh(endpoint)

    async def add_secret(self, secret: EndpointSecret) -> None:
        self._session.add(secret)
        await self._session.flush()

    async def find(self, client_id: UUID, endpoint_id: UUID) -> Endpoint | None:
        found = await self._session.execute(
            select(Endpoint)
            .where(
                col(Endpoint.client_id) == client_id,
                col(Endpoint.id) == endpoint_id,
                col(Endpoint.deleted_at).is_(None),
            )
            .execution_options(populate_existing=True)
        )
        return found.scalar_one_or_none()

    async def page(self, client_id: UUID, page: PageRequest) -> list[Endpoint]:
        found = await self._session.scalars(
            select(Endpoint)
            .where(col(Endpoint.client_id) == client_id, col(Endpoint.deleted_at).is_(None))
            .order_by(col(Endpoint.id))
            .offset(page.offset)
            .limit(page.size)
        )
        return list(found)

    async def count(self, client_id: UUID) -> int:
        bounded = (
            select(col(Endpoint.id))
            .where(col(Endpoint.client_id) == client_id, col(Endpoint.deleted_at).is_(None))
            .limit(EXACT_TOTAL + 1)
            .subquery()
        )
        counted = await self._session.execute(select(func.count()).select_from(bounded))
        return int(counted.scalar_one())

    async def urls(self, client_id: UUID) -> list[str]:
        found = await self._session.execute(
            select(col(Endpoint.url)).where(
                col(Endpoint.client_id) == client_id, col(Endpoint.deleted_at).is_(None)
            )
        )
        return list(found.scalars())

    async def update(self, endpoint: Endpoint, values: dict[str, Any]) -> Endpoint:
        changed = await self._session.execute(
            update(Endpoint)
            .where(col(Endpoint.id) == endpoint.id, col(Endpoint.client_id) == endpoint.client_id)
            .values(**values, updated_at=func.clock_timestamp())
            .returning(Endpoint)
            .execution_options(populate_existing=True)
        )
        return changed.scalar_one()

    async def delete(self, endpoint: Endpoint) -> None:
        """Hide it; its secrets go at once."""
        await self.update(endpoint, {"deleted_at": func.clock_timestamp()})
        await self._session.execute(
            text("delete from webhook_secret where endpoint_id = :endpoint"),
            {"endpoint": endpoint.id},
        )

    async def live_secrets(self, endpoint_id: UUID) -> int:
        found = await self._session.execute(
            text(
                "select count(*) from webhook_secret where endpoint_id = :endpoint"
                " and (expires_at is null or expires_at > clock_timestamp())"
            ),
            {"endpoint": endpoint_id},
        )
        return int(found.scalar_one())

    async def end_secrets(self, endpoint_id: UUID, overlap_s: int) -> datetime | None:
        """Let all secrets end after a while; when the last of them does."""
        ended = await self._session.execute(
            _PREVIOUS, {"endpoint": endpoint_id, "overlap": overlap_s}
        )
        return max((row.expires_at for row in ended), default=None)

    async def wishes(self, client_ids: Iterable[UUID]) -> list[Wish]:
        found = await self._session.execute(text(_WISHES), {"clients": list(client_ids)})
        return [_wish(row) for row in found.mappings()]

    async def room_types(self, room_ids: Iterable[UUID]) -> dict[UUID, str]:
        rooms = list(room_ids)
        if not rooms:
            return {}
        found = await self._session.execute(_ROOM_TYPES, {"rooms": rooms})
        return {row.id: row.type for row in found}

    async def take_numbers(self, client_id: UUID, count: int) -> int:
        """Take so many event numbers; the last of them."""
        taken = await self._session.execute(_NUMBER, {"client": client_id, "count": count})
        return int(taken.scalar_one())

    async def last_seq(self, client_id: UUID) -> int:
        found = await self._session.execute(
            text("select last_seq from webhook_event_number where client_id = :client"),
            {"client": client_id},
        )
        return int(found.scalar_one_or_none() or 0)

    async def add_events(self, events: Sequence[dict[str, Any]]) -> None:
        written = orjson.dumps(list(events), default=str).decode()
        await self._session.execute(_ADD, {"events": written})

    async def event(self, client_id: UUID, event_id: UUID) -> Event | None:
        found = await self._session.execute(
            select(Event).where(col(Event.client_id) == client_id, col(Event.id) == event_id)
        )
        return found.scalar_one_or_none()

    async def events(
        self, client_id: UUID, *, after: int, upto: int | None = None, limit: int
    ) -> list[Event]:
        """Read a client's events after a number, in order."""
        where = [col(Event.client_id) == client_id, col(Event.seq) > after]
        if upto is not None:
            where.append(col(Event.seq) <= upto)
        found = await self._session.scalars(
            select(Event).where(*where).order_by(col(Event.seq)).limit(limit)
        )
        return list(found)

    async def first_seq(self, client_id: UUID) -> int | None:
        found = await self._session.execute(
            select(func.min(col(Event.seq))).where(col(Event.client_id) == client_id)
        )
        return found.scalar_one()

    async def seq_before(self, client_id: UUID, since: datetime) -> int:
        """Give the number before the first event since a time; without one, the last of all."""
        found = await self._session.execute(
            text(
                "select coalesce((select min(seq) - 1 from webhook_event"
                "   where client_id = :client and created_at >= :since),"
                " (select last_seq from webhook_event_number where client_id = :client), 0)"
            ),
            {"client": client_id, "since": since},
        )
        return int(found.scalar_one())

    async def traced(self, client_id: UUID, event_id: UUID) -> list[dict[str, Any]]:
        """Read what became of an event at each endpoint; no `state` where nothing was made."""
        found = await self._session.execute(_TRACED, {"client": client_id, "event": event_id})
        return [dict(row) for row in found.mappings()]

    async def target(self, endpoint_id: UUID) -> Target | None:
        found = await self._session.execute(
            select(Target)
            .where(col(Target.id) == endpoint_id)
            .execution_options(populate_existing=True)
        )
        return found.scalar_one_or_none()


class Outgoing:
    """What the sender reads, for many deliveries at once, without a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sendable(self, places: Sequence[tuple[UUID, int, UUID]]) -> list[Sendable | None]:
        """Read what goes where for each (client, event number, endpoint); None: it is gone."""
        rows = await self._fetch(
            _SENDABLE,
            [client for client, _, _ in places],
            [seq for _, seq, _ in places],
            [endpoint for _, _, endpoint in places],
        )
        found: list[Sendable | None] = [None] * len(places)
        for row in rows:
            found[row["place"] - 1] = Sendable(
                event=dict(row),
                endpoint_id=row["endpoint_id"],
                url=row["url"],
                is_deleted=row["is_deleted"],
                secret_ids=frozenset(row["secret_ids"]),
            )
        return found

    async def secrets(self, endpoint_ids: Iterable[UUID]) -> list[tuple[UUID, UUID, UUID, bytes]]:
        """Read the sealed secrets that live: (id, client, endpoint, sealed), the newest first."""
        rows = await self._fetch(_SECRETS, list(endpoint_ids))
        return [(row["id"], row["client_id"], row["endpoint_id"], row["sealed"]) for row in rows]

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        with outages():
            pool = await self._database.fast()
            return list(await pool.fetch(statement, *values))


def _wish(row: Any) -> Wish:  # noqa: ANN401 - a row's mapping
    return Wish(
        endpoint_id=row["id"],
        client_id=row["client_id"],
        types=types_of(row["events"]),
        room_ids=None if row["room_ids"] is None else frozenset(row["room_ids"]),
        room_types=None if row["room_types"] is None else frozenset(row["room_types"]),
        bot_ids=None if row["bot_ids"] is None else frozenset(str(each) for each in row["bot_ids"]),
        is_served=row["is_served"],
    )
