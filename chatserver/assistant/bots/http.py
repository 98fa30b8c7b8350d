"""REST: bots, and bots in rooms."""

from typing import Final

from chatserver.assistant.bots.errors import BotElsewhereError, BotNotFoundError
from chatserver.assistant.bots.schemas import (
    BotOut,
    BotPath,
    CreateBot,
    DeletedBot,
    ListBots,
    UpdateBot,
)
from chatserver.assistant.bots.service import BotService
from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal, Scope
from chatserver.transport.registry import MASTER, Route, operation
from chatserver.users.errors import UserNotFoundError


class BotsHttp:
    def __init__(self, bots: Open[BotService]) -> None:
        self._bots = bots

    @operation(
        "bot.create",
        CreateBot,
        BotOut,
        callers=MASTER,
        errors=(UserNotFoundError, BotElsewhereError),
    )
    async def create(self, principal: Principal, command: CreateBot) -> BotOut:
        """Make a bot.

        `access.mode` `everyone` lets each user of the client use it, `listed` only `user_ids`;
        `editors` may add and remove its documents with their own keys.
        """
        async with self._bots() as bots:
            return await bots.create(principal, command)

    @operation("bot.get", BotPath, BotOut, scope=Scope.ASSISTANT_USE, errors=(BotNotFoundError,))
    async def get(self, principal: Principal, command: BotPath) -> BotOut:
        """Show a bot that the caller may use."""
        async with self._bots() as bots:
            return await bots.get(principal, command)

    @operation("bot.list", ListBots, Page[BotOut], scope=Scope.ASSISTANT_USE)
    async def list(self, principal: Principal, command: ListBots) -> Page[BotOut]:
        """List the bots that the caller may use, the oldest first."""
        async with self._bots() as bots:
            return await bots.list_bots(principal, command)

    @operation(
        "bot.update",
        UpdateBot,
        BotOut,
        callers=MASTER,
        errors=(BotNotFoundError, UserNotFoundError, BotElsewhereError),
    )
    async def update(self, principal: Principal, command: UpdateBot) -> BotOut:
        """Change a bot. Answers that are being written go on as they began."""
        async with self._bots() as bots:
            return await bots.update(principal, command)

    @operation(
        "bot.delete",
        BotPath,
        DeletedBot,
        callers=MASTER,
        errors=(BotNotFoundError, BotElsewhereError),
    )
    async def delete(self, principal: Principal, command: BotPath) -> DeletedBot:
        """Delete a bot. Its documents, their files and its seats in rooms go in the background."""
        async with self._bots() as bots:
            return await bots.delete(principal, command)


_BOT: Final = "/bots/{bot_id}"
ROUTES: Final = (
    Route(method="POST", path="/bots", operation="bot.create", status=201),
    Route(method="GET", path="/bots", operation="bot.list"),
    Route(method="GET", path=_BOT, operation="bot.get"),
    Route(method="PATCH", path=_BOT, operation="bot.update"),
    Route(method="PUT", path=_BOT, operation="bot.update"),
    Route(method="DELETE", path=_BOT, operation="bot.delete"),
)
SEAT_ROUTES: Final = (
    Route(method="GET", path="/rooms/{room_id}/bots", operation="room.bots"),
    Route(method="PUT", path="/rooms/{room_id}/bots/{bot_id}", operation="room.add_bot"),
    Route(method="DELETE", path="/rooms/{room_id}/bots/{bot_id}", operation="room.remove_bot"),
)
