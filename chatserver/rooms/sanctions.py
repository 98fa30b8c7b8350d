"""How moderators keep order in a room: mutes and bans, for a time or for good."""

from datetime import datetime, timedelta

from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.rooms import policies
from chatserver.rooms.errors import BanNotFoundError, MemberNotFoundError
from chatserver.rooms.events import actor_of, member_fact
from chatserver.rooms.members import MemberService, member_out
from chatserver.rooms.models import Member, Room, RoomBan
from chatserver.rooms.ports import People
from chatserver.rooms.repository import RoomRepository
from chatserver.rooms.schemas import (
    BanMember,
    Banned,
    BanOut,
    ListBans,
    MemberOut,
    MemberRef,
    MuteMember,
    Unbanned,
)
from chatserver.rooms.service import RoomService


class SanctionService:
    """Mutes and bans, within one transaction that holds the room's lock for every change."""

    def __init__(
        self,
        *,
        rooms: RoomRepository,
        service: RoomService,
        members: MemberService,
        people: People,
        recorder: Recorder,
    ) -> None:
        self._rooms = rooms
        self._service = service
        self._members = members
        self._people = people
        self._recorder = recorder

    async def mute(self, principal: Principal, command: MuteMember) -> MemberOut:
        """Have a member below one's own role read only, for a time or for good.

        Raises:
            MemberNotFoundError, RoleMissingError
        """
        now = await self._rooms.now()
        return await self._mute(principal, command, _end(now, command.for_s) or policies.FOREVER)

    async def unmute(self, principal: Principal, command: MemberRef) -> MemberOut:
        return await self._mute(principal, command, None)

    async def ban(self, principal: Principal, command: BanMember) -> Banned:
        """Keep a person out of a room, for a time or for good; a member is removed.

        A second ban replaces the first.

        Raises:
            UserNotFoundError, RoleMissingError, PayloadInvalidError: oneself.
        """
        room, me = await self._service.locked(principal, command.room_id, needed="moderator")
        if principal.is_user and command.user_id == principal.external_id:
            raise PayloadInvalidError.of("user_id", "is yourself; leave instead")
        user_id = await self._people.find_one(principal.client_id, command.user_id, field="user_id")
        member = await self._rooms.find_member(room.id, user_id)
        if member is not None:
            _require_above(me, member.role)
            await self._members.dismiss(principal, room, member, command.user_id, "banned")
        until = _end(await self._rooms.now(), command.for_s)
        await self._rooms.ban(room, user_id, until=until, reason=command.reason)
        self._note(principal, room, "member.ban", command.user_id, until)
        return Banned(room_id=room.id, user_id=command.user_id, until=until)

    async def unban(self, principal: Principal, command: MemberRef) -> Unbanned:
        """Let a person come back, if somebody invites him or the room is public.

        Raises:
            BanNotFoundError
        """
        room, _ = await self._service.locked(principal, command.room_id, needed="moderator")
        user_id = await self._people.find_one(principal.client_id, command.user_id, field="user_id")
        if not await self._rooms.unban(room.id, user_id):
            raise BanNotFoundError
        self._note(principal, room, "member.unban", command.user_id, None)
        return Unbanned(room_id=room.id, user_id=command.user_id)

    async def bans(self, principal: Principal, command: ListBans) -> Page[BanOut]:
        """List who is banned, the newest first: moderators see it."""
        room, _ = await self._service.locked(principal, command.room_id, needed="moderator")
        rows, counted = await self._rooms.list_bans(
            room.id, offset=command.offset, limit=command.size
        )
        return Page[BanOut].of([_ban_out(ban, name) for ban, name in rows], command, counted)

    async def _mute(
        self, principal: Principal, command: MemberRef, until: datetime | None
    ) -> MemberOut:
        room, me = await self._service.locked(principal, command.room_id, needed="moderator")
        user_id = await self._people.find_one(principal.client_id, command.user_id, field="user_id")
        member = await self._rooms.find_member(room.id, user_id)
        if member is None:
            raise MemberNotFoundError
        _require_above(me, member.role)
        if member.muted_until != until:
            member.muted_until = until
            member.updated_at = await self._rooms.now()
            self._note(
                principal,
                room,
                "member.unmute" if until is None else "member.mute",
                command.user_id,
                until,
            )
            self._recorder.record(
                member_fact(
                    "member.updated",
                    room,
                    actor_of(principal),
                    [(member.user_id, command.user_id)],
                    role=member.role,
                    muted_until=until,
                    sequenced=policies.joins_are_logged(room.type, room.members_count),
                )
            )
        [(found, user)] = await self._rooms.profiles(room.id, [user_id])
        return member_out(found, user)

    def _note(
        self, principal: Principal, room: Room, action: str, name: str, until: datetime | None
    ) -> None:
        self._recorder.audit(
            room.client_id,
            principal,
            action,
            f"user:{name}",
            room_id=room.id,
            until=until,
        )


def _end(now: datetime, for_s: int | None) -> datetime | None:
    return None if for_s is None else now + timedelta(seconds=for_s)


def _require_above(me: Member | None, role: str) -> None:
    # The application may silence everyone; of members only whoever is not below the other.
    if me is not None:
        policies.require_role(me.role, role)


def _ban_out(ban: RoomBan, name: str) -> BanOut:
    return BanOut(user_id=name, until=ban.until, reason=ban.reason, created_at=ban.created_at)
