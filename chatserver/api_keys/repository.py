"""Every query about scoped keys."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.api_keys.models import KeyFamily, RetiredKey
from chatserver.api_keys.policies import KeyLife
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
