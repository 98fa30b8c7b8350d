"""Every query about preferences and suppressions."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.kernel.paging import EXACT_TOTAL, PageRequest
from chatserver.notifications.consent.models import CHANNELS, Preference, Suppression

_LOCK_ADDRESS: Final = text("""
select pg_advisory_xact_lock(hashtextextended(encode(:hash, 'hex'), 0))
""")
_SOFT_BOUNCE: Final = text("""
insert into soft_bounce (client_id, address_hash, delivery_id) values (:client, :hash, :id)
on conflict do nothing
""")
_SOFT_BOUNCES: Final = text("""
select count(*) from soft_bounce where client_id = :client and address_hash = :hash
  and at > clock_timestamp() - make_interval(days => :days)
""")


class ConsentRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def preferences(self, user_id: UUID) -> dict[str, dict[str, bool]]:
        """Give what a person chose, by category and channel."""
        found = await self._session.execute(
            select(Preference)
            .where(col(Preference.user_id) == user_id)
            .order_by(col(Preference.category), col(Preference.channel))
            .execution_options(populate_existing=True)
        )
        chosen: dict[str, dict[str, bool]] = {}
        for row in found.scalars():
            chosen.setdefault(row.category, {})[row.channel] = row.enabled
        return chosen

    async def preferences_of(
        self, user_ids: Sequence[UUID]
    ) -> dict[UUID, dict[str, dict[str, bool]]]:
        """Give what some people chose, by person, category and channel."""
        if not user_ids:
            return {}
        found = await self._session.execute(
            select(Preference)
            .where(col(Preference.user_id).in_(user_ids))
            .execution_options(populate_existing=True)
        )
        chosen: dict[UUID, dict[str, dict[str, bool]]] = {}
        for row in found.scalars():
            of_person = chosen.setdefault(UUID(bytes=row.user_id.bytes), {})
            of_person.setdefault(row.category, {})[row.channel] = row.enabled
        return chosen

    async def forget_preferences(self, user_id: UUID) -> None:
        await self._session.execute(delete(Preference).where(col(Preference.user_id) == user_id))

    async def prefer(
        self, client_id: UUID, user_id: UUID, chosen: Mapping[str, Mapping[str, bool]]
    ) -> None:
        rows = [
            {
                "client_id": client_id,
                "user_id": user_id,
                "category": category,
                "channel": channel,
                "enabled": enabled,
            }
            for category, channels in sorted(chosen.items())
            for channel, enabled in sorted(channels.items())
        ]
        if not rows:
            return
        adding = insert(Preference).values(rows)
        await self._session.execute(
            adding.on_conflict_do_update(
                index_elements=["user_id", "category", "channel"],
                set_={
                    "enabled": adding.excluded.enabled,
                    "updated_at": func.clock_timestamp(),
                },
            )
        )

    async def suppress(
        self, suppression: Suppression, *, over: Collection[str] | None = None
    ) -> tuple[Suppression, bool]:
        """Keep a suppression; one of the same address and scope is renewed. True: it is new.

        `over`: only one that is over, or has one of these reasons, is renewed; the other stays.
        """
        adding = insert(Suppression).values(**suppression.model_dump(exclude={"created_at"}))
        kept = await self._session.execute(
            adding.on_conflict_do_update(
                index_elements=["client_id", "channel", "address_hash", "scope"],
                set_={
                    "reason": adding.excluded.reason,
                    "expires_at": adding.excluded.expires_at,
                },
                where=None
                if over is None
                else or_(
                    col(Suppression.expires_at) <= func.clock_timestamp(),
                    col(Suppression.reason).in_(over),
                ),
            )
            .returning(Suppression, text("(xmax = 0) as is_new"))
            .execution_options(populate_existing=True)
        )
        row = kept.first()
        if row is not None:
            return row[0], bool(row[1])
        stays = await self._session.execute(
            select(Suppression).where(
                col(Suppression.client_id) == suppression.client_id,
                col(Suppression.channel) == suppression.channel,
                col(Suppression.address_hash) == suppression.address_hash,
                col(Suppression.scope) == suppression.scope,
            )
        )
        return stays.scalar_one(), False

    async def count_soft_bounce(
        self, client_id: UUID, address_hash: bytes, delivery_id: UUID, *, days: int
    ) -> int:
        """Note a mail that an address did not take; how many they are within some days.

        Under a lock of the address: of two at once, the later one counts both.
        """
        values = {"client": client_id, "hash": address_hash, "id": delivery_id, "days": days}
        await self._session.execute(_LOCK_ADDRESS, values)
        await self._session.execute(_SOFT_BOUNCE, values)
        counted: int = (await self._session.execute(_SOFT_BOUNCES, values)).scalar_one()
        return counted

    async def now(self) -> datetime:
        """Tell PostgreSQL's time."""
        moment: datetime = (
            await self._session.execute(text("select clock_timestamp()"))
        ).scalar_one()
        return moment

    async def find(self, client_id: UUID, suppression_id: UUID) -> Suppression | None:
        found = await self._session.execute(
            select(Suppression).where(
                col(Suppression.client_id) == client_id, col(Suppression.id) == suppression_id
            )
        )
        return found.scalar_one_or_none()

    async def page(
        self,
        client_id: UUID,
        page: PageRequest,
        *,
        channel: str | None,
        hashes: list[bytes] | None,
    ) -> tuple[list[Suppression], int]:
        where: list[ColumnElement[bool]] = [col(Suppression.client_id) == client_id, _lives()]
        if channel is not None:
            where.append(col(Suppression.channel) == channel)
        if hashes is not None:
            where.append(col(Suppression.address_hash).in_(hashes))
        mine = select(Suppression).where(*where)
        found = await self._session.execute(
            mine.order_by(col(Suppression.id)).offset(page.offset).limit(page.size)
        )
        counted = await self._session.execute(
            select(func.count()).select_from(mine.limit(EXACT_TOTAL + 1).subquery())
        )
        return list(found.scalars()), int(counted.scalar_one())

    async def remove(self, client_id: UUID, suppression_id: UUID) -> bool:
        done = await self._session.execute(
            delete(Suppression)
            .where(col(Suppression.client_id) == client_id, col(Suppression.id) == suppression_id)
            .returning(col(Suppression.id))
        )
        return done.scalar_one_or_none() is not None

    async def of_addresses(self, client_id: UUID, hashes: Sequence[bytes]) -> list[Suppression]:
        """Give what there is against some addresses."""
        if not hashes:
            return []
        found = await self._session.execute(
            select(Suppression).where(
                col(Suppression.client_id) == client_id,
                col(Suppression.channel).in_(CHANNELS),
                col(Suppression.address_hash).in_(hashes),
                _lives(),
            )
        )
        return list(found.scalars())


def _lives() -> ColumnElement[bool]:
    return or_(
        col(Suppression.expires_at).is_(None), col(Suppression.expires_at) > func.clock_timestamp()
    )
