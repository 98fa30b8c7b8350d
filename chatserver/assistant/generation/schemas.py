"""Asking, and following an answer, as callers send and see it."""

from typing import Annotated, Any, Literal

from pydantic import Field

from chatserver.chat.schemas import ClientMsgId, MessageOut
from chatserver.kernel.wire import Answer, Followed, Id, Request

Index = Annotated[int, Field(ge=0, le=2**53 - 1)]
Status = Literal["pending", "in_progress", "complete", "failed", "cancelled"]


class Ask(Request):
    """A question. Without `bot_id`, the room's bot answers; a retry gives the first answer."""

    room_id: Id
    content: Annotated[str, Field(min_length=1)]
    client_msg_id: ClientMsgId
    bot_id: Id | None = None


class AnswerRef(Request):
    message_id: Id


class CatchUp(Request):
    """What the caller has of an answer: nothing, or all deltas up to `index` of `generation`."""

    message_id: Id
    generation: Index | None = None
    index: Index | None = None


class FollowAnswer(Request):
    """Over HTTP: begin after this delta, by number alone."""

    message_id: Id
    after_index: Index = 0
    generation: Index | None = None


class AskedOut(Followed):
    """`message_id` is the answer's: catch up with it before its first delta comes."""

    message_id: Id
    question: MessageOut


class AnswerState(Followed):
    message_id: Id
    status: Status
    generation: int


class CaughtUp(Answer):
    """The text after `after_index` deltas; 0: all of it, which replaces what the caller has.

    `index` is the last delta that is in it. Apply later deltas of the same `generation` in order.
    """

    message_id: Id
    generation: int
    index: int
    status: Status
    after_index: int
    text: str
    sources: list[dict[str, Any]] | None


class SourcesData(Answer):
    """What an answer may be made from, before its first word."""

    message_id: Id
    sources: list[dict[str, Any]]


class DeltaData(Answer):
    """A piece of an answer. `index` goes up by one, also over generations."""

    message_id: Id
    generation: int
    index: int
    text: str


class ProgressData(Answer):
    """A sign of life: `index` is the last delta that was sent."""

    message_id: Id
    generation: int
    index: int
    status: Status


class AskAiUsage(Request):
    """Days are UTC, like `2026-11-20`; without them the last 30 days."""

    first: Annotated[str, Field(max_length=10)] | None = None
    last: Annotated[str, Field(max_length=10)] | None = None
    bot_id: Id | None = None


class AiUsageRow(Answer):
    bot_id: Id
    day: str
    model: str
    answers: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


class AiUsageOut(Answer):
    """What answers used. `cost` is in the currency of the server's price table."""

    first: str
    last: str
    items: list[AiUsageRow]
