"""The commands of `/rooms`."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Protocol
from uuid import UUID

from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal, Scope
from chatserver.realtime.errors import QuotaExceededError
from chatserver.realtime.watching import Reload
from chatserver.rooms.errors import (
    CHANGED,
    SEEN,
    BanNotFoundError,
    MemberNotFoundError,
    RoomArchivedError,
    RoomBannedError,
    RoomDeactivatedError,
    RoomFullError,
)
from chatserver.rooms.events import MemberData, RoomData
from chatserver.rooms.members import MemberService
from chatserver.rooms.sanctions import SanctionService
from chatserver.rooms.schemas import (
    BanMember,
    Banned,
    CreatedRoom,
    CreateRoom,
    InviteMembers,
    Joined,
    Left,
    ListRooms,
    MemberOut,
    MemberRef,
    MuteMember,
    PresenceList,
    PresenceSet,
    RoomOut,
    RoomPresence,
    RoomRef,
    SetPresence,
    Unbanned,
    Unwatched,
    UpdateRoom,
    UserPresence,
    Watching,
    WatchPresence,
)
from chatserver.rooms.service import RoomService
from chatserver.transport.registry import USER, FactSpec, command
from chatserver.users.errors import UserNotFoundError
from chatserver.users.service import UserService

NAMESPACE: Final = "/rooms"
# Why somebody may not come in.
CLOSED: Final = (RoomArchivedError, RoomBannedError)


FACTS: Final = (
    *(
        FactSpec(name, (NAMESPACE, "/chat"), RoomData, sequenced=True, summary=summary)
        for name, summary in (
            ("room.created", "A room was made, with its first members."),
            ("room.updated", "A room's title, history rule, metadata or size changed."),
            ("room.deactivating", "A room falls asleep at `deactivates_at` unless it is used."),
            ("room.deactivated", "A room fell asleep. A message wakes it."),
            ("room.reactivated", "A room woke. When a message did it, this has the seq before."),
            ("room.deleted", "A room is gone."),
        )
    ),
    *(
        FactSpec(name, (NAMESPACE, "/chat"), MemberData, sequenced=True, summary=summary)
        for name, summary in (
            ("member.joined", "One person came in, or up to 500 at once (`user_ids`)."),
            ("member.left", "A person left or was removed."),
            ("member.updated", "A member's role changed; or, to own devices, private settings."),
        )
    ),
    FactSpec(
        "presence.changed",
        (NAMESPACE,),
        PresenceList,
        sequenced=False,
        summary="Who is there has changed, of whom this connection watches; at most once a second.",
    ),
)


class RoomCommands:
    """Rooms and their members, for sockets and REST alike."""

    def __init__(self, rooms: Open[RoomService], members: Open[MemberService]) -> None:
        self._rooms = rooms
        self._members = members

    @command(
        "room.create",
        CreateRoom,
        CreatedRoom,
        scope=Scope.ROOMS_WRITE,
        errors=(UserNotFoundError, *SEEN),
    )
    async def create(self, principal: Principal, request: CreateRoom) -> CreatedRoom:
        """Make a room.

        The caller becomes its owner; `member_ids` are its first members. A room that already has
        this `external_id`, or the direct room of the same two people, is answered as it is.
        """
        async with self._rooms() as rooms:
            return await rooms.create(principal, request)

    @command("room.get", RoomRef, RoomOut, scope=Scope.ROOMS_READ, errors=SEEN)
    async def get(self, principal: Principal, request: RoomRef) -> RoomOut:
        """Read a room."""
        async with self._rooms() as rooms:
            return await rooms.get(principal, request)

    @command("room.list", ListRooms, Page[RoomOut], scope=Scope.ROOMS_READ)
    async def list(self, principal: Principal, request: ListRooms) -> Page[RoomOut]:
        """List one's rooms, the liveliest first."""
        async with self._rooms() as rooms:
            return await rooms.list_mine(principal, request)

    @command("room.update", UpdateRoom, RoomOut, scope=Scope.ROOMS_WRITE, errors=CHANGED)
    async def update(self, principal: Principal, request: UpdateRoom) -> RoomOut:
        """Change a room's title, history rule, metadata, slow mode, or who may send.

        Moderators may; `post_role` and `is_archived` take an admin.
        """
        async with self._rooms() as rooms:
            return await rooms.update(principal, request)

    @command("room.deactivate", RoomRef, RoomOut, scope=Scope.ROOMS_WRITE, errors=CHANGED)
    async def deactivate(self, principal: Principal, request: RoomRef) -> RoomOut:
        """Put a room to sleep. It can still be read, and a message wakes it."""
        async with self._rooms() as rooms:
            return await rooms.deactivate(principal, request)

    @command("room.reactivate", RoomRef, RoomOut, scope=Scope.ROOMS_WRITE, errors=CHANGED)
    async def reactivate(self, principal: Principal, request: RoomRef) -> RoomOut:
        """Wake a room that sleeps."""
        async with self._rooms() as rooms:
            return await rooms.reactivate(principal, request)

    @command(
        "room.join",
        RoomRef,
        Joined,
        scope=Scope.ROOMS_WRITE,
        callers=USER,
        errors=(*SEEN, RoomDeactivatedError, *CLOSED),
    )
    async def join(self, principal: Principal, request: RoomRef) -> Joined:
        """Become a member of a public channel."""
        async with self._members() as members:
            return await members.join(principal, request)

    @command("room.leave", RoomRef, Left, scope=Scope.ROOMS_WRITE, callers=USER, errors=SEEN)
    async def leave(self, principal: Principal, request: RoomRef) -> Left:
        """Leave a room."""
        async with self._members() as members:
            return await members.leave(principal, request)

    @command(
        "room.invite",
        InviteMembers,
        Joined,
        scope=Scope.ROOMS_WRITE,
        errors=(*CHANGED, UserNotFoundError, RoomFullError, *CLOSED),
    )
    async def invite(self, principal: Principal, request: InviteMembers) -> Joined:
        """Add one person, or up to 1,000."""
        async with self._members() as members:
            return await members.invite(principal, request)

    @command(
        "room.remove",
        MemberRef,
        Left,
        scope=Scope.ROOMS_WRITE,
        errors=(*CHANGED, UserNotFoundError, MemberNotFoundError),
    )
    async def remove(self, principal: Principal, request: MemberRef) -> Left:
        """Remove a member; oneself to leave."""
        async with self._members() as members:
            return await members.remove(principal, request)


class SanctionCommands:
    """Mutes and bans."""

    def __init__(self, sanctions: Open[SanctionService]) -> None:
        self._sanctions = sanctions

    @command(
        "room.mute",
        MuteMember,
        MemberOut,
        scope=Scope.ROOMS_WRITE,
        errors=(*CHANGED, UserNotFoundError, MemberNotFoundError),
    )
    async def mute(self, principal: Principal, request: MuteMember) -> MemberOut:
        """Have a member read only, for a time or for good. Moderators may."""
        async with self._sanctions() as sanctions:
            return await sanctions.mute(principal, request)

    @command(
        "room.unmute",
        MemberRef,
        MemberOut,
        scope=Scope.ROOMS_WRITE,
        errors=(*CHANGED, UserNotFoundError, MemberNotFoundError),
    )
    async def unmute(self, principal: Principal, request: MemberRef) -> MemberOut:
        """Let a muted member speak again."""
        async with self._sanctions() as sanctions:
            return await sanctions.unmute(principal, request)

    @command(
        "room.ban",
        BanMember,
        Banned,
        scope=Scope.ROOMS_WRITE,
        errors=(*CHANGED, UserNotFoundError),
    )
    async def ban(self, principal: Principal, request: BanMember) -> Banned:
        """Remove a person and keep him out, for a time or for good. Moderators may."""
        async with self._sanctions() as sanctions:
            return await sanctions.ban(principal, request)

    @command(
        "room.unban",
        MemberRef,
        Unbanned,
        scope=Scope.ROOMS_WRITE,
        errors=(*CHANGED, UserNotFoundError, BanNotFoundError),
    )
    async def unban(self, principal: Principal, request: MemberRef) -> Unbanned:
        """Let a banned person come back, by an invitation or into a public channel."""
        async with self._sanctions() as sanctions:
            return await sanctions.unban(principal, request)


class Watcher(Protocol):
    """The connection that a command came by."""

    async def watch(self, room_id: UUID) -> int:
        """Show this connection a room's facts; gives the seq after which it sees them."""
        ...

    async def unwatch(self, room_id: UUID) -> None:
        """Show them no longer, unless the user is a member."""
        ...


class WatchCommands:
    """Watching a public channel for one connection, in `/rooms` and `/chat`."""

    def __init__(self, rooms: Open[RoomService], watcher: Watcher) -> None:
        self._rooms = rooms
        self._watcher = watcher

    @command("room.watch", RoomRef, Watching, scope=Scope.ROOMS_READ, callers=USER, errors=SEEN)
    async def watch(self, principal: Principal, request: RoomRef) -> Watching:
        """See a public channel's facts on this connection, without being a member."""
        async with self._rooms() as rooms:
            room = await rooms.watchable(principal, request)
        last_seq = await self._watcher.watch(request.room_id)
        return Watching(room_id=room.id, epoch=room.epoch, last_seq=last_seq)

    @command("room.unwatch", RoomRef, Unwatched, scope=Scope.ROOMS_READ, callers=USER)
    async def unwatch(self, _: Principal, request: RoomRef) -> Unwatched:
        """End `room.watch`; a membership is not touched."""
        await self._watcher.unwatch(request.room_id)
        return Unwatched(room_id=request.room_id)


class PresenceBoard(Protocol):
    """Who is there, as the connection that a command came by may ask."""

    async def set_presence(self, status: str) -> None:
        """Say how its user is on this device."""
        ...

    async def watch_presence(
        self,
        users: Mapping[UUID, str],
        rooms: Mapping[UUID, tuple[Mapping[UUID, str], Reload]],
    ) -> dict[str, Any]:
        """Tell it of these, and of no others, and give how they are now."""
        ...


class PresenceCommands:
    """Who is online, in `/rooms`."""

    def __init__(
        self, rooms: Open[RoomService], users: Open[UserService], board: PresenceBoard
    ) -> None:
        self._rooms = rooms
        self._users = users
        self._board = board

    @command("presence.set", SetPresence, PresenceSet, scope=Scope.ROOMS_READ, callers=USER)
    async def set(self, _: Principal, request: SetPresence) -> PresenceSet:
        """Say how one is on this device. A user is online as long as one of his devices is."""
        await self._board.set_presence(request.status)
        return PresenceSet(status=request.status)

    @command(
        "presence.watch",
        WatchPresence,
        PresenceList,
        scope=Scope.ROOMS_READ,
        callers=USER,
        errors=(*SEEN, UserNotFoundError, QuotaExceededError),
    )
    async def watch(self, principal: Principal, request: WatchPresence) -> PresenceList:
        """Watch up to 100 people and 20 rooms on this connection, instead of those before.

        `presence.changed` tells what changes. Rooms of up to 1,000 people can be watched.
        """
        async with self._users() as users:
            found = await users.find(principal.client_id, request.user_ids)
        rooms: dict[UUID, tuple[Mapping[UUID, str], Reload]] = {}
        for room_id in request.room_ids:
            people = partial(self._people, principal, room_id)
            rooms[room_id] = (await people(), people)
        told = await self._board.watch_presence(
            {user_id: name for name, user_id in found.items()}, rooms
        )
        return PresenceList.model_construct(
            users=[UserPresence.model_construct(**user) for user in told["users"]],
            rooms=[RoomPresence.model_construct(**room) for room in told["rooms"]],
        )

    async def _people(self, principal: Principal, room_id: UUID) -> Mapping[UUID, str]:
        async with self._rooms() as rooms:
            return await rooms.people(principal, room_id)
