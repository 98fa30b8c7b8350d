"""Every query about scoped keys."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, and_, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.api_keys.models import KeyFamily, RetiredKey, StoredScopedKey, Successor
from chatserver.api_keys.policies import KeyLife
from chatserver.infra.database import ACQUIRE_S, Database, outages
from chatserver.kernel.paging import EXACT_TOTAL, PageRequest

# Both generations that a login replaces go on working for the grace, but never longer than they
# would have without it.
_RETIRE: Final = text("""
insert into key_retired (kid, gen, client_id, mac, key_id, reason, valid_until, by_id, by_door)
select f.kid, f.cur_gen + old.later, f.client_id, old.mac, old.key_id, 'replaced',
  least(clock_timestamp() + :grace, f.idle_expires_at, f.abs_expires_at), :by_id, 'login'
from key_family f
cross join lateral (
  values (0, f.cur_mac, f.cur_id), (1, f.pend_mac, f.pend_id)
) old (later, mac, key_id)
where f.kid = :kid and old.mac is not null
""")
_FORGET: Final = text("delete from key_retired where kid = :kid and gen < :before")
# Whoever comes again and again with a used-up key is one alarm an hour, not a thousand.
_NOTE_ALARM: Final = text("""
update key_retired set alarmed_at = clock_timestamp()
where client_id = :client and kid = :kid and key_id = :key
  and (alarmed_at is null or alarmed_at < clock_timestamp() - interval '1 hour')
returning kid
""")
_EVICT: Final = text("""
update key_family set status = 'revoked', revoked_reason = 'evicted', epoch = epoch + 1,
  cur_ct = null, pend_ct = null
where kid in (
  select kid from key_family
  where client_id = :client and user_id = :user and status = 'active' and kid <> :but
    and clock_timestamp() < least(idle_expires_at, abs_expires_at)
  order by coalesce(last_seen_at, created_at) desc
  offset :others
)
returning kid
""")


class KeyFamilyRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, values: dict[str, Any], *, life: KeyLife, absolute: timedelta) -> datetime:
        """Insert a family; give the moment when it ends for good."""
        added = await self._session.execute(
            insert(KeyFamily)
            .values(values | _lives(life.idle, absolute))
            .returning(col(KeyFamily.abs_expires_at))
        )
        return added.scalar_one()

    async def follow(
        self,
        family: KeyFamily,
        values: dict[str, Any],
        *,
        life: KeyLife,
        absolute: timedelta,
    ) -> datetime:
        """Let a new generation be the current one; give the moment when the family ends for good.

        The family must be locked.
        """
        given = {"kid": family.kid, "grace": life.grace, "by_id": values["cur_id"]}
        await self._session.execute(_RETIRE, given)
        before = values["cur_gen"] - life.retired_kept
        if before > 1:
            await self._session.execute(_FORGET, {"kid": family.kid, "before": before})
        nothing = dict.fromkeys(
            ("pend_id", "pend_mac", "pend_ct", "pend_at", "prev_id", "prev_mac"), None
        )
        until = {"grace_until": func.clock_timestamp() + life.grace}
        changed = await self._session.execute(
            update(KeyFamily)
            .where(col(KeyFamily.kid) == family.kid)
            .values(nothing | values | until | _lives(life.idle, absolute))
            .returning(col(KeyFamily.abs_expires_at))
        )
        return changed.scalar_one()

    async def find_device(self, client_id: UUID, user_id: UUID, device_id: str) -> KeyFamily | None:
        found = await self._session.execute(
            select(KeyFamily)
            .where(
                col(KeyFamily.client_id) == client_id,
                col(KeyFamily.user_id) == user_id,
                col(KeyFamily.device_id) == device_id,
                col(KeyFamily.status) == "active",
            )
            # A connect on another node may rotate the family at this moment.
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        )
        return found.scalar_one_or_none()

    async def find_kid(self, client_id: UUID, user_id: UUID, key_id: UUID) -> str | None:
        """Find the active family that one of its keys, current or older, belongs to."""
        older = select(col(RetiredKey.kid)).where(
            col(RetiredKey.client_id) == client_id,
            col(RetiredKey.key_id) == key_id,
            col(RetiredKey.kid) == col(KeyFamily.kid),
        )
        found = await self._session.execute(
            select(col(KeyFamily.kid)).where(
                _active(client_id, user_id),
                (col(KeyFamily.cur_id) == key_id)
                | (col(KeyFamily.pend_id) == key_id)
                | older.exists(),
            )
        )
        return found.scalar_one_or_none()

    async def find(self, client_id: UUID, kid: str) -> KeyFamily | None:
        found = await self._session.execute(
            select(KeyFamily).where(
                col(KeyFamily.client_id) == client_id, col(KeyFamily.kid) == kid
            )
        )
        return found.scalar_one_or_none()

    async def list_live(
        self, client_id: UUID, user_id: UUID, page: PageRequest
    ) -> Sequence[KeyFamily]:
        found = await self._session.execute(
            select(KeyFamily)
            .where(_live(client_id, user_id))
            .order_by(col(KeyFamily.created_at), col(KeyFamily.kid))
            .offset(page.offset)
            .limit(page.size)
        )
        return found.scalars().all()

    async def count_live(self, client_id: UUID, user_id: UUID) -> int:
        some = select(col(KeyFamily.kid)).where(_live(client_id, user_id)).limit(EXACT_TOTAL + 1)
        counted = await self._session.execute(select(func.count()).select_from(some.subquery()))
        return counted.scalar_one()

    async def revoke(
        self, client_id: UUID, user_id: UUID, *, why: str, kid: str | None = None
    ) -> list[str]:
        """End one active family of a user, or all of them, and give their kids."""
        ended = await self._session.execute(
            update(KeyFamily)
            .where(
                _active(client_id, user_id), *([] if kid is None else [col(KeyFamily.kid) == kid])
            )
            .values(_ended(why))
            .returning(col(KeyFamily.kid))
        )
        return list(ended.scalars())

    async def revoke_kid(self, client_id: UUID, kid: str, *, why: str) -> bool:
        """End one active family and wipe what is sealed of it; False when it had ended before."""
        ended = await self._session.execute(
            update(KeyFamily)
            .where(
                col(KeyFamily.client_id) == client_id,
                col(KeyFamily.kid) == kid,
                col(KeyFamily.status) == "active",
            )
            .values(_ended(why))
            .returning(col(KeyFamily.kid))
        )
        return ended.scalar_one_or_none() is not None

    async def note_alarm(self, client_id: UUID, kid: str, key_id: UUID) -> bool:
        """Note that a retired generation raised the alarm; False when it did within the hour."""
        noted = await self._session.execute(
            _NOTE_ALARM, {"client": client_id, "kid": kid, "key": key_id}
        )
        return noted.scalar_one_or_none() is not None

    async def evict(self, client_id: UUID, user_id: UUID, *, but: str, others: int) -> list[str]:
        """End the longest idle families, so that `others` stay beside `but`; give their kids."""
        given = {"client": client_id, "user": user_id, "but": but, "others": others}
        return list((await self._session.execute(_EVICT, given)).scalars())


def _ended(why: str) -> dict[str, Any]:
    return {
        "status": "revoked",
        "revoked_reason": why,
        "epoch": col(KeyFamily.epoch) + 1,
        "cur_ct": None,
        "pend_ct": None,
    }


def _lives(idle: timedelta, absolute: timedelta) -> dict[str, ColumnElement[datetime]]:
    now = func.clock_timestamp()
    return {"issued_at": now, "idle_expires_at": now + idle, "abs_expires_at": now + absolute}


def _active(client_id: UUID, user_id: UUID) -> ColumnElement[bool]:
    return and_(
        col(KeyFamily.client_id) == client_id,
        col(KeyFamily.user_id) == user_id,
        col(KeyFamily.status) == "active",
    )


def _live(client_id: UUID, user_id: UUID) -> ColumnElement[bool]:
    ends = func.least(col(KeyFamily.idle_expires_at), col(KeyFamily.abs_expires_at))
    return and_(_active(client_id, user_id), func.clock_timestamp() < ends)


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
  coalesce(c.settings ->> 'key_reuse', 'revoke_family') as reuse_policy
from key_family f
join client c on c.id = f.client_id
join app_user u on u.client_id = f.client_id and u.id = f.user_id
left join key_retired r on r.kid = f.kid and r.gen = $2
where f.kid = $1
"""
# Sockets whose key has expired are closed by the node itself, after they could refresh it.
_LIVING: Final = """
select f.kid, coalesce(f.last_seen_at, f.created_at) < clock_timestamp() - $2::interval as is_stale
from key_family f join client c on c.id = f.client_id
where f.kid = any ($1::text[]) and f.status = 'active' and c.status = 'active'
  and clock_timestamp() < least(f.idle_expires_at, f.abs_expires_at) + interval '11 minutes'
"""
# Both are one statement and compare before they write: of many nodes that try, one succeeds, and
# the others read again what it wrote.
_MINT: Final = """
update key_family set pend_id = $3, pend_mac = $4, pend_ct = $5, pend_at = clock_timestamp()
where kid = $1 and cur_mac = $2 and pend_mac is null and status = 'active'
returning kid
"""
_ACTIVATE: Final = """
with activated as (
  update key_family set
    prev_id = cur_id, prev_mac = cur_mac, grace_until = clock_timestamp() + $3::interval,
    cur_gen = cur_gen + 1, cur_id = pend_id, cur_mac = pend_mac, cur_ct = pend_ct,
    pend_id = $5, pend_mac = $6, pend_ct = $7,
    pend_at = case when $5::uuid is not null then clock_timestamp() end
  where kid = $1 and pend_mac = $2 and status = 'active'
  returning kid, client_id, cur_gen, cur_id, prev_id, prev_mac, grace_until
), forgotten as (
  delete from key_retired r using activated a where r.kid = a.kid and r.gen < a.cur_gen - $8::int
)
insert into key_retired (kid, gen, client_id, mac, key_id, reason, valid_until, by_id, by_door)
select kid, cur_gen - 1, client_id, prev_mac, prev_id, 'rotated', grace_until, cur_id, $4
from activated
returning kid
"""
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


class ScopedKeyLookup:
    """Reads keys before anything is known of their owner: one statement each, no transaction."""

    def __init__(self, database: Database, *, idle: timedelta) -> None:
        self._database = database
        self._idle = idle

    async def find(self, kid: str, gen: int) -> StoredScopedKey | None:
        """Find a family, and its retired generation `gen` if there is one.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        with outages():
            async with asyncio.timeout(ACQUIRE_S):
                row = await (await self._database.fast()).fetchrow(_FIND, kid, gen)
        if row is None:
            return None
        values = dict(row)
        origins = values["origins"]
        values["origins"] = () if origins is None else tuple(orjson.loads(origins) or ())
        values["scopes"] = tuple(values["scopes"])
        return StoredScopedKey(**values)

    async def mint(self, kid: str, *, cur_mac: bytes, successor: Successor) -> bool:
        """Let a successor wait for its first use; False when there is one, or the key was followed.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        return await self._changes(
            _MINT, kid, cur_mac, successor.key_id, successor.mac, successor.ciphertext
        )

    async def activate(
        self, kid: str, *, pend_mac: bytes, door: str, successor: Successor | None, life: KeyLife
    ) -> bool:
        """Let the pending generation be the current one and the one before it run out.

        False when it is not pending any more.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        following = (
            (successor.key_id, successor.mac, successor.ciphertext)
            if successor
            else (None, None, None)
        )
        return await self._changes(
            _ACTIVATE, kid, pend_mac, life.grace, door, *following, life.retired_kept
        )

    async def _changes(self, statement: str, *values: object) -> bool:
        with outages():
            async with asyncio.timeout(ACQUIRE_S):
                changed = await (await self._database.fast()).fetchval(statement, *values)
        return changed is not None

    async def living(self, kids: Collection[str], *, stale: timedelta) -> dict[str, bool]:
        """Tell which families live, and whether their last use was noted longer than `stale` ago.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        with outages():
            async with asyncio.timeout(ACQUIRE_S):
                rows = await (await self._database.fast()).fetch(_LIVING, list(kids), stale)
        return {row["kid"]: row["is_stale"] for row in rows}

    async def touch(self, kids: Sequence[str]) -> None:
        """Write down that keys were used just now: from now on they idle."""
        async with self._database.transaction() as session:
            await session.execute(_TOUCH, {"kids": list(kids), "idle": self._idle})
