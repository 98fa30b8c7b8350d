"""Invites in `/rooms`: the operations, which REST has as well."""

from chatserver.invites.errors import InviteEndedError, InviteNotFoundError
from chatserver.invites.schemas import (
    CreateInvite,
    InviteCode,
    InviteOut,
    InvitePreview,
    InviteRef,
    ListInvites,
    MadeInvite,
)
from chatserver.invites.service import InviteService
from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal, Scope
from chatserver.rooms.errors import CHANGED, RoomArchivedError, RoomBannedError
from chatserver.rooms.schemas import Joined
from chatserver.transport.registry import USER, command


class InviteCommands:
    def __init__(self, invites: Open[InviteService]) -> None:
        self._invites = invites

    @command("invite.create", CreateInvite, MadeInvite, scope=Scope.ROOMS_WRITE, errors=CHANGED)
    async def create(self, principal: Principal, request: CreateInvite) -> MadeInvite:
        """Make a link that lets people into a room. Its code is told this once."""
        async with self._invites() as invites:
            return await invites.create(principal, request)

    @command("invite.list", ListInvites, Page[InviteOut], scope=Scope.ROOMS_READ, errors=CHANGED)
    async def list(self, principal: Principal, request: ListInvites) -> Page[InviteOut]:
        """List a room's invites, also ended ones, the newest first."""
        async with self._invites() as invites:
            return await invites.list(principal, request)

    @command(
        "invite.revoke",
        InviteRef,
        InviteOut,
        scope=Scope.ROOMS_WRITE,
        errors=(*CHANGED, InviteNotFoundError),
    )
    async def revoke(self, principal: Principal, request: InviteRef) -> InviteOut:
        """End an invite. Whoever came by it stays."""
        async with self._invites() as invites:
            return await invites.revoke(principal, request)

    @command(
        "invite.preview",
        InviteCode,
        InvitePreview,
        scope=Scope.ROOMS_READ,
        callers=USER,
        errors=(InviteNotFoundError, InviteEndedError),
    )
    async def preview(self, principal: Principal, request: InviteCode) -> InvitePreview:
        """Show where a code leads, before coming in."""
        async with self._invites() as invites:
            return await invites.preview(principal, request)

    @command(
        "invite.accept",
        InviteCode,
        Joined,
        scope=Scope.ROOMS_WRITE,
        callers=USER,
        errors=(InviteNotFoundError, InviteEndedError, RoomBannedError, RoomArchivedError),
    )
    async def accept(self, principal: Principal, request: InviteCode) -> Joined:
        """Come in by a code. Whoever is a member already stays as is."""
        async with self._invites() as invites:
            return await invites.accept(principal, request)
