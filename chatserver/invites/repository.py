"""Every query about invites."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.invites.models import Invite
from chatserver.kernel.paging import EXACT_TOTAL


class InviteRepository:
    """Invites of one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, invite: Invite, *, lifetime_s: int) -> None:
        """Store an invite that ends after `lifetime_s`, by PostgreSQL's clock."""
        invite.expires_at = (
            await self._session.execute(
                text("select clock_timestamp() + make_interval(secs => :life)"),
                {"life": lifetime_s},
            )
        ).scalar_one()
        self._session.add(invite)
        await self._session.flush()
        await self._session.refresh(invite)

    async def by_hash(self, client_id: UUID, code_hash: bytes) -> Invite | None:
        found: Invite | None = await self._session.scalar(
            select(Invite).where(
                col(Invite.client_id) == client_id, col(Invite.code_hash) == code_hash
            )
        )
        return found

    async def is_live(self, invite: Invite) -> bool:
        """Tell whether somebody may still come by it."""
        return bool(
            await self._session.scalar(
                select(func.count()).where(col(Invite.id) == invite.id, *_live())
            )
        )

    async def use(self, invite: Invite) -> bool:
        """Count one more who comes in. False: it has ended, and nothing was counted."""
        used = await self._session.execute(
            update(Invite)
            .where(col(Invite.id) == invite.id, *_live())
            .values(uses=Invite.uses + 1)
            .returning(col(Invite.id))
        )
        return used.first() is not None

    async def of_room(
        self, room_id: UUID, *, offset: int, limit: int
    ) -> tuple[Sequence[Invite], int]:
        """Read a room's invites, the newest first, and how many there are."""
        where = col(Invite.room_id) == room_id
        rows = await self._session.scalars(
            select(Invite)
            .where(where)
            .order_by(col(Invite.created_at).desc(), col(Invite.id).desc())
            .offset(offset)
            .limit(limit)
        )
        counted = select(func.count()).select_from(
            select(col(Invite.id)).where(where).limit(EXACT_TOTAL + 1).subquery()
        )
        return rows.all(), int(await self._session.scalar(counted) or 0)

    async def revoke(self, room_id: UUID, invite_id: UUID) -> Invite | None:
        """End an invite; one that has ended stays as it is. None: the room has none of this id."""
        await self._session.execute(
            update(Invite)
            .where(
                col(Invite.room_id) == room_id,
                col(Invite.id) == invite_id,
                col(Invite.revoked_at).is_(None),
            )
            .values(revoked_at=func.clock_timestamp())
        )
        found: Invite | None = await self._session.scalar(
            select(Invite).where(col(Invite.room_id) == room_id, col(Invite.id) == invite_id),
            execution_options={"populate_existing": True},
        )
        return found


def _live() -> tuple[ColumnElement[bool], ...]:
    return (
        col(Invite.revoked_at).is_(None),
        col(Invite.expires_at) > func.clock_timestamp(),
        or_(col(Invite.max_uses).is_(None), col(Invite.uses) < col(Invite.max_uses)),
    )
