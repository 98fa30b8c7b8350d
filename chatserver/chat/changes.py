"""What can be done with a message that was sent: edit, delete, react, pin; each is a fact."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Final, TypeAlias
from uuid import UUID

from chatserver.chat import policies
from chatserver.chat.errors import (
    MessageConflictError,
    MessageNotFoundError,
    MessageNotYoursError,
    TooManyPinsError,
    TooManyReactionsError,
)
from chatserver.chat.events import message_fact, pin_fact, reaction_fact
from chatserver.chat.messages import MessageRepository
from chatserver.chat.models import Message
from chatserver.chat.rows import shaped
from chatserver.chat.schemas import (
    Changed,
    EditMessage,
    Edits,
    ListReactions,
    MessageRef,
    PastVersion,
    Pinned,
    React,
    Reacted,
    Reaction,
    Reactions,
)
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.principal import Principal
from chatserver.rooms import policies as room_policies
from chatserver.rooms.errors import NotARoomMemberError, RoleMissingError, RoomNotFoundError
from chatserver.rooms.events import actor_of
from chatserver.rooms.models import Member, Room
from chatserver.rooms.service import RoomService

VERSIONS_KEPT: Final = 50
EMOJI_PER_MESSAGE: Final = 50
EMOJI_PER_USER: Final = 20
PINS_PER_ROOM: Final = 100

_Look: TypeAlias = Callable[[Principal, UUID], Awaitable[tuple[Room, Member | None]]]


class ChangeService:
    """Changes of messages, within one transaction that holds the lock of the message's room."""

    def __init__(
        self,
        *,
        messages: MessageRepository,
        rooms: RoomService,
        recorder: Recorder,
        characters: int,
        octets: int,
        screen: policies.Screen | None = None,
    ) -> None:
        self._messages = messages
        self._rooms = rooms
        self._recorder = recorder
        self._characters = characters
        self._octets = octets
        self._screen = screen

    async def edit(self, principal: Principal, command: EditMessage) -> Changed:
        """Replace a text, its mentions or its metadata. What is as it should be stays as it is.

        Raises:
            MessageNotFoundError, MessageNotYoursError, MessageConflictError, EditWindowOverError,
            MessageTooLongError, PayloadInvalidError, RoomMutedError, RoomArchivedError
        """
        room, me, message = await self._locked(principal, command.message_id)
        if message.deleted_at is not None:
            raise MessageNotFoundError
        _require_author(principal, message)
        rules, now = await self._messages.rules(principal.client_id)
        room_policies.require_voice(room, me, now)
        if self._screen is not None and command.content is not None:
            screened = await self._screen.check(room.client_id, room.id, command.content)
            if screened.flagged_by:
                await self._screen.flag(room.client_id, room.id, message.id, screened.flagged_by)
            command = command.model_copy(update={"content": screened.content})
        changes = policies.changes(message, command)
        if not changes:
            # Also whoever retries an edit that succeeded, with the version that was right before.
            return Changed(message=shaped(await self._messages.shown(message)))
        if command.if_version not in {None, message.version}:
            raise MessageConflictError(version=message.version)
        if principal.is_user:
            policies.check_edit_window(message.created_at, now, rules.get("edit_window_s"))
        policies.check_size(command, characters=self._characters, octets=self._octets)
        if "mentions" in changes and not message.silent:
            await self._mention_anew(message, changes["mentions"])
        await self._messages.keep_version(message, VERSIONS_KEPT)
        for name, value in changes.items():
            setattr(message, name, value)
        message.version += 1
        message.edited_at = now
        return await self._tell(principal, room, message, "message.updated")

    async def delete(self, principal: Principal, command: MessageRef) -> Changed:
        """Leave a tombstone in a message's place; doing it again changes nothing.

        Raises:
            MessageNotFoundError, MessageNotYoursError
        """
        room, me, message = await self._locked(principal, command.message_id)
        if message.deleted_at is not None:
            return Changed(message=shaped(await self._messages.shown(message)))
        if not _is_author(principal, message):
            if me is not None and not room_policies.ranks(me.role, "moderator"):
                raise MessageNotYoursError
            self._recorder.audit(
                room.client_id,
                principal,
                "message.delete",
                f"message:{message.id}",
                room_id=room.id,
            )
        _, now = await self._messages.rules(principal.client_id)
        await self._messages.forget(message)
        _blank(message, now)
        return await self._tell(principal, room, message, "message.deleted")

    async def react(self, principal: Principal, command: React) -> Reacted:
        """Add a reaction of the caller; one that is there already stays.

        Raises:
            MessageNotFoundError, TooManyReactionsError, RoomMutedError, RoomArchivedError
        """
        room, me, message = await self._locked(principal, command.message_id)
        if message.deleted_at is not None:
            raise MessageNotFoundError
        _, now = await self._messages.rules(principal.client_id)
        room_policies.require_voice(room, me, now)
        if not await self._messages.react(message, principal.user_id, command.emoji):
            return _reacted(message, command.emoji, mine=True)
        counts = policies.counted(message.reactions, command.emoji, 1)
        if len(counts) > EMOJI_PER_MESSAGE:
            raise TooManyReactionsError(max=EMOJI_PER_MESSAGE, per="message")
        if await self._messages.own_reactions(message, principal.user_id) > EMOJI_PER_USER:
            raise TooManyReactionsError(max=EMOJI_PER_USER, per="user")
        message.reactions = counts
        self._recorder.record(
            reaction_fact(room, actor_of(principal), message, command.emoji, "add")
        )
        return _reacted(message, command.emoji, mine=True)

    async def unreact(self, principal: Principal, command: React) -> Reacted:
        """Take a reaction of the caller back; where there is none nothing happens.

        Raises:
            MessageNotFoundError
        """
        room, _, message = await self._locked(principal, command.message_id)
        if await self._messages.unreact(message, principal.user_id, command.emoji):
            message.reactions = policies.counted(message.reactions, command.emoji, -1)
            self._recorder.record(
                reaction_fact(room, actor_of(principal), message, command.emoji, "remove")
            )
        return _reacted(message, command.emoji, mine=False)

    async def pin(self, principal: Principal, command: MessageRef) -> Pinned:
        """Pin a message to its room. In a channel this takes a moderator.

        Raises:
            MessageNotFoundError, RoleMissingError, TooManyPinsError, RoomArchivedError
        """
        room, me, message = await self._locked(principal, command.message_id)
        if message.deleted_at is not None:
            raise MessageNotFoundError
        await self._require_pinner(principal, room, me)
        if not message.pinned:
            if await self._messages.pins(room.id) >= PINS_PER_ROOM:
                raise TooManyPinsError(max=PINS_PER_ROOM)
            _, now = await self._messages.rules(principal.client_id)
            message.pinned, message.pinned_at = True, now
            self._recorder.record(pin_fact(room, actor_of(principal), message))
        return Pinned(message_id=message.id, pinned=True)

    async def unpin(self, principal: Principal, command: MessageRef) -> Pinned:
        """Take a message off the room's pins.

        Raises:
            MessageNotFoundError, RoleMissingError, RoomArchivedError
        """
        room, me, message = await self._locked(principal, command.message_id)
        await self._require_pinner(principal, room, me)
        if message.pinned:
            message.pinned, message.pinned_at = False, None
            self._recorder.record(pin_fact(room, actor_of(principal), message))
        return Pinned(message_id=message.id, pinned=False)

    async def edits(self, principal: Principal, command: MessageRef) -> Edits:
        """Give what a message said before, the oldest first: to its author and to moderators.

        Raises:
            MessageNotFoundError, MessageNotYoursError
        """
        _, me, message = await self._seen(principal, command.message_id)
        if not _is_author(principal, message) and not (
            me is None or room_policies.ranks(me.role, "moderator")
        ):
            raise MessageNotYoursError
        past = await self._messages.edits(principal.client_id, message.id)
        return Edits(
            message_id=message.id,
            version=message.version,
            items=[PastVersion(**row) for row in past],
        )

    async def reactions(self, principal: Principal, command: ListReactions) -> Reactions:
        """Give who reacted to a message, in the order in which they did.

        Raises:
            MessageNotFoundError
        """
        _, _, message = await self._seen(principal, command.message_id)
        found = await self._messages.reacted(
            principal.client_id,
            message.id,
            emoji=command.emoji,
            offset=command.offset,
            limit=command.size + 1,
        )
        return Reactions(
            counts=policies.as_counts(message.reactions),
            items=[
                Reaction(user_id=row["external_id"], emoji=row["emoji"], at=row["created_at"])
                for row in found[: command.size]
            ],
            has_more=len(found) > command.size,
        )

    async def _locked(
        self, principal: Principal, message_id: UUID
    ) -> tuple[Room, Member | None, Message]:
        """Lock a message's room and read both; for whoever may not read it there is no message."""
        look = partial(self._rooms.locked, needed="guest")
        return await self._look(principal, message_id, look)

    async def _seen(
        self, principal: Principal, message_id: UUID
    ) -> tuple[Room, Member | None, Message]:
        return await self._look(principal, message_id, self._rooms.visible)

    async def _look(
        self, principal: Principal, message_id: UUID, look: _Look
    ) -> tuple[Room, Member | None, Message]:
        room_id = await self._messages.room_of(principal.client_id, message_id)
        if room_id is None:
            raise MessageNotFoundError
        try:
            room, me = await look(principal, room_id)
        except (RoomNotFoundError, NotARoomMemberError) as error:
            raise MessageNotFoundError from error
        message = await self._messages.get(message_id)
        if message is None or message.seq < room_policies.floor(room, me):
            raise MessageNotFoundError
        return room, me, message

    async def _mention_anew(self, message: Message, mentions: list[str]) -> None:
        before, after = set(message.mentions), set(mentions)
        await self._messages.unmention(message, sorted(before - after))
        await self._messages.mention(message, sorted(after - before))

    async def _require_pinner(self, principal: Principal, room: Room, me: Member | None) -> None:
        if me is None:
            return
        _, now = await self._messages.rules(principal.client_id)
        room_policies.require_voice(room, me, now)
        needed = "moderator" if room.type == "channel" else "member"
        if not room_policies.ranks(me.role, needed):
            raise RoleMissingError(f"This needs the role {needed}.", role=needed)

    async def _tell(
        self, principal: Principal, room: Room, message: Message, fact_type: str
    ) -> Changed:
        message.changed_seq = self._recorder.next_seq(room.id, room.last_seq)
        members = await self._messages.shown(message)
        self._recorder.record(message_fact(fact_type, room, actor_of(principal), members))
        return Changed(message=shaped(members))


def _is_author(principal: Principal, message: Message) -> bool:
    # The application may do with every message what its author may.
    return not principal.is_user or message.sender_key == str(principal.user_id)


def _require_author(principal: Principal, message: Message) -> None:
    if not _is_author(principal, message):
        raise MessageNotYoursError


def _blank(message: Message, now: datetime) -> None:
    message.content = ""
    message.partial_content = message.error_message = message.context = None
    message.attachments, message.mentions, message.reactions = [], [], []
    message.details = {}
    message.pinned, message.pinned_at = False, None
    message.version += 1
    message.deleted_at = now


def _reacted(message: Message, emoji: str, *, mine: bool) -> Reacted:
    return Reacted(
        message_id=message.id,
        emoji=emoji,
        mine=mine,
        counts=policies.as_counts(message.reactions),
    )
