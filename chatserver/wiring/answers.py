"""How answers are built: asking and following for nodes, making them for workers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol
from uuid import UUID

import orjson

from chatserver.assistant.answering.extractive import ExtractiveAnswerer
from chatserver.assistant.answering.modelled import ModelAnswerer
from chatserver.assistant.answering.schemas import Answerer
from chatserver.assistant.answering.ways import Ways
from chatserver.assistant.bots.service import BotService
from chatserver.assistant.embedding.errors import EmbedderAwayError
from chatserver.assistant.embedding.schemas import Vectors
from chatserver.assistant.generation.checkpoints import Checkpoints
from chatserver.assistant.generation.endings import EndingService
from chatserver.assistant.generation.following import Follower
from chatserver.assistant.generation.handling import AnswerHandler, Costs
from chatserver.assistant.generation.preparing import Preparer
from chatserver.assistant.generation.repository import GenerationRepository
from chatserver.assistant.generation.running import Deadlines
from chatserver.assistant.generation.service import GenerationService, Limits, Means
from chatserver.assistant.generation.store import GenerationStore
from chatserver.assistant.generation.stream_log import SCRIPT, StreamLog
from chatserver.assistant.generation.usage import UsageReader
from chatserver.assistant.retrieval.schemas import Retrieval
from chatserver.assistant.sessions.repository import SessionRepository
from chatserver.assistant.sessions.service import SessionService
from chatserver.chat.repository import ChatRepository
from chatserver.infra import jobs
from chatserver.infra.job_kinds import WRITE_ANSWER
from chatserver.infra.language_model import LanguageModel
from chatserver.infra.redis_scripts import RedisScripts
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.clock import utc_now
from chatserver.kernel.tasks import end
from chatserver.realtime.presence import OFFLINE, Presence
from chatserver.realtime.store import Store
from chatserver.rooms.members import MemberService
from chatserver.rooms.service import RoomService
from chatserver.settings import Settings
from chatserver.transport.limits import quota_exceeded
from chatserver.users.service import UserService
from chatserver.wiring.core import Core

TOKENS = "ai_tokens"


class Documents(Protocol):
    """What this needs of the other half of the assistant: bots, and what they know."""

    @property
    def retrieval(self) -> Retrieval: ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts for comparing them; raises `EmbedderAwayError`."""
        ...

    def bots(self, work: UnitOfWork) -> BotService:
        """Build the bots' service of a transaction."""
        ...

    async def chunks_exist(self, client_id: UUID, chunk_ids: Sequence[UUID]) -> bool:
        """Tell whether all of these passages are still there."""
        ...


class AnswerWiring:
    """Answers of one process. `handler` is for workers, the rest for nodes."""

    def __init__(
        self,
        core: Core,
        *,
        documents: Documents,
        rooms: Callable[[UnitOfWork], RoomService],
        members: Callable[[UnitOfWork], MemberService],
        people: Callable[[UnitOfWork], UserService],
        messages: ChatRepository,
    ) -> None:
        self._core = core
        self._documents = documents
        self._rooms = rooms
        self._members = members
        self._people = people
        settings = core.settings
        self._scripts = RedisScripts(settings.redis_url.get_secret_value(), SCRIPT, name="answers")
        self._presence = Presence(Store(core.bus.url, prefix=core.bus.prefix))
        self.stream = StreamLog(
            self._scripts, core.publisher, sharded=core.bus.sharded, prefix=core.bus.prefix
        )
        self.store = GenerationStore(core.database)
        self.open_answers = core.open(self.answers)
        self.open_sessions = core.open(self._sessions)
        self.open_usage = core.open(
            lambda work: UsageReader(GenerationRepository(work.session), utc_now)
        )
        self.follower = Follower(
            store=self.store,
            stream=self.stream,
            rooms=core.open(rooms),
            messages=messages,
            now=time.monotonic,
        )
        self.checkpoints = Checkpoints(self.store)
        self._model = language_model(settings)
        self.handler = AnswerHandler(
            store=self.store,
            stream=self.stream,
            checkpoints=self.checkpoints,
            preparing=Preparer(
                store=self.store,
                bots=core.open(documents.bots),
                retrieval=documents.retrieval,
                answerer=self._answerer(settings),
                count_online=self._count_online,
                reads_whole=self._model is not None,
            ),
            endings=core.open(self._endings),
            deadlines=Deadlines(
                first_token_s=settings.answer_first_token_s,
                token_s=settings.answer_token_s,
                whole_s=settings.answer_whole_s,
            ),
            embed=self._embed,
            costs=Costs(
                settings.ai_prices,
                lambda client_id, tokens: core.quotas.spend(client_id, TOKENS, tokens),
            ),
        )
        self._counting: asyncio.Task[None] | None = None

    @property
    def has_redis(self) -> bool:
        """Whether deltas can be kept; for metrics."""
        return self._scripts.is_there

    def answers(self, work: UnitOfWork) -> GenerationService:
        limits = self._core.settings.limits
        return GenerationService(
            answers=GenerationRepository(work.session),
            rooms=self._rooms(work),
            bots=self._documents.bots(work),
            recorder=work,
            endings=self._endings(work),
            means=Means(
                plan=self._planner(work),
                may_spend=self._may_spend,
                sources_exist=self._documents.chunks_exist,
            ),
            limits=Limits(
                characters=limits.text_characters,
                octets=limits.text_bytes,
                at_once=self._core.settings.answers_at_once,
            ),
        )

    def _endings(self, work: UnitOfWork) -> EndingService:
        return EndingService(
            answers=GenerationRepository(work.session),
            recorder=work,
            generation=self._core.generation,
        )

    def _sessions(self, work: UnitOfWork) -> SessionService:
        return SessionService(
            sessions=SessionRepository(work.session),
            rooms=self._rooms(work),
            members=self._members(work),
            bots=self._documents.bots(work),
            people=self._people(work),
            answers=self.answers(work),
        )

    async def start(self) -> None:
        """Connect to Redis; goes on without it."""
        await self._scripts.start()

    async def start_working(self) -> None:
        """Begin what only workers do: checkpoints, and counting tokens."""
        await self._core.limiter.start()
        if self._model is not None:
            await asyncio.to_thread(self._model.warm)
        self.checkpoints.start()
        self._counting = asyncio.get_running_loop().create_task(self._core.quotas.run())

    async def stop(self) -> None:
        await self.checkpoints.stop()
        if self._counting is not None:
            await end(self._counting)
            await self._core.limiter.stop()
        if self._model is not None:
            await self._model.close()
        await self._scripts.stop()

    def _planner(self, work: UnitOfWork) -> Callable[[UUID, UUID], Awaitable[None]]:
        async def plan(client_id: UUID, message_id: UUID) -> None:
            await jobs.plan(
                work.session,
                WRITE_ANSWER,
                dedupe=str(message_id),
                client_id=client_id,
                payload=orjson.dumps({"message_id": str(message_id)}).decode(),
            )
            work.after_commit(lambda: self._core.doorbell.ring([WRITE_ANSWER.name]))

        return plan

    async def _may_spend(self, client_id: UUID) -> None:
        gate = self._core.gate
        if not gate.is_enabled:
            return
        await gate.book.load(client_id)
        # Workers spend them: what they wrote is read here.
        for use in await self._core.quotas.uses(client_id, gate.book.of(client_id).quotas):
            if use.metric == TOKENS and use.left == 0:
                raise quota_exceeded(use)

    def _answerer(self, settings: Settings) -> Answerer:
        if self._model is None:
            return ExtractiveAnswerer(self._embed)
        return ModelAnswerer(
            self._model,
            continue_mode=settings.openai_continue_mode,
            max_tokens=settings.answer_max_tokens,
            ways=Ways(self._core.database),
        )

    async def _embed(self, texts: Sequence[str]) -> list[list[float]] | None:
        try:
            vectors = await self._documents.embed(texts)
        except EmbedderAwayError:
            # Words alone then say what is like what.
            return None
        found: list[list[float]] = vectors.tolist()
        return found

    async def _count_online(self, users: Sequence[UUID]) -> int:
        found = await self._presence.read(users)
        return sum(1 for each in found.values() if each.status != OFFLINE)


def language_model(settings: Settings) -> LanguageModel | None:
    """Give the configured model: with a key, or with an address that needs none."""
    key = settings.openai_api_key
    if key is None and settings.openai_base_url is None:
        return None
    return LanguageModel(
        base_url=settings.openai_base_url,
        api_key="" if key is None else key.get_secret_value(),
        model=settings.openai_model,
        silence_s=max(settings.answer_first_token_s, settings.answer_token_s),
    )
