"""Asking for answers, ending and resuming them: whatever changes rows, in one transaction each."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from chatserver.assistant.bots.errors import BotNotFoundError
from chatserver.assistant.bots.models import Bot, RoomBot
from chatserver.assistant.generation import policies
from chatserver.assistant.generation.endings import Ending, EndingService
from chatserver.assistant.generation.errors import (
    AnswerNotFoundError,
    AssistantBusyError,
    NothingToResumeError,
    SourcesGoneError,
)
from chatserver.assistant.generation.events import message_fact
from chatserver.assistant.generation.models import Generation
from chatserver.assistant.generation.repository import GenerationRepository
from chatserver.assistant.generation.saying import Said, Speaker, Told
from chatserver.assistant.generation.schemas import AnswerRef, AnswerState, Ask, AskedOut
from chatserver.assistant.generation.store import RUNNING
from chatserver.chat import policies as chat_policies
from chatserver.chat.rows import shaped
from chatserver.chat.schemas import SendMessage
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.errors import IdempotencyConflictError
from chatserver.kernel.events import Actor, Effect
from chatserver.kernel.principal import Principal
from chatserver.realtime.errors import QuotaExceededError
from chatserver.rooms.errors import NotARoomMemberError, RoomNotFoundError
from chatserver.rooms.models import Member, Room
from chatserver.rooms.schemas import RoomRef

RETRY_MS: Final = 2000


class Rooms(Protocol):
    """What this needs of the rooms' service."""

    async def visible(self, principal: Principal, room_id: UUID) -> tuple[Room, Member | None]: ...

    async def locked(
        self, principal: Principal, room_id: UUID, *, needed: str
    ) -> tuple[Room, Member | None]: ...

    async def reactivate(self, principal: Principal, command: RoomRef) -> Any: ...  # noqa: ANN401 - not looked at


class Bots(Protocol):
    """What this needs of the bots' service."""

    async def usable(self, principal: Principal, bot_id: UUID) -> Bot: ...

    async def usable_in_room(self, bot: Bot, room_id: UUID) -> bool: ...

    async def in_room(self, client_id: UUID, room_id: UUID) -> list[tuple[RoomBot, Bot]]: ...

    async def first_usable(self, client_id: UUID, user_id: UUID) -> Bot | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one question, and what one client at a time, may be."""

    characters: int
    octets: int
    at_once: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What answers need of others. `plan` queues an answer's job, and wakes a worker after commit.

    `may_spend` raises `QuotaExceededError` when a client's tokens are used up; `sources_exist`
    tells whether all passages (chunk ids) of an answer are still there.
    """

    plan: Callable[[UUID, UUID], Awaitable[None]]
    may_spend: Callable[[UUID], Awaitable[None]]
    sources_exist: Callable[[UUID, Sequence[UUID]], Awaitable[bool]]


class GenerationService:
    """Answers of one transaction."""

    def __init__(
        self,
        *,
        answers: GenerationRepository,
        rooms: Rooms,
        bots: Bots,
        recorder: Recorder,
        endings: EndingService,
        means: Means,
        limits: Limits,
    ) -> None:
        self._answers = answers
        self._rooms = rooms
        self._bots = bots
        self._recorder = recorder
        self._endings = endings
        self._means = means
        self._speaker = Speaker(answers, recorder)
        self._limits = limits

    async def ask(
        self, principal: Principal, command: Ask, *, metadata: dict[str, Any] | None = None
    ) -> AskedOut:
        """Write the question and its pending answer. A retry gives what there is.

        `metadata` is the question's; what it says of a webhook's hops stands in the answer, too.

        Raises:
            RoomNotFoundError, NotARoomMemberError, MessageTooLongError, IdempotencyConflictError
            BotNotFoundError: there is none here that the asker may use.
            AssistantBusyError, QuotaExceededError
        """
        room = await self._locked(principal, command.room_id)
        body_hash = self._checked(command.room_id, command.content, command.client_msg_id)
        known = await self._answers.sent_before(
            room.id, str(principal.user_id), command.client_msg_id
        )
        if known is not None:
            if known.body_hash != body_hash:
                raise IdempotencyConflictError
            given = await self._answers.answers_to(principal.client_id, known.id)
            if given:
                question = await self._answers.members_of(known.id)
                return AskedOut(message_id=given[0].message_id, question=shaped(question))
        bot = await self.bot_for(principal, room, command.bot_id)
        await self._refuse_too_many(principal, room, bot.id)
        if known is None:
            said = Said(
                sender="user",
                sender_id=principal.external_id,
                sender_key=str(principal.user_id),
                client_msg_id=command.client_msg_id,
                content=command.content,
                body_hash=body_hash,
                metadata=metadata,
            )
            question = await self._speaker.write(room, said, user_id=principal.user_id)
        else:
            question = await self._answers.members_of(known.id)
        answer = await self.begin(
            room,
            bot,
            UUID(question["id"]),
            asked_by=principal.user_id,
            metadata=policies.carried_on(question["metadata"]),
        )
        return AskedOut(message_id=answer, question=shaped(question))

    async def tell(self, principal: Principal, room_id: UUID, told: Told) -> dict[str, Any]:
        """Store a message that no bot answers; as it is on the wire. A retry gives the first.

        Raises:
            RoomNotFoundError, NotARoomMemberError, MessageTooLongError, IdempotencyConflictError
        """
        room = await self._locked(principal, room_id)
        body_hash = self._checked(room_id, told.content, told.client_msg_id)
        is_user = told.sender == "user"
        bot = None if told.bot_id is None else str(told.bot_id)
        sender_key = str(principal.user_id) if is_user else bot or "system:answers"
        known = await self._answers.sent_before(room.id, sender_key, told.client_msg_id)
        if known is not None:
            if known.body_hash != body_hash:
                raise IdempotencyConflictError
            return await self._answers.members_of(known.id)
        said = Said(
            sender=told.sender,
            sender_id=principal.external_id if is_user else bot,
            sender_key=sender_key,
            client_msg_id=told.client_msg_id,
            content=told.content,
            body_hash=body_hash,
            metadata={"generate": False} if is_user else {},
            context=told.context,
            created_at=told.created_at,
            actor_type="system" if told.is_import else "",
        )
        return await self._speaker.write(room, said, user_id=principal.user_id if is_user else None)

    async def bot_for(self, principal: Principal, room: Room, bot_id: UUID | None) -> Bot:
        """Find who answers in a locked room: the named bot, the room's, or the asker's first.

        Raises:
            BotNotFoundError: none that the asker, and everybody who reads along, may use.
        """
        if bot_id is not None:
            bot = await self._bots.usable(principal, bot_id)
            if not await self._bots.usable_in_room(bot, room.id):
                raise BotNotFoundError
            return bot
        seats = await self._bots.in_room(room.client_id, room.id)
        if seats:
            return seats[0][1]
        found = await self._bots.first_usable(room.client_id, principal.user_id)
        if found is None or not await self._bots.usable_in_room(found, room.id):
            raise BotNotFoundError
        return found

    async def begin(
        self,
        room: Room,
        bot: Bot,
        question_id: UUID,
        *,
        asked_by: UUID | None,
        metadata: dict[str, Any] | None = None,
    ) -> UUID:
        """Write a pending answer into a locked room and plan its making; the message's id."""
        said = Said(
            sender="ai",
            sender_id=str(bot.id),
            sender_key=str(bot.id),
            client_msg_id=policies.answer_name(question_id),
            content="",
            status="pending",
            body_hash=hashlib.sha256(question_id.bytes).digest(),
            reply_to=question_id,
            metadata=metadata,
        )
        answer = await self._speaker.write(room, said, user_id=None)
        message_id = UUID(answer["id"])
        self._answers.add(
            Generation(
                message_id=message_id,
                client_id=room.client_id,
                room_id=room.id,
                bot_id=bot.id,
                question_id=question_id,
                asked_by=asked_by,
            )
        )
        await self._answers.flush()
        await self._means.plan(room.client_id, message_id)
        return message_id

    async def cancel(self, principal: Principal, command: AnswerRef) -> AnswerState:
        """Ask whoever writes an answer to end; again, or too late, changes nothing.

        Raises:
            AnswerNotFoundError: no answer that the caller may read.
        """
        row = await self._found(principal, command.message_id)
        if row.status == "pending" and await self._withdraw(row):
            return AnswerState(
                message_id=row.message_id, status="cancelled", generation=row.generation
            )
        if row.status in RUNNING:
            await self._answers.request_cancel(row)
        return AnswerState(message_id=row.message_id, status=row.status, generation=row.generation)

    async def _withdraw(self, row: Generation) -> bool:
        """End an answer that nobody writes as yet. False: somebody has begun meanwhile."""
        message = await self._answers.find_message(row.client_id, row.message_id)
        return message is not None and await self._endings.end(
            Ending(
                client_id=row.client_id,
                message_id=row.message_id,
                room_id=row.room_id,
                generation=row.generation,
                status="cancelled",
                text=message.partial_content or "",
                index=row.partial_index,
                context=message.context,
            )
        )

    async def resume(self, principal: Principal, command: AnswerRef) -> AnswerState:
        """Let an answer go on from what there is of it, with the sources it had.

        Raises:
            AnswerNotFoundError, NothingToResumeError, SourcesGoneError, AssistantBusyError,
            QuotaExceededError
        """
        row = await self._found(principal, command.message_id)
        room = await self._locked(principal, row.room_id)
        row = await self._found(principal, command.message_id)
        if row.status not in {"failed", "cancelled"}:
            raise NothingToResumeError(status=row.status)
        chunks = [UUID(each["chunk_id"]) for each in row.sources or ()]
        if chunks and not await self._means.sources_exist(row.client_id, chunks):
            raise SourcesGoneError
        await self._refuse_too_many(principal, room, row.bot_id)
        await self._answers.reopen(row)
        members = await self._answers.members_of(row.message_id)
        self._recorder.record(
            message_fact(
                "message.updated",
                room.client_id,
                members,
                Actor("bot", str(row.bot_id)),
                effect=Effect(resumes=members["seq"]),
            )
        )
        await self._means.plan(row.client_id, row.message_id)
        return AnswerState(message_id=row.message_id, status="pending", generation=row.generation)

    async def consider(self, client_id: UUID, room_id: UUID, message_id: UUID) -> None:
        """Let the bots of a room answer a person's message, if it is for them to answer.

        Does nothing for one that was answered already, has no text, or says `generate: false`.

        Raises:
            QuotaExceededError: the client has too many answers under way; to be tried again.
        """
        message = await self._answers.find_message(client_id, message_id)
        if message is None or message.sender != "user" or not message.content:
            return  # a tombstone, or pictures without a word: there is nothing to answer
        if message.details.get("generate") is False or await self._answers.answers_to(
            client_id, message_id
        ):
            return
        room = await self._answers.lock_room(client_id, room_id)
        if room is None or not room.is_active:
            return
        asked_by = UUID(message.sender_key)
        seats = await self._bots.in_room(client_id, room_id)
        # Whom a room is given to looks after it, also before he has said a word.
        is_attended = room.type == "support" and (
            room.assignee is not None
            or await self._answers.is_attended(room, asked_by=message.sender_id or "")
        )
        for seat, bot in seats:
            if not policies.answers(
                room_type=room.type,
                how=seat.answers,
                is_paused=seat.is_paused,
                is_mentioned=policies.is_mentioned(bot, message.content, message.mentions),
                is_attended=is_attended,
                are_several=len(seats) > 1,
            ):
                continue
            try:
                await self._means.may_spend(client_id)
            except QuotaExceededError:
                return
            await self._refuse_crowds(client_id)
            await self.begin(
                room,
                bot,
                message.id,
                asked_by=asked_by,
                metadata=policies.carried_on(message.details),
            )

    async def _locked(self, principal: Principal, room_id: UUID) -> Room:
        """Lock a room for the caller to write in, and wake it."""
        room, _ = await self._rooms.locked(principal, room_id, needed="member")
        if not room.is_active:
            await self._rooms.reactivate(principal, RoomRef(room_id=room_id))
        return room

    def _checked(self, room_id: UUID, content: str, client_msg_id: str) -> bytes:
        as_message = SendMessage(room_id=room_id, content=content, client_msg_id=client_msg_id)
        chat_policies.check_size(
            as_message, characters=self._limits.characters, octets=self._limits.octets
        )
        return chat_policies.body_hash(as_message)

    async def _refuse_too_many(self, principal: Principal, room: Room, bot_id: UUID) -> None:
        await self._means.may_spend(room.client_id)
        running = await self._answers.running_in(room.client_id, room.id)
        for row in running:
            if row.bot_id == bot_id and row.asked_by == principal.user_id:
                raise AssistantBusyError(retry_after_ms=RETRY_MS, message_id=str(row.message_id))
        await self._refuse_crowds(room.client_id)

    async def _refuse_crowds(self, client_id: UUID) -> None:
        most = self._limits.at_once
        if await self._answers.count_running(client_id, most) >= most:
            raise QuotaExceededError(
                f"At most {self._limits.at_once} answers of a client are written at once.",
                retry_after_ms=RETRY_MS,
            )

    async def _found(self, principal: Principal, message_id: UUID) -> Generation:
        """Find and lock an answer that the caller may read."""
        row = await self._answers.find(principal.client_id, message_id)
        if row is None:
            raise AnswerNotFoundError
        try:
            _, me = await self._rooms.visible(principal, row.room_id)
        except (RoomNotFoundError, NotARoomMemberError) as error:
            raise AnswerNotFoundError from error
        if principal.is_user and me is None:
            raise AnswerNotFoundError  # a channel's strangers may read it, no more
        return row
