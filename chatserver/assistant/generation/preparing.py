"""What an answer is made from: its bot, the passages, what was said before, who reads along."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

from chatserver.assistant.answering.errors import AnswerFailedError
from chatserver.assistant.answering.schemas import Answerer, Asked, Source, Turn
from chatserver.assistant.bots.models import Bot
from chatserver.assistant.bots.schemas import settings_of
from chatserver.assistant.generation.emitting import PACE_S, SLOW_PACE_S
from chatserver.assistant.generation.running import Prepared
from chatserver.assistant.generation.store import GenerationStore, Run
from chatserver.assistant.retrieval.schemas import Retrieval, Retrieved
from chatserver.kernel.opening import Open

HISTORY: Final = 12
# With more people in a room than this, deltas are fewer; with more online, not everybody gets them.
MANY: Final = 50
CROWD: Final = 200
# Of a larger room nobody counts who is online: it is taken for a crowd.
COUNTED: Final = 2000
AT_ONCE: Final = 6


class Bots(Protocol):
    """What this needs of the bots' service."""

    async def find(self, client_id: UUID, bot_id: UUID) -> Bot | None: ...

    async def usable_in_room(self, bot: Bot, room_id: UUID) -> bool: ...


# How many of these users are online, told by presence; raises `ConnectionError` when it is away.
CountOnline = Callable[[Sequence[UUID]], Awaitable[int]]


class Preparer:
    def __init__(
        self,
        *,
        store: GenerationStore,
        bots: Open[Bots],
        retrieval: Retrieval,
        answerer: Answerer,
        count_online: CountOnline,
        reads_whole: bool = False,
    ) -> None:
        """`reads_whole`: the answerer is better off with all of a few documents than with some."""
        self._store = store
        self._bots = bots
        self._retrieval = retrieval
        self._answerer = answerer
        self._count_online = count_online
        self._reads_whole = reads_whole
        # Answers that begin together wait for each other here, and not for a connection.
        self._few = asyncio.Semaphore(AT_ONCE)

    async def prepare(self, run: Run, shown: str) -> Prepared:
        async with self._few:
            return await self._prepare(run, shown)

    async def _prepare(self, run: Run, shown: str) -> Prepared:
        bot = await self._bot(run)
        settings = settings_of(bot.retrieval)
        timings: dict[str, float] = {}
        receipt: UUID | None = None
        if run.sources is None:
            started = time.monotonic()
            found = await self._retrieval.search(
                run.client_id,
                [bot.id],
                run.question,
                settings.limit,
                weight=settings.weight,
                whole_tokens=settings.whole_tokens if self._reads_whole else 0,
                asked_by=run.asked_by,
                keep=True,
            )
            timings["retrieval_ms"] = round((time.monotonic() - started) * 1000, 1)
            frozen, weak, receipt = _frozen(found), found.is_weak, found.retrieval_id
        else:
            frozen, weak = run.sources, run.is_weak
        sources = tuple(Source.of(members) for members in frozen)
        asked = Asked(
            question=run.question,
            instructions=bot.instructions,
            sources=sources,
            history=await self._history(run, bot),
            shown=shown,
            weak=weak,
            must_find=not settings.answer_without_sources,
            cites=settings.citations,
            model=bot.model,
            temperature=bot.temperature,
        )
        return Prepared(
            asked=asked,
            answerer=self._answerer,
            given="\n".join([run.question, *(source.text for source in sources)]),
            frozen=frozen,
            receipt=receipt,
            timings=timings,
            audience=await self._audience(run),
            pace_s=SLOW_PACE_S if run.members_count > MANY else PACE_S,
        )

    async def _bot(self, run: Run) -> Bot:
        """Find the bot; the right to it is looked at again, since time has passed."""
        async with self._bots() as bots:
            bot = await bots.find(run.client_id, run.bot_id)
            if bot is None:
                raise AnswerFailedError("bot.not_found", "The bot is gone.")
            # A bot that is a member of the room may be asked by everybody in it.
            may = await bots.usable_in_room(bot, run.room_id)
        if not may:
            raise AnswerFailedError("bot.not_found", "Not everybody here may use the bot any more.")
        return bot

    async def _history(self, run: Run, bot: Bot) -> tuple[Turn, ...]:
        rows = await self._store.history(run, limit=HISTORY)
        turns = [
            Turn("assistant" if row["sender_id"] == str(bot.id) else "user", row["content"])
            for row in reversed(rows)
            if row["sender"] != "system"
        ]
        return tuple(turns)

    async def _audience(self, run: Run) -> tuple[UUID, ...] | None:
        """Give who alone gets the deltas: the asker, where too many are online."""
        if run.members_count <= CROWD:
            return None
        alone = () if run.asked_by is None else (run.asked_by,)
        if run.members_count > COUNTED:
            return alone
        members = await self._store.online_candidates(run.room_id, COUNTED)
        try:
            online = await self._count_online(members)
        except ConnectionError:
            return alone
        return alone if online > CROWD else None


def _frozen(found: Retrieved) -> list[dict[str, Any]]:
    """Give the passages as they are kept, sent and cited, by numbers that stay theirs."""
    return [
        Source(
            n=chunk.n,
            chunk_id=chunk.chunk_id,
            document_id=chunk.document_id,
            document_version=chunk.document_version,
            title=chunk.title,
            text=chunk.text,
            char_start=chunk.char_start,
            char_end=chunk.char_end,
            score=chunk.score,
            page=chunk.page,
            url=chunk.url,
        ).members()
        for chunk in found.chunks
    ]
