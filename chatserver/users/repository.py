"""Every query about users."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Boolean, ColumnElement, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.infra.database import ACQUIRE_S, Database, outages
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import EXACT_TOTAL, PageRequest
from chatserver.users.models import User


class UserRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def put(
        self, client_id: UUID, external_id: str, profile: dict[str, Any]
    ) -> tuple[User, bool] | None:
        """Insert a user or replace the profile; tell whether the user is new.

        None: somebody of this name is being erased.
        """
        draft = insert(User).values(
            id=uuid7(), client_id=client_id, external_id=external_id, **profile
        )
        # A row that this statement inserted has no deleter yet.
        is_new = literal_column("(xmax = 0)", Boolean)
        kept = await self._session.execute(
            draft.on_conflict_do_update(
                index_elements=[col(User.client_id), col(User.external_id)],
                set_=profile | {"updated_at": func.clock_timestamp()},
                where=col(User.erasing_at).is_(None),
            )
            .returning(User, is_new)
            .execution_options(populate_existing=True)
        )
        row = kept.one_or_none()
        return None if row is None else (row[0], row[1])

    async def change(
        self, client_id: UUID, external_id: str, changes: dict[str, Any]
    ) -> User | None:
        changed = await self._session.execute(
            update(User)
            .where(_named(client_id, external_id))
            .values(updated_at=func.clock_timestamp(), **changes)
            .returning(User)
            .execution_options(populate_existing=True)
        )
        return changed.scalar_one_or_none()

    async def find(self, client_id: UUID, external_id: str) -> User | None:
        found = await self._session.execute(select(User).where(_named(client_id, external_id)))
        return found.scalar_one_or_none()

    async def lock(self, client_id: UUID, external_id: str) -> User | None:
        """Find a user and keep others from changing what hangs on the row."""
        found = await self._session.execute(
            select(User)
            .where(_named(client_id, external_id))
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        )
        return found.scalar_one_or_none()

    async def ids(self, client_id: UUID, external_ids: Iterable[str]) -> dict[str, UUID]:
        """Find many users at once; unknown ones are left out."""
        found = await self._session.execute(
            select(col(User.external_id), col(User.id)).where(
                col(User.client_id) == client_id,
                col(User.external_id).in_(list(external_ids)),
                col(User.erasing_at).is_(None),
            )
        )
        return dict(found.all())

    async def add_missing(self, client_id: UUID, external_ids: Iterable[str]) -> None:
        # In order, so that two calls with the same people don't wait for each other in a circle.
        rows = [
            {"id": uuid7(), "client_id": client_id, "external_id": it}
            for it in sorted(external_ids)
        ]
        if rows:
            await self._session.execute(insert(User).on_conflict_do_nothing(), rows)

    async def list(self, client_id: UUID, page: PageRequest) -> Sequence[User]:
        found = await self._session.execute(
            select(User)
            .where(col(User.client_id) == client_id, col(User.erasing_at).is_(None))
            .order_by(col(User.external_id))
            .offset(page.offset)
            .limit(page.size)
        )
        return found.scalars().all()

    async def count(self, client_id: UUID) -> int:
        mine = (col(User.client_id) == client_id) & col(User.erasing_at).is_(None)
        some = select(col(User.id)).where(mine).limit(EXACT_TOTAL + 1)
        counted = await self._session.execute(select(func.count()).select_from(some.subquery()))
        return counted.scalar_one()

    async def revoke(self, user_id: UUID) -> None:
        """Note that whatever the user holds from before now is void."""
        await self._session.execute(
            update(User)
            .where(col(User.id) == user_id)
            .values(revoked_before=func.clock_timestamp())
        )


def _named(client_id: UUID, external_id: str) -> ColumnElement[bool]:
    # Who is being erased is not there any more, for any caller.
    return (
        (col(User.client_id) == client_id)
        & (col(User.external_id) == external_id)
        & col(User.erasing_at).is_(None)
    )


_FIND: Final = """
select id, display_name, extract(epoch from revoked_before)::float8 as revoked_before
from app_user where client_id = $1 and external_id = $2 and erasing_at is null
"""
_VOID: Final = """
select b.id from unnest($1::uuid[], $2::float8[]) b (id, issued_at)
left join app_user u on u.id = b.id
left join client c on c.id = u.client_id
where u.id is null or u.erasing_at is not null or c.status <> 'active'
  or greatest(u.revoked_before, c.revoked_before) >= to_timestamp(b.issued_at)
"""


class UserLookup:
    """Reads of users before anything is known of the caller: one statement, no transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(
        self, client_id: UUID, external_id: str
    ) -> tuple[UUID, str | None, float | None] | None:
        """Find a user's id, display name, and when what he held was revoked, in Unix seconds.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        with outages():
            async with asyncio.timeout(ACQUIRE_S):
                row = await (await self._database.fast()).fetchrow(_FIND, client_id, external_id)
        return None if row is None else (row["id"], row["display_name"], row["revoked_before"])

    async def void_among(self, issued_at: Mapping[UUID, float]) -> set[UUID]:
        """Tell whose credential, issued at a time in Unix seconds, is void by now.

        Raises:
            UnavailableError: PostgreSQL is away or too slow.
        """
        with outages():
            async with asyncio.timeout(ACQUIRE_S):
                rows = await (await self._database.fast()).fetch(
                    _VOID, list(issued_at), list(issued_at.values())
                )
        return {row["id"] for row in rows}
