"""A claimed answer from beginning to end: whatever happens, it ends in one of three ways."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog

from chatserver.assistant.answering.errors import AnswerFailedError
from chatserver.assistant.answering.extractive import NAME as EXTRACTIVE
from chatserver.assistant.answering.extractive import Embed
from chatserver.assistant.answering.prompts import estimate_tokens, messages
from chatserver.assistant.answering.quotes import citations_of
from chatserver.assistant.answering.schemas import Ended
from chatserver.assistant.generation.checkpoints import Checkpoints
from chatserver.assistant.generation.endings import Ending, EndingService
from chatserver.assistant.generation.running import (
    MOST_ATTEMPTS,
    AnswerRun,
    Deadlines,
    Preparing,
    StopError,
)
from chatserver.assistant.generation.store import GenerationStore
from chatserver.assistant.generation.stream_log import StreamLog
from chatserver.infra.redis_scripts import RedisAwayError
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.opening import Open

AGAIN_S: Final = 0.5
AT_ONCE: Final = 4
# A handler that is cancelled has a second to leave.
LEAVE_S: Final = 0.8

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Costs:
    """`prices`: by model, (prompt, completion) per million tokens. `spend` counts tokens."""

    prices: Mapping[str, tuple[float, float]]
    spend: Callable[[UUID, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """How a run ended, before its citations and costs are worked out."""

    status: str
    error_code: str | None = None
    error_message: str | None = None
    ended: Ended | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How a run went, for metrics: seconds from its begin, tokens by use."""

    outcome: str
    error_code: str | None
    first_token_s: float | None
    total_s: float
    tokens: Mapping[str, int]
    citations_dropped: int


class AnswerHandler:
    """Makes answers."""

    def __init__(
        self,
        *,
        store: GenerationStore,
        stream: StreamLog,
        checkpoints: Checkpoints,
        preparing: Preparing,
        endings: Open[EndingService],
        deadlines: Deadlines,
        embed: Embed | None,
        costs: Costs,
    ) -> None:
        self._store = store
        self._stream = stream
        self._checkpoints = checkpoints
        self._preparing = preparing
        self._endings = endings
        self._deadlines = deadlines
        self._embed = embed
        self._costs = costs
        # Called when a run has begun, and when it has ended.
        self.begun: Callable[[], None] = lambda: None
        self.measured: Callable[[Measured], None] = lambda _: None
        # Answers that end together wait for each other here, and not for a connection.
        self._few = asyncio.Semaphore(AT_ONCE)

    async def answer(self, client_id: UUID, message_id: UUID, *, job: UUID, fence: int) -> None:
        """Make an answer, or go on with one. Ends early when it is somebody else's by now."""
        run = await self._store.begin(client_id, message_id, job, fence)
        if run is None:
            return
        self.begun()
        answer = AnswerRun(
            run,
            store=self._store,
            stream=self._stream,
            checkpoints=self._checkpoints,
            preparing=self._preparing,
            deadlines=self._deadlines,
        )
        if not await answer.take_over():
            return
        if run.is_gone or run.is_cancelled:
            closed = Closed(status="cancelled")
        elif run.attempt > MOST_ATTEMPTS:
            closed = Closed(
                status="failed",
                error_code="worker_lost",
                error_message="The workers that wrote this answer were lost. Resume it.",
            )
        else:
            try:
                closed = await self._made(answer)
            except StopError as stop:
                if stop.why == "fenced":
                    log.info("answer_taken_over", message_id=str(message_id))
                    return
                closed = Closed(status="cancelled")
        await self._end(answer, closed)

    async def _made(self, answer: AnswerRun) -> Closed:
        self._checkpoints.hold(answer)
        try:
            return Closed(status="complete", ended=await answer.produce())
        except AnswerFailedError as error:
            log.warning("answer_failed", code=error.code, error=error.message)
            return Closed(status="failed", error_code=error.code, error_message=error.message)
        except (asyncio.CancelledError, UnavailableError):
            # Stopped in good order, or PostgreSQL is away: no fault of the answer's.
            await _within(LEAVE_S, answer.give_back())
            raise
        finally:
            self._checkpoints.let_go(answer)

    async def _end(self, answer: AnswerRun, closed: Closed) -> None:
        usage = _usage(answer, closed)
        context = await self._context(answer, closed, usage)
        run = answer.run
        ending = Ending(
            client_id=run.client_id,
            message_id=run.message_id,
            room_id=run.room_id,
            generation=answer.generation,
            status=closed.status,
            text=answer.text,
            index=answer.index,
            error_code=closed.error_code,
            error_message=closed.error_message,
            context=context,
            usage=self._priced(answer, usage),
        )
        if not await self._written(ending):
            return
        self.measured(_measured(answer, closed, usage))
        if total := sum(usage.values()):
            self._costs.spend(run.client_id, total)
        try:
            await self._stream.end(run.room_id, run.message_id, answer.generation)
        except RedisAwayError:
            log.info("pieces_left")

    async def _written(self, ending: Ending) -> bool:
        """Write how it ended; until the lease is lost, and this is cancelled."""
        while True:
            try:
                async with self._few, self._endings() as endings:
                    is_ours = await endings.end(ending)
            except UnavailableError:
                await asyncio.sleep(AGAIN_S)
                continue
            return is_ours

    async def _context(
        self, answer: AnswerRun, closed: Closed, usage: dict[str, int]
    ) -> dict[str, Any] | None:
        """Give the message's `context`: what it was made from, and what of that it used."""
        prepared = answer.prepared
        if prepared is None:
            return None
        asked = prepared.asked
        citations = []
        if asked.cites and answer.text:
            citations = await citations_of(answer.text, asked.sources, self._embed)
        context: dict[str, Any] = {
            "query": asked.question,
            "chunks": prepared.frozen,
            "citations": citations,
            "model": prepared.answerer.model_of(asked),
            "usage": usage,
            "timings": prepared.timings | _timings(answer),
        }
        if closed.ended is not None:
            context["finish_reason"] = closed.ended.finish_reason
            if closed.ended.continued_by is not None:
                context["continued_by"] = closed.ended.continued_by
        if asked.sources and asked.cites and not citations:
            # They were consulted, and nothing was cited.
            context["uncited"] = True
        if answer.cleaner is not None:
            if answer.cleaner.marks.dropped:
                context["citations_dropped"] = answer.cleaner.marks.dropped
            if answer.cleaner.removed:
                context["links_removed"] = answer.cleaner.removed
        return context

    def _priced(self, answer: AnswerRun, usage: dict[str, int]) -> dict[str, Any] | None:
        prepared = answer.prepared
        if prepared is None:
            return None
        model = prepared.answerer.model_of(prepared.asked)
        prompt, completion = self._costs.prices.get(model, (0.0, 0.0))
        cost = usage["prompt_tokens"] * prompt + usage["completion_tokens"] * completion
        # A price per million tokens is a millionth of it per token.
        return {"model": model, **usage, "cost_micros": round(cost)}


def _measured(answer: AnswerRun, closed: Closed, usage: dict[str, int]) -> Measured:
    first = answer.first_piece_at
    return Measured(
        outcome=closed.status,
        error_code=closed.error_code,
        first_token_s=None if first is None else first - answer.began_at,
        total_s=asyncio.get_running_loop().time() - answer.began_at,
        tokens={name.removesuffix("_tokens"): count for name, count in usage.items()},
        citations_dropped=0 if answer.cleaner is None else answer.cleaner.marks.dropped,
    )


def _timings(answer: AnswerRun) -> dict[str, float]:
    """Give when things happened, in milliseconds since the run began."""
    moments = {
        "first_piece_ms": answer.first_piece_at,
        "first_delta_ms": answer.first_delta_at,
        "total_ms": asyncio.get_running_loop().time(),
    }
    return {
        name: round((at - answer.began_at) * 1000, 1)
        for name, at in moments.items()
        if at is not None
    }


def _usage(answer: AnswerRun, closed: Closed) -> dict[str, int]:
    """Give the tokens that an answer used, estimated where the provider does not say."""
    told = closed.ended.usage if closed.ended is not None else {}
    if told:
        return {
            "prompt_tokens": told.get("prompt_tokens", 0),
            "completion_tokens": told.get("completion_tokens", 0),
        }
    prepared = answer.prepared
    if prepared is None or prepared.answerer.model_of(prepared.asked) == EXTRACTIVE:
        return {"prompt_tokens": 0, "completion_tokens": 0}
    said = [{"role": "assistant", "content": answer.text}]
    return {
        "prompt_tokens": estimate_tokens(messages(prepared.asked)),
        "completion_tokens": estimate_tokens(said),
    }


async def _within(seconds: float, leaving: Any) -> None:  # noqa: ANN401 - a coroutine
    """Do something on the way out; what takes longer, or fails, is left to whoever follows."""
    try:
        async with asyncio.timeout(seconds):
            await leaving
    except (TimeoutError, UnavailableError):
        log.info("answer_left_as_it_is")
