"""Every query about rooms and members."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.kernel.paging import EXACT_TOTAL
from chatserver.rooms.models import Departure, Member, Room, RoomBan
from chatserver.users.models import User

# What is shorter is found by walking through the client's rooms, the newest first.
GRAM: Final = 3


class RoomRepository:
    """Rooms, members and departures of one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def now(self) -> datetime:
        """Read PostgreSQL's clock: no other decides about time."""
        moment: datetime = (
            await self._session.execute(text("select clock_timestamp()"))
        ).scalar_one()
        return moment

    async def find(self, client_id: UUID, room_id: UUID) -> Room | None:
        return await self._one(_live(client_id).where(col(Room.id) == room_id))

    async def find_external(self, client_id: UUID, external_id: str) -> Room | None:
        return await self._one(_live(client_id).where(col(Room.external_id) == external_id))

    async def lock(self, client_id: UUID, room_id: UUID) -> Room | None:
        """Lock a room for whatever changes it; what is read after this is fresh."""
        statement = _live(client_id).where(col(Room.id) == room_id)
        return await self._one(statement.with_for_update(key_share=True))

    async def claim(self, client_id: UUID, name: str) -> None:
        """Serialise whoever makes a room of this name, or pair, until the transaction ends."""
        await self._session.execute(
            text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"),
            {"name": f"room:{client_id}:{name}"},
        )

    def add(self, room: Room) -> None:
        self._session.add(room)

    async def flush(self, room: Room) -> None:
        """Write what changed and read back what PostgreSQL filled in."""
        await self._session.flush()
        await self._session.refresh(room)

    async def list_mine(
        self,
        client_id: UUID,
        user_id: UUID,
        *,
        room_type: str | None,
        is_active: bool | None,
        offset: int,
        limit: int,
    ) -> tuple[list[tuple[Room, Member]], int]:
        """Read a user's rooms, the liveliest first, and how many there are."""
        where = [
            col(Member.user_id) == user_id,
            col(Member.client_id) == client_id,
            *_filters(room_type, is_active),
        ]
        joined = col(Room.id) == col(Member.room_id)
        rows = await self._session.execute(
            select(Room, Member)
            .join(Member, joined)
            .where(*where)
            .order_by(col(Room.last_activity_at).desc(), col(Room.id))
            .offset(offset)
            .limit(limit)
        )
        counted = select(func.count()).select_from(
            select(col(Room.id))
            .join(Member, joined)
            .where(*where)
            .limit(EXACT_TOTAL + 1)
            .subquery()
        )
        return [(room, member) for room, member in rows], await self._count(counted)

    async def list_all(
        self,
        client_id: UUID,
        *,
        room_type: str | None,
        is_active: bool | None,
        q: str | None,
        offset: int,
        limit: int,
    ) -> tuple[list[Room], int]:
        """Read a client's rooms, the newest first; `q` is found in titles and external ids."""
        where = [col(Room.client_id) == client_id, *_filters(room_type, is_active)]
        if q is not None and len(q) >= GRAM:
            mine = func.room_grams(col(Room.client_id), col(Room.title), col(Room.external_id))
            wanted = func.room_grams(client_id, q, None)
            # Through the index first; what has all grams of `q` may still hold them elsewhere.
            where.append(mine.op("@>")(wanted))
        if q is not None:
            where.append(
                col(Room.title).icontains(q, autoescape=True)
                | col(Room.external_id).icontains(q, autoescape=True)
            )
        rows = await self._session.scalars(
            select(Room)
            .where(*where)
            .order_by(col(Room.created_at).desc(), col(Room.id).desc())
            .offset(offset)
            .limit(limit)
        )
        counted = select(func.count()).select_from(
            select(col(Room.id)).where(*where).limit(EXACT_TOTAL + 1).subquery()
        )
        return list(rows), await self._count(counted)

    async def find_member(self, room_id: UUID, user_id: UUID) -> Member | None:
        found: Member | None = await self._session.scalar(
            select(Member).where(col(Member.room_id) == room_id, col(Member.user_id) == user_id)
        )
        return found

    async def has_left(self, room_id: UUID, user_id: UUID) -> bool:
        """Tell whether the user was in this room once."""
        found = await self._session.scalar(
            select(col(Departure.at)).where(
                col(Departure.room_id) == room_id, col(Departure.user_id) == user_id
            )
        )
        return found is not None

    async def members_among(self, room_id: UUID, users: Sequence[UUID]) -> dict[UUID, Member]:
        rows = await self._session.scalars(
            select(Member).where(col(Member.room_id) == room_id, col(Member.user_id).in_(users))
        )
        return {member.user_id: member for member in rows}

    async def list_members(
        self, room_id: UUID, *, offset: int, limit: int
    ) -> list[tuple[Member, User]]:
        rows = await self._session.execute(
            select(Member, User)
            .join(User, col(User.id) == col(Member.user_id))
            .where(col(Member.room_id) == room_id)
            .order_by(col(Member.joined_at), col(Member.user_id))
            .offset(offset)
            .limit(limit)
        )
        return [(member, user) for member, user in rows]

    async def profiles(self, room_id: UUID, users: Sequence[UUID]) -> list[tuple[Member, User]]:
        rows = await self._session.execute(
            select(Member, User)
            .join(User, col(User.id) == col(Member.user_id))
            .where(col(Member.room_id) == room_id, col(Member.user_id).in_(users))
            .order_by(col(User.external_id))
        )
        return [(member, user) for member, user in rows]

    async def add_members(self, rows: list[dict[str, Any]]) -> None:
        """Insert members whose rooms are locked, and forget that they ever left."""
        await self._session.flush()
        await self._session.execute(insert(Member), rows)
        room_id = rows[0]["room_id"]
        users = [row["user_id"] for row in rows]
        await self._session.execute(
            delete(Departure).where(
                col(Departure.room_id) == room_id, col(Departure.user_id).in_(users)
            )
        )

    async def remove_member(self, member: Member, reason: str) -> None:
        """Delete a member and keep for 90 days that and why it left."""
        # A direct room that one has left is no longer the one where the two find each other.
        await self._session.execute(
            update(Room)
            .where(col(Room.id) == member.room_id, col(Room.pair).is_not(None))
            .values(pair=None)
        )
        await self._session.execute(
            delete(Member).where(
                col(Member.room_id) == member.room_id, col(Member.user_id) == member.user_id
            )
        )
        row = upsert(Departure).values(
            room_id=member.room_id,
            user_id=member.user_id,
            client_id=member.client_id,
            reason=reason,
        )
        await self._session.execute(
            row.on_conflict_do_update(
                index_elements=["room_id", "user_id"],
                set_={"reason": reason, "at": func.clock_timestamp()},
            )
        )

    async def find_pair(self, client_id: UUID, pair: str) -> Room | None:
        """Find the direct room of two people."""
        return await self._one(_live(client_id).where(col(Room.pair) == pair))

    async def ban(
        self, room: Room, user_id: UUID, *, until: datetime | None, reason: str | None
    ) -> None:
        row = upsert(RoomBan).values(
            room_id=room.id, user_id=user_id, client_id=room.client_id, until=until, reason=reason
        )
        await self._session.execute(
            row.on_conflict_do_update(
                index_elements=["room_id", "user_id"],
                set_={"until": until, "reason": reason, "created_at": func.clock_timestamp()},
            )
        )

    async def unban(self, room_id: UUID, user_id: UUID) -> bool:
        """Delete a ban; False when there is none."""
        gone = await self._session.execute(
            delete(RoomBan).where(col(RoomBan.room_id) == room_id, col(RoomBan.user_id) == user_id)
        )
        return bool(gone.rowcount)  # type: ignore[attr-defined]  # a delete gives a cursor result

    async def bans_among(self, room_id: UUID, users: Sequence[UUID]) -> list[RoomBan]:
        """Read the bans that hold now, of some people."""
        rows = await self._session.scalars(
            select(RoomBan).where(
                col(RoomBan.room_id) == room_id,
                col(RoomBan.user_id).in_(users),
                _holds(),
            )
        )
        return list(rows)

    async def list_bans(
        self, room_id: UUID, *, offset: int, limit: int
    ) -> tuple[list[tuple[RoomBan, str]], int]:
        """Read who is banned now, the newest first, and how many they are."""
        where = [col(RoomBan.room_id) == room_id, _holds()]
        rows = await self._session.execute(
            select(RoomBan, col(User.external_id))
            .join(User, col(User.id) == col(RoomBan.user_id))
            .where(*where)
            .order_by(col(RoomBan.created_at).desc(), col(RoomBan.user_id))
            .offset(offset)
            .limit(limit)
        )
        counted = select(func.count()).select_from(
            select(col(RoomBan.user_id)).where(*where).limit(EXACT_TOTAL + 1).subquery()
        )
        return [(ban, name) for ban, name in rows], await self._count(counted)

    async def change_room_sets(self, users: Sequence[UUID]) -> None:
        """Raise the users' `rooms_version`: what a node compares to find news that it missed."""
        ordered = (
            select(col(User.id))
            .where(col(User.id).in_(users))
            .order_by(col(User.id))
            .with_for_update(key_share=True)
        )
        await self._session.execute(ordered)
        await self._session.execute(
            update(User)
            .where(col(User.id).in_(users))
            .values(rooms_version=User.rooms_version + 1, rooms_changed_at=func.clock_timestamp())
        )

    async def dismiss_all(self, room: Room, reason: str) -> None:
        """Let everyone leave a room that ends; set-based, since a channel may have very many."""
        await self._session.flush()
        for statement in _DISMISS:
            await self._session.execute(
                text(statement), {"room": room.id, "client": room.client_id, "reason": reason}
            )

    async def due(self, limit: int) -> list[tuple[Room, dict[str, Any]]]:
        """Lock rooms whose check is due, with their clients' own lifetimes."""
        await self._session.flush()
        locked = await self._session.scalars(
            select(Room)
            .where(
                col(Room.deactivation_check_at) <= func.statement_timestamp(),
                col(Room.is_active).is_(True),
                col(Room.deleted_at).is_(None),
            )
            .order_by(col(Room.deactivation_check_at))
            .limit(limit)
            .with_for_update(key_share=True, skip_locked=True)
        )
        rooms = list(locked)
        if not rooms:
            return []
        settings = await self._session.execute(
            text("select id, settings from client where id = any(:ids)"),
            {"ids": list({room.client_id for room in rooms})},
        )
        own = {row.id: row.settings.get("room_deactivation") or {} for row in settings}
        return [(room, own.get(room.client_id, {})) for room in rooms]

    async def recheck(self, client_id: UUID, limit: int) -> int:
        """Have up to `limit` rooms looked at soon that were to be looked at later or never."""
        looked = await self._session.execute(text(_RECHECK), {"client": client_id, "limit": limit})
        return int(looked.rowcount)  # type: ignore[attr-defined]  # an update gives a cursor result

    async def purge(self, client_id: UUID, room_id: UUID, limit: int) -> bool:
        """Delete up to `limit` rows of a deleted room per table; True while more are left."""
        values = {"room": room_id, "client": client_id, "limit": limit}
        for statement in _PURGE:
            gone = await self._session.execute(text(statement), values)
            if gone.rowcount:  # type: ignore[attr-defined]  # a delete gives a cursor result
                return True
        await self._session.execute(
            text(
                "delete from room where id = :room and client_id = :client"
                " and deleted_at is not null"
            ),
            values,
        )
        return False

    async def _one(self, statement: Select[Room]) -> Room | None:
        found: Room | None = await self._session.scalar(
            statement, execution_options={"populate_existing": True}
        )
        return found

    async def _count(self, statement: Select[int]) -> int:
        return int(await self._session.scalar(statement) or 0)


_DISMISS = (
    """
    insert into departure (room_id, user_id, client_id, reason)
    select room_id, user_id, client_id, :reason from member
    where room_id = :room and client_id = :client
    on conflict (room_id, user_id) do update set reason = :reason, at = clock_timestamp()
    """,
    """
    select id from app_user where id in (select user_id from member where room_id = :room)
    order by id for no key update
    """,
    """
    update app_user set rooms_version = rooms_version + 1, rooms_changed_at = clock_timestamp()
    where id in (select user_id from member where room_id = :room)
    """,
    "delete from member where room_id = :room and client_id = :client",
)
# What is due already is left alone, so that this ends.
_RECHECK = """
update room set deactivation_check_at = clock_timestamp() where id = any (array(
  select id from room where client_id = :client and is_active and deleted_at is null
    and (deactivation_check_at is null or deactivation_check_at > statement_timestamp())
  limit :limit for no key update skip locked))
"""
_PURGE = tuple(
    f"delete from {table} where ctid = any (array("  # noqa: S608 - names of our own tables
    f" select x.ctid from {table} x join room r on r.id = x.room_id"
    f" where x.room_id = :room and x.client_id = :client and r.deleted_at is not null"
    f" limit :limit))"
    for table in ("room_event", "mention", "message", "room_ban", "member")
)


def _holds() -> ColumnElement[bool]:
    return col(RoomBan.until).is_(None) | (col(RoomBan.until) > func.statement_timestamp())


def _live(client_id: UUID) -> Select[Room]:
    return select(Room).where(col(Room.client_id) == client_id, col(Room.deleted_at).is_(None))


def _filters(
    room_type: str | None,
    is_active: bool | None,  # noqa: FBT001 - None, True and False are three answers here
) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [col(Room.deleted_at).is_(None)]
    if room_type is not None:
        where.append(col(Room.type) == room_type)
    if is_active is not None:
        where.append(col(Room.is_active).is_(is_active))
    return where
