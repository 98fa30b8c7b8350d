"""Every query about users."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import EXACT_TOTAL, PageRequest
from chatserver.users.models import User


class UserRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def put(
        self, client_id: UUID, external_id: str, profile: dict[str, Any]
    ) -> tuple[User, bool]:
        """Insert a user or replace the profile; tell whether the user is new."""
        draft = insert(User).values(
            id=uuid7(), client_id=client_id, external_id=external_id, **profile
        )
        # A row that this statement inserted has no deleter yet.
        is_new = literal_column("(xmax = 0)", Boolean)
        kept = await self._session.execute(
            draft.on_conflict_do_update(
                index_elements=[col(User.client_id), col(User.external_id)],
                set_=profile | {"updated_at": func.clock_timestamp()},
            )
            .returning(User, is_new)
            .execution_options(populate_existing=True)
        )
        row = kept.one()
        return row[0], row[1]

    async def change(
        self, client_id: UUID, external_id: str, changes: dict[str, Any]
    ) -> User | None:
        changed = await self._session.execute(
            update(User)
            .where(col(User.client_id) == client_id, col(User.external_id) == external_id)
            .values(updated_at=func.clock_timestamp(), **changes)
            .returning(User)
            .execution_options(populate_existing=True)
        )
        return changed.scalar_one_or_none()

    async def find(self, client_id: UUID, external_id: str) -> User | None:
        found = await self._session.execute(
            select(User).where(
                col(User.client_id) == client_id, col(User.external_id) == external_id
            )
        )
        return found.scalar_one_or_none()

    async def lock(self, client_id: UUID, external_id: str) -> User | None:
        """Find a user and keep others from changing what hangs on the row."""
        found = await self._session.execute(
            select(User)
            .where(col(User.client_id) == client_id, col(User.external_id) == external_id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        )
        return found.scalar_one_or_none()

    async def ids(self, client_id: UUID, external_ids: Iterable[str]) -> dict[str, UUID]:
        """Find many users at once; unknown ones are left out."""
        found = await self._session.execute(
            select(col(User.external_id), col(User.id)).where(
                col(User.client_id) == client_id, col(User.external_id).in_(list(external_ids))
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
            .where(col(User.client_id) == client_id)
            .order_by(col(User.external_id))
            .offset(page.offset)
            .limit(page.size)
        )
        return found.scalars().all()

    async def count(self, client_id: UUID) -> int:
        some = select(col(User.id)).where(col(User.client_id) == client_id).limit(EXACT_TOTAL + 1)
        counted = await self._session.execute(select(func.count()).select_from(some.subquery()))
        return counted.scalar_one()

    async def revoke(self, user_id: UUID) -> None:
        """Note that whatever the user holds from before now is void."""
        await self._session.execute(
            update(User)
            .where(col(User.id) == user_id)
            .values(revoked_before=func.clock_timestamp())
        )
