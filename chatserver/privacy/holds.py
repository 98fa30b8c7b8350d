"""Legal holds: what must be kept, whatever anybody asks for and however old it is.

A hold on a person keeps the person, and every room the person is in, was in lately or wrote in. A
hold on a room keeps the room, and stops the erasure of whoever is in it or wrote in it.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.infra.audit import actor_name
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import EXACT_TOTAL, Page
from chatserver.kernel.principal import Principal
from chatserver.privacy.errors import LegalHoldNotFoundError
from chatserver.privacy.models import Erasure, LegalHold
from chatserver.privacy.schemas import HoldList, HoldOut, HoldPath, PlaceHold
from chatserver.rooms.errors import RoomNotFoundError
from chatserver.rooms.models import Room
from chatserver.users.models import User
from chatserver.users.service import UserService

# Of a room `r`: whether a hold keeps it.
IS_HELD: Final = """exists (
  select from legal_hold h where h.client_id = r.client_id and h.released_at is null
    and (h.room_id = r.id or (h.user_id is not null and (
      exists (select from member m where m.room_id = r.id and m.user_id = h.user_id)
      or exists (select from departure d where d.room_id = r.id and d.user_id = h.user_id)
      or exists (select from message g
        where g.room_id = r.id and g.sender_key = h.user_id::text)))))"""
_IS_ROOM_HELD: Final = text(
    f"select {IS_HELD} from room r where r.client_id = :client and r.id = :room"  # noqa: S608 - ours
)
_TOUCHING: Final = text("""
select h.id from legal_hold h
where h.client_id = :client and h.released_at is null and (h.user_id = :user
  or (h.room_id is not null and (
    exists (select from member m where m.room_id = h.room_id and m.user_id = :user)
    or exists (select from departure d where d.room_id = h.room_id and d.user_id = :user)
    or exists (select from message g where g.room_id = h.room_id and g.sender_key = :key))))
order by h.id limit 20
""")
_DELETED_ROOMS: Final = text(
    "select id from room where client_id = :client and deleted_at is not null order by id"
)
_WAITING_ERASURES: Final = text(
    "select id from erasure where client_id = :client and state = 'held' order by id"
)


class HoldRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def keeps_room(self, client_id: UUID, room_id: UUID) -> bool:
        """Tell whether nothing of a room may be deleted, by whichever hold."""
        found = await self._session.execute(_IS_ROOM_HELD, {"client": client_id, "room": room_id})
        return bool(found.scalar_one_or_none())

    async def touching(self, client_id: UUID, user_id: UUID) -> list[UUID]:
        """Name the holds that stop the erasure of a person; at most 20."""
        found = await self._session.execute(
            _TOUCHING, {"client": client_id, "user": user_id, "key": str(user_id)}
        )
        return list(found.scalars())

    async def add(self, hold: LegalHold) -> LegalHold:
        self._session.add(hold)
        await self._session.flush()
        await self._session.refresh(hold)
        return hold

    async def release(self, client_id: UUID, hold_id: UUID, by: str) -> LegalHold | None:
        """End a hold; None when there is none that is active."""
        ended = await self._session.execute(
            update(LegalHold)
            .where(
                col(LegalHold.client_id) == client_id,
                col(LegalHold.id) == hold_id,
                col(LegalHold.released_at).is_(None),
            )
            .values(released_at=func.clock_timestamp(), released_by=by)
            .returning(LegalHold)
            .execution_options(populate_existing=True)
        )
        return ended.scalar_one_or_none()

    async def list(
        self, client_id: UUID, command: HoldList
    ) -> tuple[list[tuple[LegalHold, str | None]], int]:
        """Read a page of holds, the newest first, with the person's name; and how many."""
        where = [col(LegalHold.client_id) == client_id]
        if command.is_active is not None:
            ended = col(LegalHold.released_at).is_not(None)
            where.append(~ended if command.is_active else ended)
        rows = await self._session.execute(
            select(LegalHold, col(User.external_id))
            .outerjoin(User, col(User.id) == col(LegalHold.user_id))
            .where(*where)
            .order_by(col(LegalHold.id).desc())
            .offset(command.offset)
            .limit(command.size)
        )
        some = select(col(LegalHold.id)).where(*where).limit(EXACT_TOTAL + 1)
        counted = await self._session.execute(select(func.count()).select_from(some.subquery()))
        return [(hold, name) for hold, name in rows], counted.scalar_one()

    async def name_of(self, user_id: UUID | None) -> str | None:
        if user_id is None:
            return None
        found = await self._session.execute(
            select(col(User.external_id)).where(col(User.id) == user_id)
        )
        return found.scalar_one_or_none()

    async def deleted_rooms(self, client_id: UUID) -> Sequence[UUID]:
        """Name the rooms whose rows are still to be removed."""
        found = await self._session.execute(_DELETED_ROOMS, {"client": client_id})
        return list(found.scalars())

    async def waiting_erasures(self, client_id: UUID) -> Sequence[UUID]:
        """Name the erasures that a hold stopped while they were under way."""
        found = await self._session.execute(_WAITING_ERASURES, {"client": client_id})
        return list(found.scalars())

    async def stop(self, erasure_id: UUID) -> None:
        """Note that an erasure waits for a hold to be released."""
        await self._session.execute(
            update(Erasure).where(col(Erasure.id) == erasure_id).values(state="held")
        )


class Rooms(Protocol):
    """Rooms of one transaction."""

    async def lock(self, client_id: UUID, room_id: UUID) -> Room | None: ...


class HoldService:
    """`purge` and `erase` plan again what a hold had stopped: (client, what, name of the plan)."""

    def __init__(
        self,
        *,
        holds: HoldRepository,
        users: UserService,
        rooms: Rooms,
        recorder: Recorder,
        purge: Callable[[UUID, UUID, str], Awaitable[None]],
        erase: Callable[[UUID, UUID, str], Awaitable[None]],
    ) -> None:
        self._holds = holds
        self._users = users
        self._rooms = rooms
        self._recorder = recorder
        self._purge = purge
        self._erase = erase

    async def place(self, principal: Principal, command: PlaceHold) -> HoldOut:
        """Keep a person or a room from now on.

        Raises:
            UserNotFoundError, RoomNotFoundError: unknown, or gone already.
        """
        client_id = principal.client_id
        hold = LegalHold(
            id=uuid7(),
            client_id=client_id,
            reason=command.reason,
            placed_by=actor_name(principal),
        )
        # The lock is what erasures and deletions take, too: either they see the hold, or it comes
        # too late and says so.
        if command.user_id is not None:
            hold.user_id = (await self._users.locked(principal, command.user_id)).id
            subject = f"user:{command.user_id}"
        else:
            assert command.room_id is not None  # noqa: S101 - one of the two is given
            room = await self._rooms.lock(client_id, command.room_id)
            if room is None:
                raise RoomNotFoundError
            hold.room_id = room.id
            subject = f"room:{room.id}"
        kept = await self._holds.add(hold)
        self._recorder.audit(
            client_id, principal, "legal_hold.place", subject, hold_id=kept.id, reason=kept.reason
        )
        return _shown(kept, command.user_id)

    async def list(self, principal: Principal, command: HoldList) -> Page[HoldOut]:
        found, counted = await self._holds.list(principal.client_id, command)
        return Page[HoldOut].of([_shown(hold, name) for hold, name in found], command, counted)

    async def release(self, principal: Principal, command: HoldPath) -> HoldOut:
        """End a hold. What it alone had stopped goes on.

        Raises:
            LegalHoldNotFoundError: there is none, or it ended before.
        """
        client_id = principal.client_id
        hold = await self._holds.release(client_id, command.id, actor_name(principal))
        if hold is None:
            raise LegalHoldNotFoundError
        name = await self._holds.name_of(hold.user_id)
        subject = f"room:{hold.room_id}" if name is None else f"user:{name}"
        self._recorder.audit(client_id, principal, "legal_hold.release", subject, hold_id=hold.id)
        # Each looks again whether another hold is left. Named after this one: a job of the same
        # kind that is just giving up must not be taken for the new one.
        for room_id in await self._holds.deleted_rooms(client_id):
            await self._purge(client_id, room_id, f"{room_id}:{hold.id}")
        for erasure_id in await self._holds.waiting_erasures(client_id):
            await self._erase(client_id, erasure_id, f"{erasure_id}:{hold.id}")
        return _shown(hold, name)


def _shown(hold: LegalHold, user: str | None) -> HoldOut:
    values: dict[str, Any] = {
        "id": hold.id,
        "user_id": user,
        "room_id": hold.room_id,
        "reason": hold.reason,
        "placed_by": hold.placed_by,
        "placed_at": hold.placed_at,
        "released_by": hold.released_by,
        "released_at": hold.released_at,
    }
    return HoldOut(**values)
