"""Every query about pushing: the server's key, whose devices there are, who of them has it."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from chatserver.deliveries.models import Claim
from chatserver.infra.database import Database, outages
from chatserver.notifications.push.models import WEB_PUSH
from chatserver.notifications.push.policies import Device, Part, Reached, Tried

_KEY: Final = "select sealed from server_key where name = $1"
_MAKE_KEY: Final = """
insert into server_key (name, sealed) values ($1, $2) on conflict (name) do nothing
"""
_KINDS: Final = """
select u.external_id, array_agg(distinct d.kind) as kinds
from app_user u join push_device d on d.client_id = u.client_id and d.user_id = u.id
where u.client_id = $1 and u.external_id = any ($2::text[]) group by u.external_id
"""
# All devices of those to whom some deliveries go, but for the ones that have come to an end in
# this generation; and whether one of them has it.
_DEVICES: Final = """
select given.id as delivery_id, d.id, d.client_id, d.sealed, d.last_seen_at, exists (
    select from delivery_attempt_part p where p.delivery_id = given.id
      and p.generation = given.generation and p.outcome = 'accepted') as is_partly_done
from unnest($1::uuid[], $2::int[]) as given(id, generation)
join notification_delivery nd on nd.delivery_id = given.id
left join app_user u on u.client_id = nd.client_id and u.external_id = nd.person
left join push_device d on d.client_id = u.client_id and d.user_id = u.id and d.kind = $3
  and not exists (
    select from delivery_attempt_part p where p.delivery_id = given.id
      and p.generation = given.generation and p.part_id = d.id
      and p.outcome not in ('throttled', 'retryable'))
"""
_NOTE: Final = """
insert into delivery_attempt_part (delivery_id, generation, no, part_id, client_id, started_at,
  latency_ms, outcome, error, status, retry_after_s, peer)
select id, generation, no, part, client, clock_timestamp() - make_interval(secs => ms / 1000.0),
  ms, outcome, error, status, retry_after_s, peer
from unnest($1::uuid[], $2::int[], $3::int[], $4::uuid[], $5::uuid[], $6::int[], $7::text[],
  $8::text[], $9::int[], $10::int[], $11::text[])
  as g(id, generation, no, part, client, ms, outcome, error, status, retry_after_s, peer)
on conflict do nothing
"""
# A browser that has registered again meanwhile is alive, whatever was said of it before.
_FORGET: Final = """
delete from push_device d using unnest($1::uuid[], $2::timestamptz[]) as g(id, seen)
where d.id = g.id and d.last_seen_at = g.seen
"""


class PushStore:
    """On raw connections: this is a hot path."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def key(self, name: str) -> bytes | None:
        """Read a key of the server, sealed.

        Raises:
            UnavailableError: PostgreSQL is away. The other methods say so, too.
        """
        with outages():
            pool = await self._database.fast()
            row = await pool.fetchrow(_KEY, name)
        return None if row is None else row["sealed"]

    async def make_key(self, name: str, sealed: bytes) -> None:
        """Keep a key unless there is one."""
        with outages():
            pool = await self._database.writing()
            await pool.execute(_MAKE_KEY, name, sealed)

    async def kinds(self, client_id: UUID, people: Sequence[str]) -> dict[str, set[str]]:
        """Tell what kinds of devices some people have, by external id. Absent: none at all."""
        if not people:
            return {}
        with outages():
            pool = await self._database.fast()
            rows = await pool.fetch(_KINDS, client_id, list(people))
        return {row["external_id"]: set(row["kinds"]) for row in rows}

    async def devices(self, claims: Sequence[Claim]) -> dict[UUID, Reached]:
        """Read where some deliveries go, by their ids."""
        with outages():
            pool = await self._database.fast()
            rows = await pool.fetch(
                _DEVICES,
                [claim.id for claim in claims],
                [claim.generation for claim in claims],
                WEB_PUSH,
            )
        found: dict[UUID, list[Device]] = {}
        done: dict[UUID, bool] = {}
        for row in rows:
            of_delivery = found.setdefault(row["delivery_id"], [])
            done[row["delivery_id"]] = row["is_partly_done"]
            if row["id"] is not None:
                of_delivery.append(
                    Device(
                        id=row["id"],
                        client_id=row["client_id"],
                        sealed=row["sealed"],
                        last_seen_at=row["last_seen_at"],
                    )
                )
        return {name: Reached(found[name], is_partly_done=done[name]) for name in found}

    async def note(self, tried: Sequence[Tried]) -> list[None]:
        """Write down what tries did at each device, and forget the devices that are gone."""
        rows = [_row(each.claim, part) for each in tried for part in each.parts if part.is_tried]
        gone = [device for each in tried for device in each.gone]
        with outages():
            pool = await self._database.writing()
            if rows:
                columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)]
                await pool.execute(_NOTE, *columns)
            if gone:
                await pool.execute(
                    _FORGET, [each.id for each in gone], [each.last_seen_at for each in gone]
                )
        return [None] * len(tried)


def _row(claim: Claim, part: Part) -> tuple[Any, ...]:
    outcome = part.outcome
    return (
        claim.id,
        claim.generation,
        claim.tries,
        part.device_id,
        claim.client_id,
        part.latency_ms,
        outcome.kind,
        outcome.error,
        outcome.status,
        None if outcome.retry_after_s is None else int(outcome.retry_after_s),
        outcome.peer,
    )
