"""A room as it is at one seq: everything read in one snapshot of PostgreSQL."""

from collections.abc import Awaitable, Callable
from typing import Final

from chatserver.chat.pointers import PointerRepository
from chatserver.chat.repository import ChatRepository
from chatserver.chat.schemas import RoomRequest, Snapshot
from chatserver.kernel.principal import Principal
from chatserver.rooms.members import MemberService
from chatserver.rooms.schemas import ListMembers, RoomRef
from chatserver.rooms.service import RoomService

MEMBERS: Final = 200
MESSAGES: Final = 50
READS: Final = 100


class SnapshotService:
    """Reads in one transaction; `freeze` makes it see what is there when it is called."""

    def __init__(
        self,
        *,
        freeze: Callable[[], Awaitable[None]],
        repository: ChatRepository,
        pointers: PointerRepository,
        rooms: RoomService,
        members: MemberService,
    ) -> None:
        self._freeze = freeze
        self._repository = repository
        self._pointers = pointers
        self._rooms = rooms
        self._members = members

    async def of(self, principal: Principal, command: RoomRequest) -> Snapshot:
        """Give a room's state: the facts after `as_of_seq`, applied to it, give the state then.

        Raises:
            RoomNotFoundError, NotARoomMemberError
        """
        await self._freeze()
        room = await self._rooms.get(principal, RoomRef(room_id=command.room_id))
        members = []
        if room.members_count <= MEMBERS:
            for page in (1, 2):
                listed = await self._members.everyone(
                    principal, ListMembers(room_id=room.id, page=page, size=MEMBERS // 2)
                )
                members.extend(listed.items)
        floor = max(room.min_seq, room.me.min_seq if room.me is not None else 1)
        messages = await self._repository.messages(
            room.id, floor=floor, after=None, before=None, limit=MESSAGES
        )
        pins = await self._repository.pins(room.id, floor=floor)
        reads = []
        if room.members_count <= READS:
            found = await self._pointers.of_rooms([room.id], types=None, most=READS)
            reads = found.get(room.id, [])
        user_id = principal.user_id if principal.is_user else None
        me = None
        if room.me is not None:
            state = await self._pointers.state(principal.client_id, room.id, principal.user_id)
            mentions = 0 if state is None else state.mentions
            me = room.me.model_dump(mode="json") | {"mentions": mentions}
        return Snapshot.model_construct(
            room=room,
            me=me,
            members=members,
            members_count=room.members_count,
            messages=await self._repository.shown(user_id, messages),
            pins=await self._repository.shown(user_id, pins),
            reads=reads,
            epoch=room.epoch,
            as_of_seq=room.last_seq or 0,
        )
