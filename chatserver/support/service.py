"""What one can do with the queue of support rooms: look, take a room, close it, open it again."""

from collections.abc import Callable
from typing import Final, Protocol
from uuid import UUID

from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.rooms.events import actor_of, room_fact, room_out
from chatserver.rooms.models import Member, Room
from chatserver.rooms.schemas import InviteMembers, Joined, RoomOut, RoomRef
from chatserver.support.repository import SupportRepository
from chatserver.support.schemas import Assign, ListQueue, QueueItem

AGENT: Final = "moderator"


class Rooms(Protocol):
    """What the queue needs of the rooms' service."""

    async def locked(
        self, principal: Principal, room_id: UUID, *, needed: str
    ) -> tuple[Room, Member | None]:
        """Lock a room for a change that takes a role."""
        ...


class Members(Protocol):
    """What the queue needs of the members' service."""

    async def invite(self, principal: Principal, command: InviteMembers) -> Joined:
        """Add people; whoever is in already stays as is."""
        ...


class SupportService:
    """Support rooms of one transaction, seen as work."""

    def __init__(
        self,
        *,
        queue: SupportRepository,
        rooms: Rooms,
        members: Members,
        recorder: Recorder,
        generation: Callable[[], int],
    ) -> None:
        self._queue = queue
        self._rooms = rooms
        self._members = members
        self._recorder = recorder
        self._generation = generation

    async def list(self, principal: Principal, command: ListQueue) -> Page[QueueItem]:
        """Show the queue: an agent the rooms that he may moderate, the application all."""
        rows, rooms, counted = await self._queue.queue(
            principal.client_id,
            status=command.status,
            assignee=command.assignee_id,
            unassigned=command.unassigned,
            member=(principal.user_id, principal.external_id) if principal.is_user else None,
            offset=command.offset,
            limit=command.size,
        )
        items = [
            QueueItem(
                room=room_out(rooms[row.id], self._generation(), last_seq=rooms[row.id].last_seq),
                status=row.status,
                requester_id=row.requester,
                assignee_id=row.assignee,
                since=row.since,
                last_sender_id=row.sender_id,
            )
            for row in rows
        ]
        return Page[QueueItem].of(items, command, counted)

    async def assign(self, principal: Principal, command: Assign) -> RoomOut:
        """Give a room to somebody, who becomes a moderator of it if he is no member yet.

        Giving it back, also by somebody who only wrote there, lets its bot answer from now on.
        """
        room = await self._support_room(principal, command.room_id, needed=AGENT)
        if command.user_id is not None:
            await self._members.invite(
                principal,
                InviteMembers(room_id=room.id, user_id=command.user_id, role=AGENT),
            )
        if command.user_id is None:
            room.handed_back_at = await self._queue.now()
        if room.assignee == command.user_id:
            await self._queue.flush(room)
            return room_out(room, self._generation(), last_seq=room.last_seq)
        room.assignee = command.user_id
        self._recorder.audit(
            room.client_id,
            principal,
            "support.assign",
            f"room:{room.id}",
            assignee=command.user_id,
        )
        return await self._changed(principal, room)

    async def close(self, principal: Principal, command: RoomRef) -> RoomOut:
        """Say that it is done. The next message opens the room again."""
        room = await self._support_room(principal, command.room_id, needed=AGENT)
        room.closed_at = await self._queue.now()
        return await self._changed(principal, room)

    async def reopen(self, principal: Principal, command: RoomRef) -> RoomOut:
        """Take the closing back; an open room stays as it is."""
        room = await self._support_room(principal, command.room_id, needed=AGENT)
        if room.closed_at is None:
            return room_out(room, self._generation(), last_seq=room.last_seq)
        room.closed_at = None
        return await self._changed(principal, room)

    async def _support_room(self, principal: Principal, room_id: UUID, *, needed: str) -> Room:
        room, _ = await self._rooms.locked(principal, room_id, needed=needed)
        if room.type != "support":
            raise PayloadInvalidError.of("room_id", "is no support room")
        return room

    async def _changed(self, principal: Principal, room: Room) -> RoomOut:
        room.updated_at = await self._queue.now()
        await self._queue.flush(room)
        seq = self._recorder.next_seq(room.id, room.last_seq)
        self._recorder.record(
            room_fact("room.updated", room, self._generation(), actor_of(principal))
        )
        return room_out(room, self._generation(), last_seq=seq)
