"""Every query about bots and their seats."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import and_, delete, exists, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.assistant.bots.models import Bot, BotUser, RoomBot
from chatserver.kernel.paging import EXACT_TOTAL
from chatserver.users.models import User

# Whether each member of a room may use a bot. A member that may not is one too many.
_USABLE_BY_ALL: Final = text("""
select not exists (
  select from member m
  where m.client_id = :client and m.room_id = :room
    and not exists (select from bot_user u where u.bot_id = :bot and u.user_id = m.user_id))
""")


class BotRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, bot: Bot) -> Bot:
        self._session.add(bot)
        await self._session.flush()
        await self._session.refresh(bot)
        return bot

    async def find(self, client_id: UUID, bot_id: UUID, *, lock: bool = False) -> Bot | None:
        query = select(Bot).where(
            col(Bot.client_id) == client_id, col(Bot.id) == bot_id, col(Bot.deleted_at).is_(None)
        )
        found = await self._session.scalars(query.with_for_update() if lock else query)
        return found.one_or_none()

    async def flush(self, bot: Bot) -> None:
        await self._session.flush()
        await self._session.refresh(bot)

    async def now(self) -> datetime:
        moment: datetime = (
            await self._session.execute(select(func.clock_timestamp()))
        ).scalar_one()
        return moment

    async def list_bots(
        self, client_id: UUID, user_id: UUID | None, *, offset: int, limit: int
    ) -> tuple[Sequence[Bot], int]:
        """List bots, the oldest first; for a user those that the user may use or edit."""
        where = [col(Bot.client_id) == client_id, col(Bot.deleted_at).is_(None)]
        if user_id is not None:
            named = exists().where(
                and_(col(BotUser.bot_id) == col(Bot.id), col(BotUser.user_id) == user_id)
            )
            where.append(or_(col(Bot.access) == "everyone", named))
        found = await self._session.scalars(
            select(Bot)
            .where(*where)
            .order_by(col(Bot.created_at), col(Bot.id))
            .offset(offset)
            .limit(limit)
        )
        several = select(col(Bot.id)).where(*where).limit(EXACT_TOTAL + 1).subquery()
        counted = await self._session.scalar(select(func.count()).select_from(several))
        return found.all(), counted or 0

    async def role(self, bot_id: UUID, user_id: UUID) -> str | None:
        found: str | None = await self._session.scalar(
            select(col(BotUser.role)).where(
                col(BotUser.bot_id) == bot_id, col(BotUser.user_id) == user_id
            )
        )
        return found

    async def people(self, bot_ids: Sequence[UUID]) -> list[tuple[UUID, str, str]]:
        """Give (bot, external id, role) of everybody named."""
        found = await self._session.execute(
            select(col(BotUser.bot_id), col(User.external_id), col(BotUser.role))
            .join(User, col(User.id) == col(BotUser.user_id))
            .where(col(BotUser.bot_id).in_(bot_ids))
            .order_by(col(User.external_id))
        )
        return [(row[0], row[1], row[2]) for row in found]

    async def editors(self, bot_id: UUID) -> list[UUID]:
        found = await self._session.scalars(
            select(col(BotUser.user_id)).where(
                col(BotUser.bot_id) == bot_id, col(BotUser.role) == "editor"
            )
        )
        return list(found)

    async def edited_by(self, client_id: UUID, user_id: UUID) -> list[UUID]:
        found = await self._session.scalars(
            select(col(BotUser.bot_id)).where(
                col(BotUser.client_id) == client_id,
                col(BotUser.user_id) == user_id,
                col(BotUser.role) == "editor",
            )
        )
        return list(found)

    async def name_people(self, bot: Bot, roles: Mapping[UUID, str]) -> None:
        """Replace who is named in a bot's access."""
        await self._session.execute(delete(BotUser).where(col(BotUser.bot_id) == bot.id))
        if roles:
            await self._session.execute(
                insert(BotUser),
                [
                    {"bot_id": bot.id, "user_id": user, "client_id": bot.client_id, "role": role}
                    for user, role in roles.items()
                ],
            )

    async def mirror(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep copies of the dashboard's bots."""
        if not rows:
            return
        statement = insert(Bot).values([{**row, "origin": "dashboard"} for row in rows])
        kept = {
            name: statement.excluded[name]
            for name in (
                "name",
                "instructions",
                "model",
                "temperature",
                "retrieval",
                "updated_at",
            )
        } | {"deleted_at": None}
        # An id of another client's bot stays that client's; what has not changed is not written.
        await self._session.execute(
            statement.on_conflict_do_update(
                index_elements=[col(Bot.id)],
                set_=kept,
                where=and_(
                    col(Bot.client_id) == statement.excluded.client_id,
                    or_(
                        col(Bot.updated_at) != statement.excluded.updated_at,
                        col(Bot.deleted_at).is_not(None),
                    ),
                ),
            )
        )

    async def forget_missing(self, client_id: UUID, known: Sequence[UUID]) -> None:
        """Take the dashboard's bots that are gone there out of use here."""
        await self._session.execute(
            update(Bot)
            .where(
                col(Bot.client_id) == client_id,
                col(Bot.origin) == "dashboard",
                col(Bot.deleted_at).is_(None),
                col(Bot.id).not_in(known),
            )
            .values(deleted_at=func.clock_timestamp())
        )

    async def usable_by_all(self, client_id: UUID, bot_id: UUID, room_id: UUID) -> bool:
        """Tell whether every member of a room is named in a listed bot's access."""
        found = await self._session.execute(
            _USABLE_BY_ALL, {"client": client_id, "bot": bot_id, "room": room_id}
        )
        return bool(found.scalar_one())

    async def seats(self, client_id: UUID, room_id: UUID) -> list[tuple[RoomBot, Bot]]:
        found = await self._session.execute(
            select(RoomBot, Bot)
            .join(Bot, col(Bot.id) == col(RoomBot.bot_id))
            .where(
                col(RoomBot.client_id) == client_id,
                col(RoomBot.room_id) == room_id,
                col(Bot.deleted_at).is_(None),
            )
            .order_by(col(RoomBot.added_at), col(RoomBot.bot_id))
        )
        return [(row[0], row[1]) for row in found]

    async def seat(self, room_id: UUID, bot_id: UUID) -> RoomBot | None:
        return await self._session.get(RoomBot, (room_id, bot_id))

    async def add_seat(self, seat: RoomBot) -> None:
        self._session.add(seat)
        await self._session.flush()
        await self._session.refresh(seat)

    async def remove_seat(self, seat: RoomBot) -> None:
        await self._session.delete(seat)
        await self._session.flush()

    async def rooms_of(self, client_id: UUID, bot_id: UUID, *, limit: int) -> list[UUID]:
        found = await self._session.scalars(
            select(col(RoomBot.room_id))
            .where(col(RoomBot.client_id) == client_id, col(RoomBot.bot_id) == bot_id)
            .order_by(col(RoomBot.room_id))
            .limit(limit)
        )
        return list(found)
