"""Scoped keys as whoever presents one needs them: found, followed by another, all at once."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from functools import partial
from typing import Final, TypeAlias

import orjson
from sqlalchemy import text

from chatserver.api_keys.models import StoredScopedKey, Successor
from chatserver.api_keys.policies import KeyLife
from chatserver.infra.batching import Batcher
from chatserver.infra.database import ACQUIRE_S, Database, outages

# Of so many who connect at the same time.
TOGETHER: Final = 64

# The one place that looks beyond its own tables: nothing is known of the caller yet, and whoever
# connects waits for it, so it is one statement.
_FIND: Final = """
select f.kid, f.client_id, c.slug as client_slug, c.status = 'active' as is_client_active,
  c.settings -> 'cors_origins' as origins, f.user_id, u.external_id, u.display_name, f.device_id,
  f.scopes, f.status, f.rotation, f.cur_gen, f.cur_id, f.cur_mac, f.cur_ct,
  f.pend_id, f.pend_mac, f.pend_ct,
  clock_timestamp() >= least(f.idle_expires_at, f.abs_expires_at) as is_expired,
  extract(epoch from least(f.idle_expires_at, f.abs_expires_at) - clock_timestamp())::float8
    as ends_in_s,
  extract(epoch from f.abs_expires_at)::float8 as expires_at,
  extract(epoch from f.issued_at)::float8 as issued_at,
  r.key_id as old_id, r.mac as old_mac,
  coalesce(extract(epoch from r.valid_until - clock_timestamp()), 0)::float8 as old_ends_in_s,
  coalesce(r.reason, 'replaced') as old_reason, r.by_id as old_by_id, r.by_door as old_by_door,
  coalesce(c.settings ->> 'key_reuse', 'revoke_family') as reuse_policy, a.ord
from unnest($1::text[], $2::integer[]) with ordinality a (kid, gen, ord)
join key_family f on f.kid = a.kid
join client c on c.id = f.client_id
join app_user u on u.client_id = f.client_id and u.id = f.user_id
left join key_retired r on r.kid = f.kid and r.gen = a.gen
"""
# Sockets whose key has expired are closed by the node itself, after they could refresh it.
_LIVING: Final = """
select f.kid, coalesce(f.last_seen_at, f.created_at) < clock_timestamp() - $2::interval as is_stale
from key_family f join client c on c.id = f.client_id
where f.kid = any ($1::text[]) and f.status = 'active' and c.status = 'active'
  and clock_timestamp() < least(f.idle_expires_at, f.abs_expires_at) + interval '11 minutes'
"""
# Both are one statement for many families, and compare before they write: of many who try, one
# succeeds, and the others read again what it wrote. Families are locked in the order of their ids.
_LOCKED: Final = """locked as (
  select kid from key_family where kid = any ($1::text[]) order by kid for no key update
), asked as (
  select a.* from unnest($1::text[], $2::bytea[], $3::uuid[], $4::bytea[], $5::bytea[])
    a (kid, shown_mac, next_id, next_mac, next_ct)
  join locked l on l.kid = a.kid
)"""
_MINT: Final = f"""
with {_LOCKED}
update key_family f
set pend_id = a.next_id, pend_mac = a.next_mac, pend_ct = a.next_ct, pend_at = clock_timestamp()
from asked a
where f.kid = a.kid and f.cur_mac = a.shown_mac and f.pend_mac is null and f.status = 'active'
returning f.kid, f.pend_id
"""  # noqa: S608 - constants of this file
_ACTIVATE: Final = f"""
with {_LOCKED}, activated as (
  update key_family f set
    prev_id = f.cur_id, prev_mac = f.cur_mac, grace_until = clock_timestamp() + $6::interval,
    cur_gen = f.cur_gen + 1, cur_id = f.pend_id, cur_mac = f.pend_mac, cur_ct = f.pend_ct,
    pend_id = a.next_id, pend_mac = a.next_mac, pend_ct = a.next_ct,
    pend_at = case when a.next_id is not null then clock_timestamp() end
  from asked a
  where f.kid = a.kid and f.pend_mac = a.shown_mac and f.status = 'active'
  returning f.kid, f.client_id, f.cur_gen, f.cur_id, f.prev_id, f.prev_mac, f.grace_until, f.pend_id
), forgotten as (
  delete from key_retired r using activated a where r.kid = a.kid and r.gen < a.cur_gen - $8::int
), retired as (
  insert into key_retired (kid, gen, client_id, mac, key_id, reason, valid_until, by_id, by_door)
  select kid, cur_gen - 1, client_id, prev_mac, prev_id, 'rotated', grace_until, cur_id, $7
  from activated
)
select kid, pend_id from activated
"""  # noqa: S608
_TOUCH: Final = text("""
update key_family f
set last_seen_at = clock_timestamp(), idle_expires_at = clock_timestamp() + :idle,
  cur_ct = case when f.grace_until > clock_timestamp() then f.cur_ct end
from (
  select kid from key_family
  where kid = any (:kids) and status = 'active' and clock_timestamp() < idle_expires_at
  order by kid for no key update skip locked
) used
where f.kid = used.kid
""")


_Change: TypeAlias = tuple[str, bytes, Successor | None]


class ScopedKeyLookup:
    """Reads and rotates keys before anything is known of their owner, in no transaction.

    Whoever connects while others do shares their statements and their commits.
    """

    def __init__(self, database: Database, *, idle: timedelta) -> None:
        self._database = database
        self._idle = idle
        self._finding = Batcher(self._find_all, size=TOGETHER, in_flight=2)
        self._minting = Batcher(self._mint_all, size=TOGETHER)
        self._activating: dict[tuple[str, KeyLife], Batcher[_Change, bool]] = {}

    async def find(self, kid: str, gen: int) -> StoredScopedKey | None:
        """Find a family, and its retired generation `gen` if there is one.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        with outages():
            return await self._finding.ask((kid, gen), within_s=ACQUIRE_S)

    async def mint(self, kid: str, *, cur_mac: bytes, successor: Successor) -> bool:
        """Let a successor wait for its first use; False when there is one, or the key was followed.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        with outages():
            return await self._minting.ask((kid, cur_mac, successor), within_s=ACQUIRE_S)

    async def activate(
        self, kid: str, *, pend_mac: bytes, door: str, successor: Successor | None, life: KeyLife
    ) -> bool:
        """Let the pending generation be the current one and the one before it run out.

        False when it is not pending any more.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        change = (kid, pend_mac, successor)
        with outages():
            if successor is None:
                async with asyncio.timeout(ACQUIRE_S):
                    [done] = await self._activate_all([change], door=door, life=life)
                    return done
            batcher = self._activating.get((door, life))
            if batcher is None:
                work = partial(self._activate_all, door=door, life=life)
                batcher = self._activating[door, life] = Batcher(work, size=TOGETHER)
            return await batcher.ask(change, within_s=ACQUIRE_S)

    async def _find_all(self, asked: Sequence[tuple[str, int]]) -> list[StoredScopedKey | None]:
        pool = await self._database.arriving()
        kids, gens = [kid for kid, _ in asked], [gen for _, gen in asked]
        found: list[StoredScopedKey | None] = [None] * len(asked)
        for row in await pool.fetch(_FIND, kids, gens):
            values = dict(row)
            place = values.pop("ord") - 1
            origins = values["origins"]
            values["origins"] = () if origins is None else tuple(orjson.loads(origins) or ())
            values["scopes"] = tuple(values["scopes"])
            found[place] = StoredScopedKey(**values)
        return found

    async def _mint_all(self, changes: Sequence[_Change]) -> list[bool]:
        return await self._change(_MINT, changes)

    async def _activate_all(
        self, changes: Sequence[_Change], *, door: str, life: KeyLife
    ) -> list[bool]:
        return await self._change(_ACTIVATE, changes, life.grace, door, life.retired_kept)

    async def _change(
        self, statement: str, changes: Sequence[_Change], *more: object
    ) -> list[bool]:
        pool = await self._database.arriving()
        rows = await pool.fetch(
            statement,
            [kid for kid, _, _ in changes],
            [mac for _, mac, _ in changes],
            [None if it is None else it.key_id for _, _, it in changes],
            [None if it is None else it.mac for _, _, it in changes],
            [None if it is None else it.ciphertext for _, _, it in changes],
            *more,
        )
        # Of several who change one family at the same time, one has: the one whose key is there.
        done = {(row[0], row[1]) for row in rows}
        return [(kid, None if it is None else it.key_id) in done for kid, _, it in changes]

    async def living(self, kids: Collection[str], *, stale: timedelta) -> dict[str, bool]:
        """Tell which families live, and whether their last use was noted longer than `stale` ago.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        with outages():
            async with asyncio.timeout(ACQUIRE_S):
                rows = await (await self._database.arriving()).fetch(_LIVING, list(kids), stale)
        return {row["kid"]: row["is_stale"] for row in rows}

    async def touch(self, kids: Sequence[str]) -> None:
        """Write down that keys were used just now: from now on they idle."""
        async with self._database.transaction() as session:
            await session.execute(_TOUCH, {"kids": list(kids), "idle": self._idle})
