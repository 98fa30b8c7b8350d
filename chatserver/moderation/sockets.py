"""Flags in `/chat`: the operations, which REST has as well."""

from chatserver.chat.errors import MessageNotFoundError
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal, Scope
from chatserver.moderation.errors import FlagNotFoundError
from chatserver.moderation.schemas import Flagged, FlagMessage, FlagOut, ListFlags, ResolveFlag
from chatserver.moderation.service import FlagService
from chatserver.transport.registry import command


class FlagCommands:
    def __init__(self, flags: FlagService) -> None:
        self._flags = flags

    @command(
        "message.flag",
        FlagMessage,
        Flagged,
        scope=Scope.CHAT_WRITE,
        errors=(MessageNotFoundError,),
    )
    async def flag(self, principal: Principal, request: FlagMessage) -> Flagged:
        """Put a message before the room's moderators. Saying it again changes nothing."""
        return await self._flags.flag(principal, request)

    @command("flag.list", ListFlags, Page[FlagOut], scope=Scope.CHAT_READ)
    async def list(self, principal: Principal, request: ListFlags) -> Page[FlagOut]:
        """List flagged messages, the oldest flag first.

        A moderator sees those of the rooms that he moderates; a master key sees all.
        """
        return await self._flags.list(principal, request)

    @command(
        "flag.resolve",
        ResolveFlag,
        Flagged,
        scope=Scope.CHAT_WRITE,
        errors=(FlagNotFoundError,),
    )
    async def resolve(self, principal: Principal, request: ResolveFlag) -> Flagged:
        """Settle a flag: let the message stand, or delete it. Its other flags are settled, too."""
        return await self._flags.resolve(principal, request)
