"""The queue of support rooms in `/rooms`: the operations, which REST has as well."""

from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal, Scope
from chatserver.rooms.errors import CHANGED
from chatserver.rooms.schemas import RoomOut, RoomRef
from chatserver.support.schemas import Assign, ListQueue, QueueItem
from chatserver.support.service import SupportService
from chatserver.transport.registry import command
from chatserver.users.errors import UserNotFoundError


class SupportCommands:
    def __init__(self, support: Open[SupportService]) -> None:
        self._support = support

    @command("support.queue", ListQueue, Page[QueueItem], scope=Scope.ROOMS_READ)
    async def queue(self, principal: Principal, request: ListQueue) -> Page[QueueItem]:
        """List support rooms by who has to act, the longest waiting first.

        An agent sees the rooms that he may moderate; a master key sees all of the client's.
        """
        async with self._support() as support:
            return await support.list(principal, request)

    @command(
        "support.assign",
        Assign,
        RoomOut,
        scope=Scope.ROOMS_WRITE,
        errors=(*CHANGED, UserNotFoundError),
    )
    async def assign(self, principal: Principal, request: Assign) -> RoomOut:
        """Give a support room to an agent, or with `null` back to the queue."""
        async with self._support() as support:
            return await support.assign(principal, request)

    @command("support.close", RoomRef, RoomOut, scope=Scope.ROOMS_WRITE, errors=CHANGED)
    async def close(self, principal: Principal, request: RoomRef) -> RoomOut:
        """Close a support room. The next message opens it again."""
        async with self._support() as support:
            return await support.close(principal, request)

    @command("support.reopen", RoomRef, RoomOut, scope=Scope.ROOMS_WRITE, errors=CHANGED)
    async def reopen(self, principal: Principal, request: RoomRef) -> RoomOut:
        """Take the closing of a support room back."""
        async with self._support() as support:
            return await support.reopen(principal, request)
