"""REST for answers: following one, and what they cost."""

from typing import Final

from chatserver.assistant.generation.errors import AnswerNotFoundError
from chatserver.assistant.generation.following import Follower
from chatserver.assistant.generation.schemas import AiUsageOut, AskAiUsage, FollowAnswer
from chatserver.assistant.generation.usage import UsageReader
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal, Scope
from chatserver.kernel.wire import EventStream
from chatserver.transport.registry import MASTER, Route, operation


class AnswersHttp:
    def __init__(self, follower: Follower, usage: Open[UsageReader]) -> None:
        self._follower = follower
        self._usage = usage

    @operation(
        "assistant.follow",
        FollowAnswer,
        EventStream,
        scope=Scope.CHAT_READ,
        errors=(AnswerNotFoundError,),
    )
    async def follow(self, principal: Principal, request: FollowAnswer) -> EventStream:
        """Follow an answer as server-sent events.

        First `catch_up` with the text so far (or what follows `after_index`), then `message.delta`
        as it is written, and at the end `message.updated`. Ids are `generation.index`: whoever was
        cut off asks again with `after_index` (and `generation`) and gets each character once.
        """
        return await self._follower.follow(principal, request)

    @operation("assistant.usage", AskAiUsage, AiUsageOut, callers=MASTER)
    async def usage(self, principal: Principal, request: AskAiUsage) -> AiUsageOut:
        """Show what answers used: tokens and costs, by day, bot and model."""
        async with self._usage() as usage:
            return await usage.read(principal, request)


ROUTES: Final = (
    Route(method="GET", path="/messages/{message_id}/stream", operation="assistant.follow"),
    Route(method="GET", path="/client/usage/assistant", operation="assistant.usage"),
)
