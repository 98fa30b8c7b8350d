"""REST for rooms: routes to the commands, and what only REST has."""

from typing import Final

from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal, Scope
from chatserver.rooms.errors import (
    CHANGED,
    SEEN,
    MemberNotFoundError,
    RoomArchivedError,
    RoomBannedError,
    RoomFullError,
)
from chatserver.rooms.members import MemberService
from chatserver.rooms.sanctions import SanctionService
from chatserver.rooms.schemas import (
    AddMembers,
    BanOut,
    ChangedMember,
    Deleted,
    ExternalRoomRef,
    InviteMembers,
    Joined,
    ListAllRooms,
    ListBans,
    ListMembers,
    MemberOut,
    PutMember,
    RoomOut,
    RoomRef,
    UpdateMember,
)
from chatserver.rooms.service import RoomService
from chatserver.transport.registry import MASTER, Route, operation
from chatserver.users.errors import UserNotFoundError


class RoomsHttp:
    def __init__(
        self,
        rooms: Open[RoomService],
        members: Open[MemberService],
        sanctions: Open[SanctionService],
    ) -> None:
        self._rooms = rooms
        self._members = members
        self._sanctions = sanctions

    @operation("room.list_all", ListAllRooms, Page[RoomOut], callers=MASTER)
    async def list_all(self, principal: Principal, request: ListAllRooms) -> Page[RoomOut]:
        """List every room of the client, the newest first."""
        async with self._rooms() as rooms:
            return await rooms.list_all(principal, request)

    @operation("room.get_external", ExternalRoomRef, RoomOut, scope=Scope.ROOMS_READ, errors=SEEN)
    async def get_external(self, principal: Principal, request: ExternalRoomRef) -> RoomOut:
        """Read a room by the client's own name for it."""
        async with self._rooms() as rooms:
            return await rooms.get_external(principal, request)

    @operation("room.delete", RoomRef, Deleted, scope=Scope.ROOMS_WRITE, errors=CHANGED)
    async def delete(self, principal: Principal, request: RoomRef) -> Deleted:
        """Delete a room. Its members see `room.deleted`; its messages are deleted soon after."""
        async with self._rooms() as rooms:
            return await rooms.delete(principal, request)

    @operation("member.list", ListMembers, Page[MemberOut], scope=Scope.ROOMS_READ, errors=SEEN)
    async def list_members(self, principal: Principal, request: ListMembers) -> Page[MemberOut]:
        """List the members of a room in the order in which they came."""
        async with self._members() as members:
            return await members.everyone(principal, request)

    @operation(
        "member.add",
        AddMembers,
        Joined,
        scope=Scope.ROOMS_WRITE,
        errors=(*CHANGED, UserNotFoundError, RoomFullError, RoomArchivedError, RoomBannedError),
    )
    async def add(self, principal: Principal, request: AddMembers) -> Joined:
        """Add up to 1,000 people; whoever is a member already stays as is."""
        invited = InviteMembers(
            room_id=request.room_id, user_ids=request.user_ids, role=request.role
        )
        async with self._members() as members:
            return await members.invite(principal, invited)

    @operation(
        "member.put",
        PutMember,
        Joined,
        scope=Scope.ROOMS_WRITE,
        errors=(*CHANGED, UserNotFoundError, RoomFullError, RoomArchivedError, RoomBannedError),
    )
    async def put(self, principal: Principal, request: PutMember) -> Joined:
        """Add one person, or give a member another role; add oneself to join a public channel."""
        async with self._members() as members:
            return await members.put(principal, request)

    @operation(
        "member.update",
        UpdateMember,
        ChangedMember,
        scope=Scope.ROOMS_WRITE,
        errors=(*CHANGED, UserNotFoundError, MemberNotFoundError),
    )
    async def update(self, principal: Principal, request: UpdateMember) -> ChangedMember:
        """Change a member's role, or one's own mute, favourite and notification level."""
        async with self._members() as members:
            return await members.update(principal, request)

    @operation("ban.list", ListBans, Page[BanOut], scope=Scope.ROOMS_WRITE, errors=CHANGED)
    async def bans(self, principal: Principal, request: ListBans) -> Page[BanOut]:
        """List who is banned from a room. Moderators may."""
        async with self._sanctions() as sanctions:
            return await sanctions.bans(principal, request)


# What a device may do on its socket as well.
COMMANDS: Final = frozenset({"member.list", "member.update", "ban.list", "room.delete"})
_ROOM = "/rooms/{room_id}"
_MEMBER = _ROOM + "/members/{user_id}"
_BAN = _ROOM + "/bans/{user_id}"
ROUTES: Final = (
    Route(method="POST", path="/rooms", operation="room.create", status=201),
    Route(method="GET", path="/rooms", operation="room.list"),
    Route(method="GET", path="/rooms/all", operation="room.list_all"),
    Route(method="GET", path="/rooms/by-external/{external_id}", operation="room.get_external"),
    Route(method="GET", path=_ROOM, operation="room.get"),
    Route(method="PATCH", path=_ROOM, operation="room.update"),
    Route(method="DELETE", path=_ROOM, operation="room.delete"),
    Route(method="POST", path=_ROOM + "/deactivate", operation="room.deactivate"),
    Route(method="POST", path=_ROOM + "/reactivate", operation="room.reactivate"),
    Route(method="POST", path=_ROOM + "/join", operation="room.join"),
    Route(method="POST", path=_ROOM + "/leave", operation="room.leave"),
    Route(method="GET", path=_ROOM + "/members", operation="member.list"),
    Route(method="POST", path=_ROOM + "/members", operation="member.add"),
    Route(method="PUT", path=_MEMBER, operation="member.put"),
    Route(method="PATCH", path=_MEMBER, operation="member.update"),
    Route(method="DELETE", path=_MEMBER, operation="room.remove"),
    Route(method="PUT", path=_MEMBER + "/mute", operation="room.mute"),
    Route(method="DELETE", path=_MEMBER + "/mute", operation="room.unmute"),
    Route(method="GET", path=_ROOM + "/bans", operation="ban.list"),
    Route(method="PUT", path=_BAN, operation="room.ban"),
    Route(method="DELETE", path=_BAN, operation="room.unban"),
)
