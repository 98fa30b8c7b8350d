"""What one can do in a conversation: send, and read what was sent."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID, uuid4

import structlog

from chatserver.chat import policies
from chatserver.chat.errors import MessageNotFoundError
from chatserver.chat.events import Draft, Outcome, created, message_members
from chatserver.chat.repository import ChatRepository
from chatserver.chat.schemas import (
    ListMessages,
    MessageOut,
    MessageRef,
    Messages,
    PostMessage,
    SendMessage,
    Sent,
)
from chatserver.chat.writer import MessageWriter
from chatserver.kernel.errors import (
    DomainError,
    IdempotencyConflictError,
    PayloadInvalidError,
    UnavailableError,
)
from chatserver.kernel.events import Committed
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal
from chatserver.rooms.errors import NotARoomMemberError, RoomNotFoundError
from chatserver.rooms.service import People, RoomService

log = structlog.get_logger()

_REFUSALS: dict[str, type[DomainError]] = {
    refusal.code: refusal
    for refusal in (
        RoomNotFoundError,
        NotARoomMemberError,
        MessageNotFoundError,
        IdempotencyConflictError,
    )
}


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
        fact = created(draft, outcome, message_members(draft, outcome), self._generation())
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
        characters: int,
        octets: int,
    ) -> None:
        self._writer = writer
        self._repository = repository
        self._rooms = rooms
        self._people = people
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
        if command.after_seq is not None and command.before_seq is not None:
            raise PayloadInvalidError.of("before_seq", "can't stand beside after_seq")
        async with self._rooms() as rooms:
            room, me = await rooms.visible(principal, command.room_id)
        found = await self._repository.messages(
            room.id,
            floor=max(room.min_seq, me.min_seq if me is not None else 1),
            after=command.after_seq,
            before=command.before_seq,
            limit=command.limit + 1,
        )
        has_more = len(found) > command.limit
        if has_more:
            found = found[: command.limit] if command.after_seq is not None else found[1:]
        return Messages.model_construct(
            items=[shaped(members) for members in found], has_more=has_more
        )

    async def get(self, principal: Principal, command: MessageRef) -> MessageOut:
        found = await self._repository.message(principal.client_id, command.message_id)
        if found is None:
            raise MessageNotFoundError
        try:
            async with self._rooms() as rooms:
                room, me = await rooms.visible(principal, UUID(found["room_id"]))
        except (RoomNotFoundError, NotARoomMemberError) as error:
            raise MessageNotFoundError from error
        if found["seq"] < max(room.min_seq, me.min_seq if me is not None else 1):
            raise MessageNotFoundError
        return shaped(found)

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
        )
        outcome = await self._writer.write(draft)
        if outcome.outcome == "stored":
            return Sent.model_construct(
                message=shaped(message_members(draft, outcome)), duplicate=False
            )
        if outcome.outcome == "duplicate" and outcome.message_id is not None:
            first = await self._repository.message(draft.client_id, outcome.message_id)
            if first is not None:
                return Sent.model_construct(message=shaped(first), duplicate=True)
            raise MessageNotFoundError
        if outcome.outcome == RoomNotFoundError.code and principal.is_master and is_user:
            # The application may know that the room is there: what it names is no member of it.
            async with self._rooms() as rooms:
                await rooms.visible(principal, command.room_id)
            raise NotARoomMemberError
        raise _REFUSALS[outcome.outcome]


def shaped(members: dict[str, Any]) -> MessageOut:
    """Give a message that is known to have the right shape: no second validation on a hot path."""
    return MessageOut.model_construct(**members)
