"""Who is in a room: join, leave, invite, remove, change; and what each person keeps private."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.events import Actor, Effect, Fact
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.rooms import policies
from chatserver.rooms.errors import (
    MemberNotFoundError,
    NotARoomMemberError,
    RoleMissingError,
    RoomArchivedError,
    RoomBannedError,
    RoomDeactivatedError,
    RoomFullError,
    RoomNotFoundError,
)
from chatserver.rooms.events import actor_of, member_fact
from chatserver.rooms.models import Member, Room
from chatserver.rooms.ports import People
from chatserver.rooms.repository import RoomRepository
from chatserver.rooms.schemas import (
    ChangedMember,
    InviteMembers,
    Joined,
    Left,
    ListMembers,
    MemberOut,
    MemberRef,
    PutMember,
    RoomRef,
    UpdateMember,
)
from chatserver.rooms.service import RoomService
from chatserver.users.models import User

_PRIVATE = ("is_muted", "is_favorite", "notification_level")


class MemberService:
    """Members of rooms, within one transaction that holds the room's lock for every change."""

    def __init__(
        self,
        *,
        rooms: RoomRepository,
        service: RoomService,
        people: People,
        recorder: Recorder,
        count_changed: Callable[[UUID, UUID], None],
    ) -> None:
        self._rooms = rooms
        self._service = service
        self._people = people
        self._recorder = recorder
        self._count_changed = count_changed

    async def join(self, principal: Principal, command: RoomRef) -> Joined:
        """Enter a public channel, or do nothing where one is a member already."""
        room = await self._rooms.lock(principal.client_id, command.room_id)
        if room is None:
            raise await self._service.unknown(principal)
        me = await self._service.enter(principal, room)
        if me is not None:
            return await self._joined(room, [principal.user_id], [])
        if not room.is_active:
            raise RoomDeactivatedError
        return await self._add(
            room, [(principal.user_id, principal.external_id)], "member", actor_of(principal)
        )

    async def invite(self, principal: Principal, command: InviteMembers) -> Joined:
        """Add people. Whoever is in already stays as is."""
        people = command.people
        if principal.is_user and people == [principal.external_id]:
            return await self.join(principal, RoomRef(room_id=command.room_id))
        room, me = await self._service.locked(principal, command.room_id, needed="moderator")
        _require_rank(me, command.role)
        found = await self._find(principal, command, people)
        return await self._add(
            room, [(found[name], name) for name in people], command.role, actor_of(principal)
        )

    async def put(self, principal: Principal, command: PutMember) -> Joined:
        """Add one person; whoever is in already gets the role that is named."""
        room_id, user_id, role = command.room_id, command.user_id, command.role
        invited = InviteMembers(room_id=room_id, user_id=user_id, role=role or "member")
        joined = await self.invite(principal, invited)
        if role is None or joined.added:
            return joined
        changed = await self.update(
            principal, UpdateMember(room_id=room_id, user_id=user_id, role=role)
        )
        seen = MemberOut.model_validate(changed.model_dump(include=set(MemberOut.model_fields)))
        return joined.model_copy(update={"members": [seen]})

    async def behind_invite(
        self, principal: Principal, room_id: UUID
    ) -> tuple[Room, Member | None]:
        """Find a room whose invite the caller holds, also if it is hidden from strangers."""
        room = await self._rooms.find(principal.client_id, room_id)
        if room is None:
            raise RoomNotFoundError
        return room, await self._rooms.find_member(room.id, principal.user_id)

    async def come_in(self, principal: Principal, room_id: UUID, role: str) -> Joined:
        """Let the holder of an invite in; whoever is in already stays as is.

        Raises:
            RoomNotFoundError, RoomArchivedError, RoomBannedError
        """
        room = await self._rooms.lock(principal.client_id, room_id)
        if room is None:
            raise RoomNotFoundError
        return await self._add(
            room, [(principal.user_id, principal.external_id)], role, actor_of(principal)
        )

    async def leave(self, principal: Principal, command: RoomRef) -> Left:
        room = await self._rooms.lock(principal.client_id, command.room_id)
        if room is None:
            raise await self._service.unknown(principal)
        me = await self._service.enter(principal, room)
        if me is None:
            raise NotARoomMemberError
        return await self.dismiss(principal, room, me, principal.external_id, "left")

    async def remove(self, principal: Principal, command: MemberRef) -> Left:
        """Remove someone below one's own role; removing oneself is leaving."""
        if principal.is_user and command.user_id == principal.external_id:
            return await self.leave(principal, RoomRef(room_id=command.room_id))
        room, me = await self._service.locked(principal, command.room_id, needed="moderator")
        target = await self._member(principal, room, command.user_id)
        _require_rank(me, target.role)
        self._recorder.audit(
            room.client_id,
            principal,
            "member.remove",
            f"user:{command.user_id}",
            room_id=room.id,
            role=target.role,
        )
        return await self.dismiss(principal, room, target, command.user_id, "removed")

    async def update(self, principal: Principal, command: UpdateMember) -> ChangedMember:
        """Change a role (everyone sees it), or one's own private settings (nobody else does)."""
        is_self = principal.is_user and command.user_id == principal.external_id
        room, me = await self._service.locked(
            principal, command.room_id, needed="guest" if is_self else "moderator"
        )
        target = await self._member(principal, room, command.user_id)
        private: dict[str, Any] = {
            name: getattr(command, name) for name in _PRIVATE if getattr(command, name) is not None
        }
        if private and principal.is_user and not is_self:
            raise RoleMissingError("Mute, favourite and notification level are each member's own.")
        for name, value in private.items():
            setattr(target, name, value)
        if command.notification_level == "all":
            room.is_loud = True
        if command.role is not None and command.role != target.role:
            _require_rank(me, command.role, target.role)
            self._recorder.audit(
                room.client_id,
                principal,
                "member.update",
                f"user:{command.user_id}",
                room_id=room.id,
                role=command.role,
                was=target.role,
            )
            target.role = command.role
            self._recorder.record(
                member_fact(
                    "member.updated",
                    room,
                    actor_of(principal),
                    [(target.user_id, command.user_id)],
                    role=command.role,
                    muted_until=target.muted_until,
                    sequenced=policies.joins_are_logged(room.type, room.members_count),
                )
            )
        if private:
            self._tell_own_devices(room, target, command.user_id, private)
        target.updated_at = await self._rooms.now()
        [(member, user)] = await self._rooms.profiles(room.id, [target.user_id])
        own = {name: getattr(target, name) for name in _PRIVATE} if is_self or private else {}
        return ChangedMember(**member_out(member, user).model_dump(), **own)

    async def everyone(self, principal: Principal, command: ListMembers) -> Page[MemberOut]:
        room, _ = await self._service.visible(principal, command.room_id)
        rows = await self._rooms.list_members(room.id, offset=command.offset, limit=command.size)
        items = [member_out(member, user) for member, user in rows]
        return Page[MemberOut].of(items, command, room.members_count)

    async def _add(
        self, room: Room, people: Sequence[tuple[UUID, str]], role: str, actor: Actor
    ) -> Joined:
        present = await self._rooms.members_among(room.id, [user for user, _ in people])
        new = [(user, name) for user, name in people if user not in present]
        if new and room.type == "direct":
            raise RoomFullError
        if not new:
            return await self._joined(room, [user for user, _ in people], [])
        if room.archived_at is not None:
            raise RoomArchivedError
        await self._refuse_banned(room, [user for user, _ in new])
        room.members_count += len(new)
        logged = policies.joins_are_logged(room.type, room.members_count)
        for at in range(0, len(new), policies.PEOPLE_PER_FACT):
            batch = new[at : at + policies.PEOPLE_PER_FACT]
            await self._seat(room, batch, role, logged=logged)
            entered = Effect(entered=tuple(user for user, _ in batch))
            self._recorder.record(
                member_fact(
                    "member.joined",
                    room,
                    actor,
                    batch,
                    role=role,
                    effect=entered,
                    sequenced=logged,
                )
            )
        await self._rooms.change_room_sets([user for user, _ in new])
        if not logged:
            self._announce_count(room)
        return await self._joined(room, [user for user, _ in people], [name for _, name in new])

    async def _refuse_banned(self, room: Room, users: Sequence[UUID]) -> None:
        bans = await self._rooms.bans_among(room.id, users)
        if bans:
            now = await self._rooms.now()
            # Of several the one that ends last: before that all of them can't come in.
            until = max(ban.until or policies.FOREVER for ban in bans)
            raise RoomBannedError(retry_after_ms=policies.wait_ms(until, now))

    async def _seat(
        self, room: Room, people: Sequence[tuple[UUID, str]], role: str, *, logged: bool
    ) -> None:
        seq = self._recorder.next_seq(room.id, room.last_seq)
        await self._rooms.add_members(
            [
                {
                    "room_id": room.id,
                    "user_id": user,
                    "client_id": room.client_id,
                    "role": role,
                    "is_muted": False,
                    "is_favorite": False,
                    "notification_level": "mentions",
                    "joined_seq": seq if logged else room.last_seq + 1,
                    "min_seq": seq if room.history == "joined" else 1,
                    # What was said before is no news to whoever comes later.
                    "read_seq": room.last_seq,
                    "read_msg_no": room.msg_no,
                }
                for user, _ in people
            ]
        )

    async def dismiss(
        self, principal: Principal, room: Room, member: Member, name: str, reason: str
    ) -> Left:
        """Take a member out of a room that is locked; `reason` is what `sync` says of it."""
        await self._rooms.remove_member(member, reason)
        room.members_count -= 1
        logged = policies.joins_are_logged(room.type, room.members_count)
        self._recorder.record(
            member_fact(
                "member.left",
                room,
                actor_of(principal),
                [(member.user_id, name)],
                role=member.role,
                effect=Effect(left=(member.user_id,)),
                sequenced=logged,
            )
        )
        await self._rooms.change_room_sets([member.user_id])
        if not logged:
            self._announce_count(room)
        return Left(room_id=room.id, user_id=name, members_count=room.members_count)

    def _announce_count(self, room: Room) -> None:
        self._recorder.after_commit(partial(self._count_changed, room.client_id, room.id))

    def _tell_own_devices(
        self, room: Room, member: Member, name: str, private: dict[str, Any]
    ) -> None:
        self._recorder.record(
            Fact(
                type="member.updated",
                client_id=room.client_id,
                # A fact of the person, not of the room: nobody else may see it.
                room_id=None,
                actor=Actor("user", name),
                data={
                    "room_id": str(room.id),
                    "user_id": name,
                    "role": member.role,
                    "members_count": room.members_count,
                    **private,
                },
                sequenced=False,
                audience=(member.user_id,),
            )
        )

    async def _find(
        self, principal: Principal, command: InviteMembers, people: Sequence[str]
    ) -> dict[str, UUID]:
        if command.user_id is None:
            return await self._people.find(principal.client_id, people, field="user_ids")
        one = await self._people.find_one(principal.client_id, command.user_id, field="user_id")
        return {command.user_id: one}

    async def _member(self, principal: Principal, room: Room, name: str) -> Member:
        user_id = await self._people.find_one(principal.client_id, name, field="user_id")
        member = await self._rooms.find_member(room.id, user_id)
        if member is None:
            raise MemberNotFoundError
        return member

    async def _joined(self, room: Room, users: Sequence[UUID], added: list[str]) -> Joined:
        rows = await self._rooms.profiles(room.id, users)
        return Joined(
            members=[member_out(member, user) for member, user in rows],
            added=added,
            members_count=room.members_count,
        )


def member_out(member: Member, user: User) -> MemberOut:
    return MemberOut(
        user_id=user.external_id,
        display_name=user.display_name,
        avatar_url=user.avatar_url,
        role=member.role,
        joined_at=member.joined_at,
        muted_until=member.muted_until,
    )


def _require_rank(me: Member | None, *roles: str) -> None:
    # Nobody gives away, or takes from, a role above his own; the application may.
    for role in roles:
        policies.require_role(None if me is None else me.role, role)
