"""What one can do with invites: make, list and revoke them, look at one, come in by one."""

import hashlib
import secrets
from uuid import UUID

from chatserver.infra.unit_of_work import Recorder
from chatserver.invites.errors import InviteEndedError, InviteNotFoundError
from chatserver.invites.models import Invite
from chatserver.invites.repository import InviteRepository
from chatserver.invites.schemas import (
    CODE_BYTES,
    CreateInvite,
    InviteCode,
    InviteOut,
    InvitePreview,
    InviteRef,
    ListInvites,
    MadeInvite,
)
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.rooms.errors import RoomNotFoundError
from chatserver.rooms.members import MemberService
from chatserver.rooms.schemas import Joined
from chatserver.rooms.service import RoomService

# A direct room has its two people, and a session its owner.
_CLOSED = ("direct", "assistant")


class InviteService:
    """Invites of one transaction. Who may come in at all is the rooms' decision."""

    def __init__(
        self,
        *,
        invites: InviteRepository,
        rooms: RoomService,
        members: MemberService,
        recorder: Recorder,
    ) -> None:
        self._invites = invites
        self._rooms = rooms
        self._members = members
        self._recorder = recorder

    async def create(self, principal: Principal, command: CreateInvite) -> MadeInvite:
        """Make an invite and tell its code, this once.

        Raises:
            RoomNotFoundError, NotARoomMemberError, RoleMissingError: moderators make invites.
        """
        room, _ = await self._rooms.locked(principal, command.room_id, needed="moderator")
        if room.type in _CLOSED:
            raise PayloadInvalidError.of("room_id", f"nobody can be invited to a {room.type} room")
        code = secrets.token_urlsafe(CODE_BYTES)
        invite = Invite(
            id=uuid7(),
            client_id=room.client_id,
            room_id=room.id,
            code_hash=_hash(code),
            role=command.role,
            max_uses=command.max_uses,
            created_by=principal.external_id or None,
        )
        await self._invites.add(invite, lifetime_s=command.expires_in_s)
        self._recorder.audit(
            room.client_id, principal, "invite.create", f"invite:{invite.id}", room_id=room.id
        )
        return MadeInvite(**_members(invite), code=code)

    async def list(self, principal: Principal, command: ListInvites) -> Page[InviteOut]:
        room, _ = await self._rooms.locked(principal, command.room_id, needed="moderator")
        rows, counted = await self._invites.of_room(
            room.id, offset=command.offset, limit=command.size
        )
        return Page[InviteOut].of([InviteOut(**_members(row)) for row in rows], command, counted)

    async def revoke(self, principal: Principal, command: InviteRef) -> InviteOut:
        """End an invite. Whoever came by it stays."""
        room, _ = await self._rooms.locked(principal, command.room_id, needed="moderator")
        invite = await self._invites.revoke(room.id, command.invite_id)
        if invite is None:
            raise InviteNotFoundError
        self._recorder.audit(
            room.client_id, principal, "invite.revoke", f"invite:{invite.id}", room_id=room.id
        )
        return InviteOut(**_members(invite))

    async def preview(self, principal: Principal, command: InviteCode) -> InvitePreview:
        """Show where a code leads, without coming in.

        Raises:
            InviteNotFoundError, InviteEndedError
        """
        invite = await self._find(principal.client_id, command.code)
        try:
            room, me = await self._members.behind_invite(principal, invite.room_id)
        except RoomNotFoundError as error:
            raise InviteEndedError from error
        if not await self._invites.is_live(invite):
            raise InviteEndedError
        return InvitePreview(
            room_id=room.id,
            type=room.type,
            title=room.title,
            members_count=room.members_count,
            role=invite.role,
            expires_at=invite.expires_at,
            is_member=me is not None,
        )

    async def accept(self, principal: Principal, command: InviteCode) -> Joined:
        """Come in. Whoever is a member already stays as is, and nothing is counted.

        Raises:
            InviteNotFoundError, InviteEndedError
            RoomBannedError, RoomArchivedError: the room does not let the caller in.
        """
        invite = await self._find(principal.client_id, command.code)
        try:
            joined = await self._members.come_in(principal, invite.room_id, invite.role)
        except RoomNotFoundError as error:
            raise InviteEndedError from error
        # After the room's lock: of two who take the last place at once, one sees that it is gone.
        if joined.added and not await self._invites.use(invite):
            raise InviteEndedError
        return joined

    async def _find(self, client_id: UUID, code: str) -> Invite:
        invite = await self._invites.by_hash(client_id, _hash(code))
        if invite is None:
            raise InviteNotFoundError
        return invite


def _hash(code: str) -> bytes:
    # A code has 192 random bits: nobody guesses what stands behind its hash.
    return hashlib.sha256(b"chatserver invite v1|" + code.encode()).digest()


def _members(invite: Invite) -> dict[str, object]:
    return {
        "id": invite.id,
        "room_id": invite.room_id,
        "role": invite.role,
        "max_uses": invite.max_uses,
        "uses": invite.uses,
        "created_by": invite.created_by,
        "created_at": invite.created_at,
        "expires_at": invite.expires_at,
        "revoked_at": invite.revoked_at,
    }
