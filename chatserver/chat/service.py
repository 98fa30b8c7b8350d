"""What one can do in a conversation: send, and read what was sent."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias
from uuid import UUID, uuid4

import structlog

from chatserver.chat import policies
from chatserver.chat.errors import MessageNotFoundError, SlowModeError
from chatserver.chat.events import Draft, Outcome, created, written
from chatserver.chat.repository import ChatRepository
from chatserver.chat.schemas import (
    ListMessages,
    ListThread,
    MessageOut,
    MessageRef,
    Messages,
    PostMessage,
    SendMessage,
    Sent,
    Thread,
)
from chatserver.chat.writer import MessageWriter
from chatserver.kernel.errors import (
    DomainError,
    IdempotencyConflictError,
    Issue,
    PayloadInvalidError,
    UnavailableError,
)
from chatserver.kernel.events import Committed
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Written
from chatserver.rooms import policies as room_policies
from chatserver.rooms.errors import (
    NotARoomMemberError,
    RoomArchivedError,
    RoomMutedError,
    RoomNotFoundError,
    RoomReadOnlyError,
)
from chatserver.rooms.models import Member, Room
from chatserver.rooms.ports import People
from chatserver.rooms.service import RoomService

log = structlog.get_logger()

# `ChatService.list` hides the type of that name.
_Found: TypeAlias = list[dict[str, Any]]
_Shaped: TypeAlias = list[MessageOut]

_REFUSALS: dict[str, type[DomainError]] = {
    refusal.code: refusal
    for refusal in (
        RoomNotFoundError,
        NotARoomMemberError,
        MessageNotFoundError,
        IdempotencyConflictError,
        RoomArchivedError,
        RoomMutedError,
        RoomReadOnlyError,
        SlowModeError,
    )
}


class Attachments(Protocol):
    """Where files are: it knows which of them may be sent."""

    async def check(
        self, principal: Principal, room_id: UUID, attachments: Sequence[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Give attachments as they are kept; raise where a file is not there, or not the caller's.

        Called only when one of them has a `file_id`.
        """
        ...


class JustSent(Written, Sent):
    """A message as it was written for everybody when it was stored."""


class Announcer:
    """Shows what the writer stored. A woken room's own fact goes first: it has the seq before."""

    def __init__(
        self,
        repository: ChatRepository,
        *,
        publish: Callable[[Sequence[Committed]], None],
        generation: Callable[[], int],
        ring: Callable[[], None] = lambda: None,
    ) -> None:
        """`ring` wakes whoever dispatches the outbox."""
        self._repository = repository
        self._publish = publish
        self._ring = ring
        self._generation = generation
        self._waking: set[asyncio.Task[None]] = set()

    def __call__(self, draft: Draft, outcome: Outcome) -> None:
        fact = created(draft, outcome, self._generation())
        if outcome.later:
            self._ring()
        if outcome.woke_seq is None:
            self._publish([fact])
            return
        task = asyncio.get_running_loop().create_task(self._after_waking(draft, outcome, fact))
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    async def _after_waking(self, draft: Draft, outcome: Outcome, fact: Committed) -> None:
        try:
            entries = await self._repository.entries(
                draft.room_id,
                after_seq=(outcome.woke_seq or 1) - 1,
                limit=1,
                generation=self._generation(),
            )
        except UnavailableError:
            # The nodes see a hole before the message and fill it from the log.
            log.info("waking_not_shown", room_id=str(draft.room_id))
            entries = []
        self._publish([*(entry.committed() for entry in entries), fact])


class ChatService:
    """Sends go to the group commit, reads are single statements: no transaction is held here."""

    def __init__(
        self,
        *,
        writer: MessageWriter,
        repository: ChatRepository,
        rooms: Open[RoomService],
        people: Open[People],
        attachments: Attachments | None = None,
        screen: policies.Screen | None = None,
        characters: int,
        octets: int,
    ) -> None:
        self._writer = writer
        self._repository = repository
        self._rooms = rooms
        self._people = people
        self._attachments = attachments
        self._screen = screen
        self._characters = characters
        self._octets = octets

    async def send(self, principal: Principal, command: SendMessage) -> Sent:
        """Store a message; when this returns it is committed. A retry gives the first one.

        Raises:
            RoomNotFoundError, NotARoomMemberError, MessageNotFoundError (`reply_to`),
            MessageTooLongError, IdempotencyConflictError, UnavailableError
        """
        return await self._store(principal, command, user_id=principal.user_id)

    async def post(self, principal: Principal, command: PostMessage) -> Sent:
        """Send by REST: a master key may name the sender, else the sender is `system`."""
        complete = command.model_copy(
            update={"client_msg_id": command.client_msg_id or str(uuid4())}
        )
        if principal.is_user:
            if command.sender_id not in {None, principal.external_id}:
                raise PayloadInvalidError.of("sender_id", "only a master key names the sender")
            return await self._store(principal, complete, user_id=principal.user_id)
        if command.sender_id is None:
            return await self._store(principal, complete, user_id=None)
        async with self._people() as people:
            sender = await people.find_one(
                principal.client_id, command.sender_id, field="sender_id"
            )
        return await self._store(principal, complete, user_id=sender, sender_id=command.sender_id)

    async def list(self, principal: Principal, command: ListMessages) -> Messages:
        _refuse_both_ends(command)
        async with self._rooms() as rooms:
            room, me = await rooms.visible(principal, command.room_id)
        found = await self._repository.messages(
            room.id,
            floor=room_policies.floor(room, me),
            after=command.after_seq,
            before=command.before_seq,
            limit=command.limit + 1,
        )
        return await self._page(principal, found, command)

    async def get(self, principal: Principal, command: MessageRef) -> MessageOut:
        found, _, _ = await self.visible(principal, command.message_id)
        [shown] = await self._shown(principal, [found])
        return shown

    async def thread(self, principal: Principal, command: ListThread) -> Thread:
        """Give a message and the replies below it; of a reply, those of the thread it is in.

        Raises:
            MessageNotFoundError, PayloadInvalidError
        """
        _refuse_both_ends(command)
        found, room, me = await self.visible(principal, command.message_id)
        thread_id, count = UUID(found["id"]), found["reply_count"]
        if found["thread_id"] is not None:
            thread_id = UUID(found["thread_id"])
            root = await self._repository.message(principal.client_id, thread_id)
            count = 0 if root is None else root["reply_count"]
            # Where the beginning is gone, or not the caller's to read, the reply stands in for it.
            if root is not None and root["seq"] >= room_policies.floor(room, me):
                found = root
        replies = await self._repository.thread(
            thread_id,
            floor=room_policies.floor(room, me),
            after=command.after_seq,
            before=command.before_seq,
            limit=command.limit + 1,
        )
        page = await self._page(principal, replies, command, forward=command.before_seq is None)
        [first] = await self._shown(principal, [found])
        return Thread.model_construct(
            message=first,
            items=page.items,
            has_more=page.has_more,
            count=max(count, len(page.items)),
        )

    async def visible(
        self, principal: Principal, message_id: UUID
    ) -> tuple[dict[str, Any], Room, Member | None]:
        """Read a message that the caller may read, its room, and the caller's seat there.

        Raises:
            MessageNotFoundError
        """
        found = await self._repository.message(principal.client_id, message_id)
        if found is None:
            raise MessageNotFoundError
        try:
            async with self._rooms() as rooms:
                room, me = await rooms.visible(principal, UUID(found["room_id"]))
        except (RoomNotFoundError, NotARoomMemberError) as error:
            raise MessageNotFoundError from error
        if found["seq"] < room_policies.floor(room, me):
            raise MessageNotFoundError
        return found, room, me

    async def _page(
        self,
        principal: Principal,
        found: _Found,
        command: ListMessages | ListThread,
        *,
        forward: bool | None = None,
    ) -> Messages:
        """Make a page of up to `limit` messages of what was read, which is one more if there is."""
        if forward is None:
            forward = command.after_seq is not None
        has_more = len(found) > command.limit
        if has_more:
            found = found[: command.limit] if forward else found[1:]
        fitting = policies.fitting(found if forward else found[::-1])
        if fitting < len(found):
            has_more = True
            found = found[:fitting] if forward else found[-fitting:]
        return Messages.model_construct(
            items=await self._shown(principal, found), has_more=has_more
        )

    async def _shown(self, principal: Principal, found: _Found) -> _Shaped:
        user_id = principal.user_id if principal.is_user else None
        return await self._repository.shown(user_id, found)

    async def _store(
        self,
        principal: Principal,
        command: SendMessage,
        *,
        user_id: UUID | None,
        sender_id: str | None = None,
    ) -> Sent:
        policies.check_size(command, characters=self._characters, octets=self._octets)
        is_user = user_id is not None
        draft = Draft(
            client_id=principal.client_id,
            room_id=command.room_id,
            user_id=user_id,
            sender="user" if is_user else "system",
            sender_id=(sender_id or principal.external_id) if is_user else None,
            sender_key=str(user_id) if is_user else "system:api",
            client_msg_id=command.client_msg_id,
            body_hash=policies.body_hash(command),
            content=command.content,
            reply_to=command.reply_to,
            attachments=command.attachments,
            mentions=list(dict.fromkeys(command.mentions)),
            metadata=command.metadata,
            silent=command.silent,
        )
        if self._attachments is not None and any("file_id" in each for each in draft.attachments):
            try:
                files = await self._attachments.check(principal, draft.room_id, draft.attachments)
            except DomainError:
                # A file may have gone since; what was stored with it then is the answer now.
                first = await self._repository.sent_before(draft)
                if first is None:
                    raise
                [shown] = await self._shown(principal, [first])
                return Sent.model_construct(message=shown, duplicate=True)
            draft = replace(draft, attachments=files)
        if self._screen is not None:
            draft = await self._screened(self._screen, draft)
        outcome = await self._writer.write(draft)
        if outcome.outcome == "stored":
            stored = b'{"message":%b,"duplicate":false}' % written(draft, outcome)
            return JustSent.of(stored, duplicate=False)
        if outcome.outcome == "duplicate" and outcome.message_id is not None:
            first = await self._repository.message(draft.client_id, outcome.message_id)
            if first is not None:
                [shown] = await self._shown(principal, [first])
                return Sent.model_construct(message=shown, duplicate=True)
            raise MessageNotFoundError
        if outcome.outcome == RoomNotFoundError.code and principal.is_master and is_user:
            # The application may know that the room is there: what it names is no member of it.
            async with self._rooms() as rooms:
                await rooms.visible(principal, command.room_id)
            raise NotARoomMemberError
        if outcome.outcome == MessageNotFoundError.code:
            issue: Issue = {"field": "reply_to", "issue": "is no message of this room"}
            raise MessageNotFoundError(issues=(issue,))
        raise _REFUSALS[outcome.outcome](retry_after_ms=outcome.wait_ms)

    async def _screened(self, screen: policies.Screen, draft: Draft) -> Draft:
        screened = await screen.check(draft.client_id, draft.room_id, draft.content)
        if screened.flagged_by:
            # Before the message: none that was stored goes unflagged, whatever dies in between.
            await screen.flag(draft.client_id, draft.room_id, draft.message_id, screened.flagged_by)
        if screened.content == draft.content:
            return draft
        # The hash stays that of what was sent, so that a retry is known again.
        return replace(draft, content=screened.content)


def _refuse_both_ends(command: ListMessages | ListThread) -> None:
    if command.after_seq is not None and command.before_seq is not None:
        raise PayloadInvalidError.of("before_seq", "can't stand beside after_seq")
