"""How bots, their documents and the searches in them are built."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

import orjson
import structlog

from chatserver.assistant.bots.repository import BotRepository
from chatserver.assistant.bots.service import BotService
from chatserver.assistant.dashboard.database import Dashboard
from chatserver.assistant.documents.intake import Intake
from chatserver.assistant.documents.models import Document
from chatserver.assistant.documents.repository import DocumentRepository
from chatserver.assistant.documents.service import DocumentService
from chatserver.assistant.embedding.repository import EmbeddingModels
from chatserver.assistant.embedding.schemas import Vectors
from chatserver.assistant.embedding.service import Embedders, EmbeddingChoice
from chatserver.assistant.retrieval.repository import SearchRepository
from chatserver.assistant.retrieval.service import RetrievalService
from chatserver.assistant.training.fetching import Fetcher
from chatserver.assistant.training.models import TrainingJob
from chatserver.assistant.training.purging import Purger
from chatserver.assistant.training.reembedding import Reembedder
from chatserver.assistant.training.repository import TrainingJobRepository
from chatserver.assistant.training.schemas import QueueSources, TrainingJobList
from chatserver.assistant.training.service import TrainingService
from chatserver.assistant.training.settling import Settler
from chatserver.assistant.training.sources import DashboardSources, Mirrors, OwnSources
from chatserver.assistant.training.trainer import Trainer
from chatserver.infra import jobs
from chatserver.infra.job_here import do_here
from chatserver.infra.job_kinds import (
    PROCESS_DOCUMENT,
    PURGE_DOCUMENTS,
    REEMBED_BOT,
    JobKind,
)
from chatserver.infra.reranker import Reranker
from chatserver.infra.storage import ObjectStore
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.principal import Principal
from chatserver.rooms.repository import RoomRepository
from chatserver.rooms.service import RoomService
from chatserver.settings import Settings
from chatserver.transport.limits import quota_exceeded
from chatserver.users.service import UserService
from chatserver.wiring.core import Core

STORED = "storage_bytes"
log = structlog.get_logger()


def embedding_choice(settings: Settings) -> EmbeddingChoice:
    """Read from the settings which model embeds."""
    key = settings.embedding_api_key or settings.openai_api_key
    return EmbeddingChoice(
        model=settings.embedding_model,
        base_url=settings.embedding_base_url,
        api_key="" if key is None else key.get_secret_value(),
        dimension=settings.embedding_dimension,
    )


def reranker(settings: Settings) -> Reranker | None:
    """Give the re-ranking endpoint, if one is set."""
    if settings.rerank_base_url is None:
        return None
    key = settings.rerank_api_key
    return Reranker(
        base_url=settings.rerank_base_url,
        model=settings.rerank_model,
        api_key="" if key is None else key.get_secret_value(),
    )


class DocumentsParts:
    """Documents of one process. `trainer` and `purger` are for workers, the rest for nodes."""

    def __init__(
        self,
        core: Core,
        *,
        rooms: Callable[[UnitOfWork], RoomService],
        users: Callable[[UnitOfWork], UserService],
        store: ObjectStore,
    ) -> None:
        self._core = core
        self._rooms = rooms
        self._users = users
        self.store = store
        dashboard_url = core.settings.dashboard_database_url
        self.dashboard = (
            None if dashboard_url is None else Dashboard(dashboard_url.get_secret_value())
        )
        self._dropping: set[asyncio.Task[None]] = set()
        self.open_bots = core.open(self.bots)
        self.open_documents = core.open(self.documents)
        self.open_training = core.open(self.training)
        self.embedders = Embedders(
            embedding_choice(core.settings), core.open(lambda work: EmbeddingModels(work.session))
        )
        self.searches = SearchRepository(core.database)
        self._reranker = reranker(core.settings)
        self.retrieval = RetrievalService(
            searches=self.searches, embedders=self.embedders, reranker=self._reranker
        )
        self.intake = Intake(
            documents=self.open_documents,
            store=store,
            spend=self._spend,
            check_url=core.outside.check,
        )
        work = core.open(_itself)
        self.trainer = Trainer(
            open_work=work,
            documents=self.documents,
            embedders=self.embedders,
            store=store,
            fetches=Fetcher(core.outside, store),
            ended=self._ended,
        )
        self.reembedder = Reembedder(open_work=work, embedders=self.embedders)
        self.settler = Settler(open_work=work, trainer=self.trainer, reembedder=self.reembedder)
        self.purger = Purger(
            open_work=work, rooms=lambda within: RoomRepository(within.session), store=store
        )

    def bots(self, work: UnitOfWork) -> BotService:
        """Build the bots' service of a transaction."""

        async def purge(client_id: UUID, bot_id: UUID) -> None:
            await self._plan(work, PURGE_DOCUMENTS, client_id, {"bot_id": str(bot_id)}, bot_id)

        return BotService(
            bots=BotRepository(work.session),
            rooms=self._rooms(work),
            people=self._users(work),
            recorder=work,
            generation=self._core.generation,
            purge=purge,
            directory=self.dashboard,
        )

    def documents(self, work: UnitOfWork) -> DocumentService:
        """Build the documents' service of a transaction."""

        async def queue(document: Document) -> None:
            await self.training(work).queue(document)

        async def purge(client_id: UUID, document_id: UUID) -> None:
            payload = {"document_id": str(document_id)}
            await self._plan(work, PURGE_DOCUMENTS, client_id, payload, document_id)

        return DocumentService(
            documents=DocumentRepository(work.session),
            bots=self.bots(work),
            recorder=work,
            queue=queue,
            purge=purge,
            drop=self._drop,
        )

    def training(self, work: UnitOfWork) -> TrainingService:
        """Build the training service of a transaction."""

        async def plan(job: TrainingJob) -> None:
            kind = REEMBED_BOT if job.kind == "reembed" else PROCESS_DOCUMENT
            await self._plan(work, kind, job.client_id, {"job_id": str(job.id)}, job.id)

        return TrainingService(jobs=TrainingJobRepository(work.session), plan=plan)

    async def queue(self, principal: Principal, command: QueueSources) -> TrainingJobList:
        """Take sources into the queue, wherever they are kept."""
        if self.dashboard is not None:
            theirs = DashboardSources(
                dashboard=self.dashboard,
                mirrors=self._core.open(self._mirrors),
                store=self.store,
            )
            return await theirs.queue(principal, command)
        async with self._core.open(self._own_sources)() as sources:
            return await sources.queue(principal, command)

    async def read_here(self, client_id: UUID, document_id: UUID) -> None:
        """Do a document's waiting training jobs in this process, unless a worker has them."""
        async with self.open_training() as training:
            waiting = await training.waiting(client_id, document_id)
        for job_id in waiting:
            await do_here(
                self._core.database,
                PROCESS_DOCUMENT,
                dedupe=str(job_id),
                work=partial(self.trainer.process, client_id, job_id),
            )

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed texts by the model for what is new: for comparing them with each other."""
        return await self.embedders.embed(texts)

    async def chunks_exist(self, client_id: UUID, chunk_ids: Sequence[UUID]) -> bool:
        """Tell whether all of these passages are still there."""
        return await self.retrieval.chunks_exist(client_id, chunk_ids) >= set(chunk_ids)

    async def close(self) -> None:
        """Let threads and connections go."""
        if self._dropping:
            await asyncio.wait(self._dropping, timeout=2)
        await self.embedders.close()
        if self._reranker is not None:
            await self._reranker.close()
        await self.searches.close()
        if self.dashboard is not None:
            await self.dashboard.close()
        self.store.close()

    def _own_sources(self, work: UnitOfWork) -> OwnSources:
        return OwnSources(documents=self.documents(work), training=self.training(work))

    def _mirrors(self, work: UnitOfWork) -> Mirrors:
        return Mirrors(self.bots(work), DocumentRepository(work.session), self.training(work))

    async def _plan(
        self,
        work: UnitOfWork,
        kind: JobKind,
        client_id: UUID,
        payload: dict[str, str],
        dedupe: UUID,
    ) -> None:
        await jobs.plan(
            work.session,
            kind,
            dedupe=str(dedupe),
            client_id=client_id,
            payload=orjson.dumps(payload).decode(),
        )
        work.after_commit(lambda: self._core.doorbell.ring([kind.name]))

    async def _spend(self, client_id: UUID, amount: int) -> None:
        gate, quotas = self._core.gate, self._core.quotas
        if not gate.is_enabled:
            return
        await gate.book.load(client_id)
        use = quotas.exceeded(client_id, STORED, gate.book.of(client_id).quotas, amount)
        if use is not None:
            raise quota_exceeded(use)
        quotas.spend(client_id, STORED, amount)

    def _drop(self, key: str) -> None:
        task = asyncio.get_running_loop().create_task(self._delete(key))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def _delete(self, key: str) -> None:
        try:
            await self.store.delete([key])
        except UnavailableError:
            log.warning("object_not_deleted", key=key)

    async def _ended(self, document: Document) -> None:
        if self.dashboard is not None and document.origin == "dashboard":
            await self.dashboard.report(
                document.client_id,
                document.id,
                status=document.status,
                reason=document.reason,
                chunks=document.chunks,
            )


def _itself(work: UnitOfWork) -> UnitOfWork:
    return work
