"""What can be done with bots: keep them, find those one may use, and seat them in rooms."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

from chatserver.assistant.bots.errors import BotElsewhereError, BotNotFoundError
from chatserver.assistant.bots.models import Bot, RoomBot
from chatserver.assistant.bots.repository import BotRepository
from chatserver.assistant.bots.schemas import (
    Access,
    BotOut,
    BotPath,
    CreateBot,
    DeletedBot,
    ListBots,
    RoomBotList,
    RoomBotOut,
    RoomBotPath,
    RoomBots,
    SeatBot,
    Unseated,
    UpdateBot,
    settings_of,
)
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.events import Fact
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.realtime.errors import QuotaExceededError
from chatserver.rooms.events import actor_of, room_fact
from chatserver.rooms.models import Member, Room

MOST_PER_ROOM: Final = 10


class Rooms(Protocol):
    """What this needs of the rooms' service."""

    async def visible(self, principal: Principal, room_id: UUID) -> tuple[Room, Member | None]: ...

    async def locked(
        self, principal: Principal, room_id: UUID, *, needed: str
    ) -> tuple[Room, Member | None]: ...


class People(Protocol):
    """Where external ids become server ids."""

    async def find(
        self, client_id: UUID, external_ids: Collection[str], *, field: str
    ) -> dict[str, UUID]: ...


class Directory(Protocol):
    """The dashboard's bots, where they live there. Rows as `BotRepository.mirror` takes them."""

    async def all(self, client_id: UUID) -> Sequence[dict[str, Any]] | None:
        """Give a client's bots; None: the dashboard is away, or asked a moment ago."""
        ...


class BotService:
    """`purge` plans the removal of what a deleted bot leaves behind."""

    def __init__(
        self,
        *,
        bots: BotRepository,
        rooms: Rooms,
        people: People,
        recorder: Recorder,
        generation: Callable[[], int],
        purge: Callable[[UUID, UUID], Awaitable[None]],
        directory: Directory | None = None,
    ) -> None:
        self._bots = bots
        self._rooms = rooms
        self._people = people
        self._recorder = recorder
        self._generation = generation
        self._purge = purge
        self._directory = directory

    async def create(self, principal: Principal, command: CreateBot) -> BotOut:
        self._refuse_elsewhere()
        bot = await self._bots.add(
            Bot(
                id=uuid7(),
                client_id=principal.client_id,
                name=command.name,
                instructions=command.instructions,
                model=command.model,
                temperature=command.temperature,
                retrieval=command.retrieval.model_dump(),
                access=command.access.mode,
            )
        )
        await self._name_people(bot, command.access)
        self._recorder.audit(bot.client_id, principal, "bot.create", f"bot:{bot.id}")
        return shown(bot, command.access)

    async def get(self, principal: Principal, command: BotPath) -> BotOut:
        bot = await self.usable(principal, command.bot_id)
        return await self._shown(principal, bot)

    async def list_bots(self, principal: Principal, command: ListBots) -> Page[BotOut]:
        await self._refresh(principal.client_id)
        user_id = principal.user_id if principal.is_user else None
        found, counted = await self._bots.list_bots(
            principal.client_id, user_id, offset=command.offset, limit=command.size
        )
        accesses = {} if principal.is_user else await self._accesses(found)
        items = [shown(bot, accesses.get(bot.id)) for bot in found]
        return Page[BotOut].of(items, command, counted)

    async def update(self, principal: Principal, command: UpdateBot) -> BotOut:
        self._refuse_elsewhere()
        bot = await self._bots.find(principal.client_id, command.bot_id, lock=True)
        if bot is None:
            raise BotNotFoundError
        given = command.model_fields_set - {"bot_id"}
        for name in given & {"name", "instructions", "model", "temperature"}:
            setattr(bot, name, getattr(command, name))
        if command.retrieval is not None:
            bot.retrieval = command.retrieval.model_dump()
        if command.access is not None:
            bot.access = command.access.mode
            await self._name_people(bot, command.access)
        bot.updated_at = await self._bots.now()
        await self._bots.flush(bot)
        self._recorder.audit(
            bot.client_id, principal, "bot.update", f"bot:{bot.id}", changed=sorted(given)
        )
        return await self._shown(principal, bot)

    async def delete(self, principal: Principal, command: BotPath) -> DeletedBot:
        """End a bot at once; its seats, documents and their files go in the background."""
        self._refuse_elsewhere()
        bot = await self._bots.find(principal.client_id, command.bot_id, lock=True)
        if bot is None:
            raise BotNotFoundError
        bot.deleted_at = await self._bots.now()
        await self._bots.flush(bot)
        await self._purge(bot.client_id, bot.id)
        self._recorder.audit(bot.client_id, principal, "bot.delete", f"bot:{bot.id}")
        return DeletedBot(id=bot.id)

    async def find(self, client_id: UUID, bot_id: UUID) -> Bot | None:
        """Find a bot of a client, whoever may use it."""
        await self._refresh(client_id)
        return await self._bots.find(client_id, bot_id)

    async def usable(self, principal: Principal, bot_id: UUID) -> Bot:
        """Find a bot that the caller may use.

        Raises:
            BotNotFoundError: unknown, another client's, or not for this caller.
        """
        bot = await self.find(principal.client_id, bot_id)
        if bot is None:
            raise BotNotFoundError
        if principal.is_user and not await self.may_use(bot, principal.user_id):
            raise BotNotFoundError
        return bot

    async def may_use(self, bot: Bot, user_id: UUID) -> bool:
        return bot.access == "everyone" or await self._bots.role(bot.id, user_id) is not None

    async def editable(self, principal: Principal, bot_id: UUID) -> Bot:
        """Find a bot whose documents the caller may change: the application, or an editor.

        Raises:
            BotNotFoundError: unknown, another client's, or not the caller's to edit.
        """
        bot = await self.find(principal.client_id, bot_id)
        if bot is None:
            raise BotNotFoundError
        if principal.is_user and await self._bots.role(bot.id, principal.user_id) != "editor":
            raise BotNotFoundError
        return bot

    async def may_edit(self, principal: Principal, bot_id: UUID) -> bool:
        """Tell whether the caller may change the documents of a bot that exists or did."""
        return not principal.is_user or (
            await self._bots.role(bot_id, principal.user_id) == "editor"
        )

    async def edited_by(self, client_id: UUID, user_id: UUID) -> Sequence[UUID]:
        """Give the bots whose documents a person may change."""
        return await self._bots.edited_by(client_id, user_id)

    async def first_usable(self, client_id: UUID, user_id: UUID) -> Bot | None:
        """Give the oldest bot that a person may use."""
        await self._refresh(client_id)
        found, _ = await self._bots.list_bots(client_id, user_id, offset=0, limit=1)
        return found[0] if found else None

    async def editors(self, bot_id: UUID) -> Sequence[UUID]:
        """Give the server ids of those who may change a bot's documents."""
        return await self._bots.editors(bot_id)

    async def usable_in_room(self, bot: Bot, room_id: UUID) -> bool:
        """Tell whether a bot may answer in a room: it is a member, or every member may use it."""
        if await self._bots.seat(room_id, bot.id) is not None:
            return True
        return bot.access == "everyone" or await self._bots.usable_by_all(
            bot.client_id, bot.id, room_id
        )

    async def in_room(self, client_id: UUID, room_id: UUID) -> list[tuple[RoomBot, Bot]]:
        """Give the bots that are members of a room."""
        return await self._bots.seats(client_id, room_id)

    async def list_seats(self, principal: Principal, command: RoomBots) -> RoomBotList:
        await self._rooms.visible(principal, command.room_id)
        seats = await self._bots.seats(principal.client_id, command.room_id)
        return RoomBotList(items=[_seat_shown(seat, bot) for seat, bot in seats])

    async def seat(self, principal: Principal, command: SeatBot) -> RoomBotOut:
        """Make a bot a member of a room, or change its seat.

        Raises:
            BotNotFoundError: not a bot that the caller may use.
            QuotaExceededError: the room has enough bots.
        """
        room, _ = await self._rooms.locked(principal, command.room_id, needed="moderator")
        bot = await self.usable(principal, command.bot_id)
        seat = await self._bots.seat(room.id, bot.id)
        if seat is None:
            seat = await self.seat_in(room, bot, answers=command.answers or "auto")
            self._recorder.record(self._changed(principal, room))
        elif command.answers is not None:
            seat.answers = command.answers
        if command.paused is not None:
            seat.is_paused = command.paused
        return _seat_shown(seat, bot)

    async def seat_in(self, room: Room, bot: Bot, *, answers: str = "auto") -> RoomBot:
        """Seat a bot in a room that the caller has locked or just made.

        Raises:
            QuotaExceededError: the room has enough bots.
        """
        if room.bots >= MOST_PER_ROOM:
            raise QuotaExceededError(f"A room has at most {MOST_PER_ROOM} bots.")
        seat = RoomBot(room_id=room.id, bot_id=bot.id, client_id=room.client_id, answers=answers)
        room.bots += 1
        await self._bots.add_seat(seat)
        return seat

    async def unseat(self, principal: Principal, command: RoomBotPath) -> Unseated:
        room, _ = await self._rooms.locked(principal, command.room_id, needed="moderator")
        seat = await self._bots.seat(room.id, command.bot_id)
        if seat is None or seat.client_id != principal.client_id:
            raise BotNotFoundError
        room.bots = max(0, room.bots - 1)
        await self._bots.remove_seat(seat)
        self._recorder.record(self._changed(principal, room))
        return Unseated(room_id=room.id, bot_id=command.bot_id, removed=True)

    def _changed(self, principal: Principal, room: Room) -> Fact:
        return room_fact("room.updated", room, self._generation(), actor_of(principal))

    def _refuse_elsewhere(self) -> None:
        if self._directory is not None:
            raise BotElsewhereError

    async def _refresh(self, client_id: UUID) -> None:
        """Take over what the dashboard says, if it is there; else what it last said holds."""
        if self._directory is None:
            return
        rows = await self._directory.all(client_id)
        if rows is not None:
            await self._bots.mirror(rows)
            await self._bots.forget_missing(client_id, [row["id"] for row in rows])

    async def _name_people(self, bot: Bot, access: Access) -> None:
        named = {
            **dict.fromkeys(access.user_ids, "user"),
            **dict.fromkeys(access.editors, "editor"),
        }
        found = await self._people.find(bot.client_id, list(named), field="access") if named else {}
        await self._bots.name_people(bot, {found[name]: role for name, role in named.items()})

    async def _accesses(self, bots: Sequence[Bot]) -> dict[UUID, Access]:
        users: dict[UUID, list[str]] = defaultdict(list)
        editors: dict[UUID, list[str]] = defaultdict(list)
        for bot_id, name, role in await self._bots.people([bot.id for bot in bots]):
            (editors if role == "editor" else users)[bot_id].append(name)
        return {
            bot.id: Access.model_validate(
                {"mode": bot.access, "user_ids": users[bot.id], "editors": editors[bot.id]}
            )
            for bot in bots
        }

    async def _shown(self, principal: Principal, bot: Bot) -> BotOut:
        if principal.is_user and await self._bots.role(bot.id, principal.user_id) != "editor":
            return shown(bot, None)
        return shown(bot, (await self._accesses([bot]))[bot.id])


def shown(bot: Bot, access: Access | None) -> BotOut:
    """Give a bot's shape; without `access` that for people who only use it."""
    return BotOut(
        id=bot.id,
        name=bot.name,
        instructions=None if access is None else bot.instructions,
        model=bot.model,
        temperature=bot.temperature,
        retrieval=settings_of(bot.retrieval),
        access=access,
        created_at=bot.created_at,
        updated_at=bot.updated_at,
    )


def _seat_shown(seat: RoomBot, bot: Bot) -> RoomBotOut:
    return RoomBotOut(
        room_id=seat.room_id,
        bot_id=seat.bot_id,
        name=bot.name,
        answers=seat.answers,
        paused=seat.is_paused,
        added_at=seat.added_at,
    )
