"""One run of an answer in a worker: take it over, choose sources, stream, and end it with a fact.

Everything that must outlive this process is in PostgreSQL before anybody sees it, or in the log of
pieces, where whoever takes over finds it.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import structlog

from chatserver.assistant.answering.cleaning import Cleaner
from chatserver.assistant.answering.errors import AnswerFailedError
from chatserver.assistant.answering.schemas import (
    Anew,
    Answerer,
    Asked,
    Ended,
    Piece,
    Sign,
)
from chatserver.assistant.generation.checkpoints import Checkpoints
from chatserver.assistant.generation.emitting import PACE_S, Emitter
from chatserver.assistant.generation.events import passing
from chatserver.assistant.generation.store import Checkpoint, GenerationStore, Run
from chatserver.assistant.generation.stream_log import (
    Emitted,
    Outcome,
    StreamLog,
    contiguous,
)
from chatserver.assistant.generation.stream_log import Piece as Delta
from chatserver.infra.redis_scripts import RedisAwayError
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.events import Committed
from chatserver.kernel.tasks import end

# Of one row of tries; a run that was given back in good order does not count.
MOST_ATTEMPTS: Final = 3
HEARTBEAT_S: Final = 10.0
TICK_S: Final = 1.0
# What a message may hold; a model that writes more is cut off.
LARGEST_ANSWER: Final = 60_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Seconds: to the first piece, between two, and for the whole answer."""

    first_token_s: float
    token_s: float
    whole_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What an answer is made from, beside its sources. `given`: all text that a model is told."""

    asked: Asked
    answerer: Answerer
    given: str
    frozen: list[dict[str, Any]]
    receipt: UUID | None
    timings: dict[str, float]
    # Who gets the deltas; None: everybody in the room.
    audience: tuple[UUID, ...] | None = None
    pace_s: float = PACE_S


class Preparing(Protocol):
    """Finds the bot, its sources and what was said before; see `preparing.py`."""

    async def prepare(self, run: Run, shown: str) -> Prepared:
        """Gather all of it; sources that were frozen already are used again.

        Raises:
            AnswerFailedError: the bot is gone, or not for the asker any more.
        """
        ...


class StopError(Exception):
    """The run ends now: `why` is `fenced` or `cancelled`."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class AnswerRun:
    """One run. `produce` streams until the end, or raises; the rest is what holders call."""

    def __init__(
        self,
        run: Run,
        *,
        store: GenerationStore,
        stream: StreamLog,
        checkpoints: Checkpoints,
        preparing: Preparing,
        deadlines: Deadlines,
    ) -> None:
        self.run = run
        self.generation = run.generation
        self.text = run.partial
        self.index = run.partial_index
        self.prepared: Prepared | None = None
        self.cleaner: Cleaner | None = None
        self.first_piece_at: float | None = None
        self.first_delta_at: float | None = None
        self._store = store
        self._stream = stream
        self._checkpoints = checkpoints
        self._preparing = preparing
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()
        self.began_at = self._loop.time()
        self._told_at = self.began_at
        self._emitter: Emitter | None = None
        self._readers = 0
        self._audience: tuple[UUID, ...] | None = None
        self._stopped: asyncio.Future[str] = self._loop.create_future()

    # What `Checkpoints` calls.

    def checkpoint(self) -> Checkpoint:
        run = self.run
        return Checkpoint(run.client_id, run.message_id, self.generation, self.index, self.text)

    def lose(self) -> None:
        self._stop("fenced")

    def cancel(self) -> None:
        self._stop("cancelled")

    # The run.

    async def take_over(self) -> bool:
        """Fence everybody else off and join what they left; False: too late, it is not ours."""
        run = self.run
        try:
            left = await self._stream.take(run.room_id, run.message_id, self.generation)
        except RedisAwayError:
            left = []
        if left is None:
            return False
        tail = contiguous(left, after=self.index, generation=self.generation)
        self.text += "".join(piece.text for piece in tail)
        self.index += len(tail)
        if not await self._checkpoints.now(self):
            return False
        if left:
            try:
                await self._stream.clear(run.room_id, run.message_id, self.generation)
            except RedisAwayError:
                log.info("pieces_not_cleared")
        return True

    async def produce(self) -> Ended:
        """Stream the answer from where it stands.

        Raises:
            AnswerFailedError, StopError
        """
        prepared = await self._prepare()
        await self._tell_sources(prepared)
        self.cleaner = Cleaner(
            prepared.asked.sources,
            given=prepared.given,
            cites=prepared.asked.cites,
            shown=self.text,
        )
        emitter = self._emitter = Emitter(self._send, pace_s=prepared.pace_s)
        writing = self._loop.create_task(self._write(prepared))
        beating = self._loop.create_task(self._beat())
        try:
            either: tuple[asyncio.Future[Any], ...] = (writing, self._stopped, emitter.broken)
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if emitter.broken.done() and not self._stopped.done():
                emitter.broken.result()
            if not self._stopped.done() and writing.exception() is not None:
                # What was written before it failed is shown, too.
                await emitter.drain()
            if self._stopped.done():
                raise StopError(self._stopped.result())
            return writing.result()
        finally:
            await end(writing, beating)
            await emitter.stop()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self.beat()

    async def beat(self) -> None:
        """Give a sign of life if nothing was sent for a while."""
        if self._loop.time() - self._told_at < HEARTBEAT_S:
            return
        self._told_at = self._loop.time()
        data = {
            "message_id": str(self.run.message_id),
            "generation": self.generation,
            "index": self.index,
            "status": "in_progress",
        }
        try:
            told = await self._stream.tell(
                self.run.room_id,
                self.run.message_id,
                self.generation,
                self._passing("message.progress", data),
            )
        except RedisAwayError:
            return
        await self._heed(told)

    async def give_back(self) -> None:
        """Leave the answer to another worker, in good order."""
        await self._checkpoints.now(self)
        await self._store.release(self.run, self.generation)

    async def _prepare(self) -> Prepared:
        prepared = self.prepared = await self._preparing.prepare(self.run, self.text)
        self._audience = prepared.audience
        if self.run.sources is None:
            kept = await self._store.freeze(
                self.run,
                prepared.frozen,
                is_weak=prepared.asked.weak,
                receipt=prepared.receipt,
            )
            if not kept:
                raise StopError("fenced")
        return prepared

    async def _tell_sources(self, prepared: Prepared) -> None:
        """Say what the answer is made from. Again after a takeover: it may not have been said."""
        data = {"message_id": str(self.run.message_id), "sources": prepared.frozen}
        try:
            told = await self._stream.tell(
                self.run.room_id,
                self.run.message_id,
                self.generation,
                self._passing("message.sources", data),
            )
        except RedisAwayError:
            return
        await self._heed(told)

    async def _write(self, prepared: Prepared) -> Ended:
        """Pass pieces on until the answer is complete."""
        assert self._emitter is not None  # noqa: S101 - made by `produce`
        pieces = prepared.answerer.answer(prepared.asked)
        limit_s = self._deadlines.first_token_s
        written = len(self.text)
        try:
            while True:
                piece = await self._next(pieces, limit_s)
                limit_s = self._deadlines.token_s
                if isinstance(piece, Sign):
                    continue
                if self.first_piece_at is None:
                    self.first_piece_at = self._loop.time()
                if isinstance(piece, Anew):
                    await self._begin_anew(prepared)
                    written = 0
                    continue
                if isinstance(piece, Ended):
                    break
                shown = self._cleaned(piece.text[: LARGEST_ANSWER - written])
                written += len(piece.text)
                if shown:
                    self._emitter.put(shown)
                if written >= LARGEST_ANSWER:
                    piece = Ended("length")
                    break
        finally:
            await _close(pieces)
        assert self.cleaner is not None  # noqa: S101 - made by `produce`
        rest = self.cleaner.flush()
        if rest:
            self._emitter.put(rest)
        await self._emitter.drain()
        return piece

    async def _next(self, pieces: AsyncIterator[Piece], limit_s: float) -> Piece:
        left_s = self._deadlines.whole_s - self.run.age_s - (self._loop.time() - self.began_at)
        try:
            async with asyncio.timeout(min(limit_s, left_s)):
                return await anext(pieces)
        except StopAsyncIteration:
            raise AnswerFailedError("provider_failed", "The model said nothing more.") from None
        except TimeoutError:
            if left_s <= limit_s:
                raise AnswerFailedError("deadline", "The answer took too long.") from None
            raise AnswerFailedError("timeout", "The model was silent for too long.") from None

    def _cleaned(self, text: str) -> str:
        assert self.cleaner is not None  # noqa: S101 - made by `produce`
        return self.cleaner.feed(text)

    async def _begin_anew(self, prepared: Prepared) -> None:
        """Let what follows replace what was shown, under a number of its own."""
        assert self._emitter is not None  # noqa: S101 - made by `produce`
        raised = await self._store.raise_generation(self.run, self.generation, self.index)
        if raised is None:
            raise StopError("fenced")
        self.generation, self.text = raised, ""
        self.cleaner = Cleaner(
            prepared.asked.sources, given=prepared.given, cites=prepared.asked.cites
        )
        try:
            if await self._stream.take(self.run.room_id, self.run.message_id, raised) is None:
                raise StopError("fenced")
            await self._stream.clear(self.run.room_id, self.run.message_id, raised)
        except RedisAwayError:
            log.info("pieces_not_cleared")

    async def _send(self, text: str) -> None:
        """Send one delta: appended and published in one step, or not at all."""
        self.text += text
        self.index += 1
        self._told_at = self._loop.time()
        piece = Delta(self.index, self.generation, text)
        try:
            sent = await self._append(piece)
            if sent.outcome is Outcome.MISSING:
                # Redis was emptied: the row tells whether the answer is still ours.
                if not await self._checkpoints.now(self):
                    self._stop("fenced")
                    return
                run = self.run
                await self._stream.take(run.room_id, run.message_id, self.generation)
                sent = await self._append(piece)
        except (RedisAwayError, UnavailableError):
            # Nobody hears of it now; the row has it within a second.
            return
        if self.first_delta_at is None:
            self.first_delta_at = self._loop.time()
        await self._heed(sent)

    async def _append(self, piece: Delta) -> Emitted:
        data = {
            "message_id": str(self.run.message_id),
            "generation": piece.generation,
            "index": piece.index,
            "text": piece.text,
        }
        fact = self._passing("message.delta", data)
        return await self._stream.emit(self.run.room_id, self.run.message_id, piece, fact)

    async def _heed(self, told: Emitted) -> None:
        if told.outcome is Outcome.FENCED:
            self._stop("fenced")
        elif told.is_cancelled:
            self._stop("cancelled")
        elif self._audience is not None and told.readers != self._readers:
            self._readers = told.readers
            try:
                readers = await self._stream.readers(self.run.room_id, self.run.message_id)
            except RedisAwayError:
                return
            asker = () if self.run.asked_by is None else (self.run.asked_by,)
            self._audience = tuple(dict.fromkeys((*asker, *readers)))

    def _stop(self, why: str) -> None:
        if not self._stopped.done():
            self._stopped.set_result(why)

    def _passing(self, name: str, data: dict[str, Any]) -> Committed:
        return passing(
            name,
            client_id=self.run.client_id,
            room_id=self.run.room_id,
            bot_id=self.run.bot_id,
            ts=self._now(),
            data=data,
            follows=self.run.seq,
            audience=self._audience or (),
        )

    def _now(self) -> datetime:
        """Tell PostgreSQL's time, as far as we know it."""
        return self.run.now + timedelta(seconds=self._loop.time() - self.began_at)


async def _close(pieces: AsyncIterator[Piece]) -> None:
    close = getattr(pieces, "aclose", None)
    if close is not None:
        await close()
