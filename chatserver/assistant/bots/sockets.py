"""Bots in rooms, over sockets and REST alike."""

from chatserver.assistant.bots.errors import BotNotFoundError
from chatserver.assistant.bots.schemas import (
    RoomBotList,
    RoomBotOut,
    RoomBotPath,
    RoomBots,
    SeatBot,
    Unseated,
)
from chatserver.assistant.bots.service import BotService
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal, Scope
from chatserver.realtime.errors import QuotaExceededError
from chatserver.rooms.errors import NotARoomMemberError, RoleMissingError, RoomNotFoundError
from chatserver.transport.registry import command

_ROOM = (RoomNotFoundError, NotARoomMemberError)


class SeatCommands:
    def __init__(self, bots: Open[BotService]) -> None:
        self._bots = bots

    @command("room.bots", RoomBots, RoomBotList, scope=Scope.ROOMS_READ, errors=_ROOM)
    async def bots(self, principal: Principal, command: RoomBots) -> RoomBotList:
        """List the bots that are members of a room."""
        async with self._bots() as bots:
            return await bots.list_seats(principal, command)

    @command(
        "room.add_bot",
        SeatBot,
        RoomBotOut,
        scope=Scope.ROOMS_WRITE,
        errors=(*_ROOM, RoleMissingError, BotNotFoundError, QuotaExceededError),
    )
    async def add(self, principal: Principal, command: SeatBot) -> RoomBotOut:
        """Make a bot a member of a room, or change how it answers there.

        `answers`: `auto` answers everything in `assistant` rooms and in `support` rooms that nobody
        attends to, elsewhere when mentioned; or `mentioned`, or `always`. `paused: true` hands the
        room over to people, `false` gives it back. The room is told by `room.updated`.
        """
        async with self._bots() as bots:
            return await bots.seat(principal, command)

    @command(
        "room.remove_bot",
        RoomBotPath,
        Unseated,
        scope=Scope.ROOMS_WRITE,
        errors=(*_ROOM, RoleMissingError, BotNotFoundError),
    )
    async def remove(self, principal: Principal, command: RoomBotPath) -> Unseated:
        """Take a bot out of a room."""
        async with self._bots() as bots:
            return await bots.unseat(principal, command)
