"""What one can do with rooms: make, find, change, put to sleep, wake and end them."""

from collections.abc import Callable
from typing import Final
from uuid import UUID

from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.events import SYSTEM, Effect
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import NOBODY, Principal
from chatserver.realtime.errors import QuotaExceededError
from chatserver.rooms import policies
from chatserver.rooms.errors import NotARoomMemberError, RoomNotFoundError
from chatserver.rooms.events import actor_of, member_fact, my_seat, room_fact, room_members
from chatserver.rooms.models import Member, Room
from chatserver.rooms.ports import People
from chatserver.rooms.repository import RoomRepository
from chatserver.rooms.schemas import (
    CreatedRoom,
    CreateRoom,
    Deleted,
    ExternalRoomRef,
    ListAllRooms,
    ListRooms,
    RoomOut,
    RoomRef,
    UpdateRoom,
)

MOST_WATCHED: Final = 1000


class RoomService:
    """Rooms of one transaction. Who is in them is `MemberService`."""

    def __init__(
        self,
        *,
        rooms: RoomRepository,
        people: People,
        recorder: Recorder,
        generation: Callable[[], int],
        lifetimes: dict[str, float | None],
    ) -> None:
        self._rooms = rooms
        self._people = people
        self._recorder = recorder
        self._generation = generation
        self._lifetimes = lifetimes

    async def create(self, principal: Principal, command: CreateRoom) -> CreatedRoom:
        """Make a room with its first members; what is there already is given as it is.

        That is the room with the same `external_id`, or the direct room of the same two people.
        """
        if command.external_id is not None:
            await self._rooms.claim(principal.client_id, command.external_id)
            known = await self._rooms.find_external(principal.client_id, command.external_id)
            if known is not None:
                return await self._known(principal, known)
        people = await self._first_members(principal, command)
        pair = policies.pair_of(command.type, [user for user, _ in people])
        if pair is not None:
            await self._rooms.claim(principal.client_id, pair)
            known = await self._rooms.find_pair(principal.client_id, pair)
            if known is not None:
                return await self._known(principal, known)
        now = await self._rooms.now()
        room = Room(
            id=uuid7(),
            client_id=principal.client_id,
            type=command.type,
            title=command.title,
            external_id=command.external_id,
            history=command.history,
            details=command.metadata,
            pair=pair,
            members_count=len(people),
            created_by=principal.external_id or None,
            last_activity_at=now,
            # The first look comes soon: the room's client may have a lifetime of its own.
            deactivation_check_at=now,
        )
        self._rooms.add(room)
        await self._rooms.flush(room)
        if people:
            await self._seat(room, people, principal)
        first = people[: policies.PEOPLE_PER_FACT]
        self._recorder.record(
            room_fact(
                "room.created",
                room,
                self._generation(),
                actor_of(principal),
                effect=Effect(entered=tuple(user for user, _ in first)),
            )
        )
        logged = policies.joins_are_logged(room.type, len(people))
        for at in range(policies.PEOPLE_PER_FACT, len(people), policies.PEOPLE_PER_FACT):
            batch = people[at : at + policies.PEOPLE_PER_FACT]
            entered = Effect(entered=tuple(user for user, _ in batch))
            self._recorder.record(
                member_fact(
                    "member.joined",
                    room,
                    actor_of(principal),
                    batch,
                    role="member",
                    effect=entered,
                    sequenced=logged,
                )
            )
        me = None
        if principal.is_user:
            me = await self._rooms.find_member(room.id, principal.user_id)
        return CreatedRoom(**self._members(room, me, ahead=True), created=True)

    async def get(self, principal: Principal, command: RoomRef) -> RoomOut:
        room, me = await self.visible(principal, command.room_id)
        return RoomOut(**self._members(room, me))

    async def get_external(self, principal: Principal, command: ExternalRoomRef) -> RoomOut:
        room = await self._rooms.find_external(principal.client_id, command.external_id)
        if room is None:
            raise await self.unknown(principal)
        return RoomOut(**self._members(room, await self.enter(principal, room)))

    async def list_mine(self, principal: Principal, command: ListRooms) -> Page[RoomOut]:
        if not principal.is_user:
            return await self.list_all(principal, ListAllRooms(**command.model_dump()))
        rows, counted = await self._rooms.list_mine(
            principal.client_id,
            principal.user_id,
            room_type=command.type,
            is_active=command.is_active,
            offset=command.offset,
            limit=command.size,
        )
        items = [RoomOut(**self._members(room, member)) for room, member in rows]
        return Page[RoomOut].of(items, command, counted)

    async def list_all(self, principal: Principal, command: ListAllRooms) -> Page[RoomOut]:
        rooms, counted = await self._rooms.list_all(
            principal.client_id,
            room_type=command.type,
            is_active=command.is_active,
            q=command.q,
            offset=command.offset,
            limit=command.size,
        )
        items = [RoomOut(**self._members(room, None)) for room in rooms]
        return Page[RoomOut].of(items, command, counted)

    async def update(self, principal: Principal, command: UpdateRoom) -> RoomOut:
        needed = policies.role_to_update(command.model_fields_set)
        room, me = await self.locked(principal, command.room_id, needed=needed)
        given = command.model_fields_set
        if "title" in given:
            room.title = command.title
        if command.history is not None:
            room.history = command.history
        if command.metadata is not None:
            room.details = command.metadata
        if command.slow_mode_s is not None:
            room.slow_mode_s = command.slow_mode_s
        if command.post_role is not None:
            room.post_role = command.post_role
        room.updated_at = await self._rooms.now()
        if command.is_archived is not None:
            since = room.archived_at or room.updated_at
            room.archived_at = since if command.is_archived else None
        await self._rooms.flush(room)
        self._recorder.record(
            room_fact("room.updated", room, self._generation(), actor_of(principal))
        )
        return RoomOut(**self._members(room, me, ahead=True))

    async def deactivate(self, principal: Principal, command: RoomRef) -> RoomOut:
        """Put a room to sleep; doing it again changes nothing. A message wakes it."""
        room, me = await self.locked(principal, command.room_id, needed="admin")
        if room.is_active:
            await self._sleep(room)
            self._recorder.record(
                room_fact("room.deactivated", room, self._generation(), actor_of(principal))
            )
            return RoomOut(**self._members(room, me, ahead=True))
        return RoomOut(**self._members(room, me))

    async def reactivate(self, principal: Principal, command: RoomRef) -> RoomOut:
        room, me = await self.locked(principal, command.room_id, needed="member")
        if room.is_active:
            return RoomOut(**self._members(room, me))
        now = await self._rooms.now()
        room.is_active = True
        room.deactivated_at = None
        room.last_activity_at = now
        room.deactivation_check_at = now
        await self._rooms.flush(room)
        self._recorder.record(
            room_fact("room.reactivated", room, self._generation(), actor_of(principal))
        )
        return RoomOut(**self._members(room, me, ahead=True))

    async def delete(self, principal: Principal, command: RoomRef) -> Deleted:
        """End a room at once; its messages are deleted by a job that follows from the fact."""
        room, _ = await self.locked(principal, command.room_id, needed="owner")
        room.deleted_at = await self._rooms.now()
        room.is_active = False
        room.deactivation_check_at = None
        await self._rooms.flush(room)
        self._recorder.record(
            room_fact(
                "room.deleted",
                room,
                self._generation(),
                actor_of(principal),
                effect=Effect(closed=True),
            )
        )
        await self._rooms.dismiss_all(room, "deleted")
        return Deleted(id=room.id)

    async def deactivate_due(self, *, limit: int) -> int:
        """Look at rooms whose check is due: put to sleep, announce, or look again later.

        Called by the worker until it gives 0. Returns how many rooms were looked at.
        """
        due = await self._rooms.due(limit)
        if not due:
            return 0
        now = await self._rooms.now()
        for room, overrides in due:
            life = policies.lifetime(room.type, overrides, self._lifetimes)
            ageing = policies.age(
                now, room.last_activity_at, life, warned=room.deactivates_at is not None
            )
            if ageing.sleep:
                await self._sleep(room)
                self._recorder.record(
                    room_fact("room.deactivated", room, self._generation(), SYSTEM)
                )
                continue
            room.deactivation_check_at = ageing.next_check
            room.deactivates_at = ageing.ends_at
            await self._rooms.flush(room)
            if ageing.warn:
                self._recorder.record(
                    room_fact("room.deactivating", room, self._generation(), SYSTEM)
                )
        return len(due)

    async def recheck(self, client_id: UUID, *, limit: int) -> int:
        """Let a client's new lifetimes apply to rooms that are there already.

        Called by the worker until it gives 0. Returns how many rooms will be looked at.
        """
        return await self._rooms.recheck(client_id, limit)

    async def purge(self, client_id: UUID, room_id: UUID, *, limit: int) -> bool:
        """Delete a slice of what a deleted room leaves behind; True while there is more."""
        return await self._rooms.purge(client_id, room_id, limit)

    async def tell_count(self, client_id: UUID, room_id: UUID) -> None:
        """Show the members how many they are, where joins and leaves are not in the log."""
        room = await self._rooms.find(client_id, room_id)
        if room is not None:
            self._recorder.record(
                room_fact("room.updated", room, self._generation(), SYSTEM, sequenced=False)
            )

    async def visible(self, principal: Principal, room_id: UUID) -> tuple[Room, Member | None]:
        """Find a room that the caller may see: a member, anyone for a channel, the application.

        Raises:
            RoomNotFoundError: unknown, another client's, or none of the caller's business.
            NotARoomMemberError: the caller was in it once.
        """
        room = await self._rooms.find(principal.client_id, room_id)
        if room is None:
            raise await self.unknown(principal)
        return room, await self.enter(principal, room)

    async def locked(
        self, principal: Principal, room_id: UUID, *, needed: str
    ) -> tuple[Room, Member | None]:
        """Lock a room for a change that takes a role.

        Raises:
            RoomNotFoundError, NotARoomMemberError: as `visible`, and for a channel's strangers.
            RoleMissingError: the caller's role is lower than `needed`.
        """
        room = await self._rooms.lock(principal.client_id, room_id)
        if room is None:
            raise await self.unknown(principal)
        me = await self.enter(principal, room)
        if principal.is_user and me is None:
            raise NotARoomMemberError
        policies.require_role(me.role if me is not None else None, needed)
        return room, me

    async def enter(self, principal: Principal, room: Room) -> Member | None:
        """Give the caller's seat in a room, None for the application and a channel's strangers."""
        if not principal.is_user:
            return None
        me = await self._rooms.find_member(room.id, principal.user_id)
        if me is None and not policies.is_public(room.type):
            if await self._rooms.has_left(room.id, principal.user_id):
                raise NotARoomMemberError
            raise RoomNotFoundError
        return me

    async def unknown(self, principal: Principal) -> RoomNotFoundError:
        """Give the refusal after as many questions as for a room that is none of one's business."""
        if principal.is_user:
            await self._rooms.find_member(NOBODY, principal.user_id)
            await self._rooms.has_left(NOBODY, principal.user_id)
        return RoomNotFoundError()

    async def watchable(self, principal: Principal, command: RoomRef) -> RoomOut:
        """Find a room that a connection may watch: a channel, or one of the caller's own."""
        room, me = await self.visible(principal, command.room_id)
        return RoomOut(**self._members(room, me))

    async def people(self, principal: Principal, room_id: UUID) -> dict[UUID, str]:
        """Give the people of a room that the caller may see, by server id.

        Raises:
            RoomNotFoundError, NotARoomMemberError: as `visible`.
            QuotaExceededError: there are too many to watch one by one.
        """
        await self.visible(principal, room_id)
        found = await self._rooms.list_members(room_id, offset=0, limit=MOST_WATCHED + 1)
        if len(found) > MOST_WATCHED:
            raise QuotaExceededError(f"Presence is told of rooms of up to {MOST_WATCHED} people.")
        return {member.user_id: user.external_id for member, user in found}

    async def _known(self, principal: Principal, room: Room) -> CreatedRoom:
        me = await self.enter(principal, room)
        return CreatedRoom(**self._members(room, me), created=False)

    async def _first_members(
        self, principal: Principal, command: CreateRoom
    ) -> list[tuple[UUID, str]]:
        names = list(dict.fromkeys(command.member_ids))
        if principal.is_user and principal.external_id not in names:
            names.insert(0, principal.external_id)
        if command.type == "direct" and len(names) != policies.DIRECT_MEMBERS:
            raise PayloadInvalidError.of("member_ids", "a direct room has exactly two members")
        if not names:
            return []
        given = command.member_ids
        found = dict(await self._people.find(principal.client_id, given, field="member_ids"))
        if principal.is_user:
            found[principal.external_id] = principal.user_id
        return [(found[name], name) for name in names]

    async def _seat(self, room: Room, people: list[tuple[UUID, str]], principal: Principal) -> None:
        owner = principal.user_id if principal.is_user else None
        logged = policies.joins_are_logged(room.type, len(people))
        await self._rooms.add_members(
            [
                {
                    "room_id": room.id,
                    "user_id": user,
                    "client_id": room.client_id,
                    "role": "owner" if user == owner else "member",
                    "is_muted": False,
                    "is_favorite": False,
                    "notification_level": "mentions",
                    "joined_seq": 1 + (at // policies.PEOPLE_PER_FACT if logged else 0),
                    "min_seq": 1,
                }
                for at, (user, _) in enumerate(people)
            ]
        )
        await self._rooms.change_room_sets([user for user, _ in people])

    async def _sleep(self, room: Room) -> None:
        room.is_active = False
        room.deactivated_at = await self._rooms.now()
        room.deactivates_at = None
        room.deactivation_check_at = None
        await self._rooms.flush(room)

    def _members(self, room: Room, me: Member | None, *, ahead: bool = False) -> dict[str, object]:
        # The unit of work gives out seqs when the block ends: say where the log stands by then.
        last_seq = room.last_seq
        if ahead:
            last_seq = self._recorder.next_seq(room.id, room.last_seq) - 1
        return {
            **room_members(room, self._generation()),
            "last_seq": last_seq,
            "msg_no": room.msg_no,
            "me": None if me is None else my_seat(room, me),
        }
