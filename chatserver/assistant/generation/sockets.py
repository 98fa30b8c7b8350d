"""The commands of answers, in `/chat`."""

from typing import Final

from chatserver.assistant.bots.errors import BotNotFoundError
from chatserver.assistant.generation.errors import (
    AnswerNotFoundError,
    AssistantBusyError,
    NothingToResumeError,
    SourcesGoneError,
)
from chatserver.assistant.generation.following import Follower
from chatserver.assistant.generation.schemas import (
    AnswerRef,
    AnswerState,
    Ask,
    AskedOut,
    CatchUp,
    CaughtUp,
)
from chatserver.assistant.generation.service import GenerationService
from chatserver.chat.errors import MessageTooLongError
from chatserver.kernel.errors import IdempotencyConflictError
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal, Scope
from chatserver.realtime.errors import QuotaExceededError
from chatserver.rooms.errors import CHANGED
from chatserver.transport.registry import USER, command

NAMESPACE: Final = "/chat"
ASK_ERRORS: Final = (
    *CHANGED,
    BotNotFoundError,
    MessageTooLongError,
    IdempotencyConflictError,
    AssistantBusyError,
    QuotaExceededError,
)


class AnswerCommands:
    """Asking, and what can be done with an answer that is being written."""

    def __init__(self, answers: Open[GenerationService], follower: Follower) -> None:
        self._answers = answers
        self._follower = follower

    @command(
        "assistant.ask",
        Ask,
        AskedOut,
        scope=Scope.ASSISTANT_USE,
        callers=USER,
        errors=ASK_ERRORS,
    )
    async def ask(self, principal: Principal, request: Ask) -> AskedOut:
        """Ask a question.

        The answer's message is `pending` when this returns; a worker writes it, and the asker may
        leave. Retry with the same `client_msg_id`: a retry gives the first answer.
        """
        async with self._answers() as answers:
            return await answers.ask(principal, request)

    @command(
        "assistant.cancel",
        AnswerRef,
        AnswerState,
        scope=Scope.ASSISTANT_USE,
        callers=USER,
        errors=(AnswerNotFoundError,),
    )
    async def cancel(self, principal: Principal, request: AnswerRef) -> AnswerState:
        """End an answer that is being written, from any device. What there is of it stays."""
        async with self._answers() as answers:
            state = await answers.cancel(principal, request)
        await self._follower.tell_cancelled(principal, request.message_id)
        return state

    @command(
        "assistant.resume",
        AnswerRef,
        AnswerState,
        scope=Scope.ASSISTANT_USE,
        callers=USER,
        errors=(
            AnswerNotFoundError,
            NothingToResumeError,
            SourcesGoneError,
            AssistantBusyError,
            QuotaExceededError,
            *CHANGED,
        ),
    )
    async def resume(self, principal: Principal, request: AnswerRef) -> AnswerState:
        """Let an answer that failed go on from what there is of it, with the sources it had."""
        async with self._answers() as answers:
            return await answers.resume(principal, request)

    @command(
        "assistant.catch_up",
        CatchUp,
        CaughtUp,
        scope=Scope.CHAT_READ,
        callers=USER,
        errors=(AnswerNotFoundError,),
    )
    async def catch_up(self, principal: Principal, request: CatchUp) -> CaughtUp:
        """Read an answer so far, or only what is missing after `index` of `generation`.

        Call it whenever an answer is met in the middle, or a delta is missing. In large rooms it
        also asks for the deltas that follow.
        """
        return await self._follower.catch_up(principal, request)
