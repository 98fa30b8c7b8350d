"""Takes sources into the queue: documents of ours, or the dashboard's training sources."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from chatserver.assistant.bots.service import BotService
from chatserver.assistant.dashboard.database import Source
from chatserver.assistant.documents.errors import DocumentNotFoundError
from chatserver.assistant.documents.repository import DocumentRepository
from chatserver.assistant.documents.schemas import DocumentPath
from chatserver.assistant.documents.service import DocumentService
from chatserver.assistant.training.schemas import QueueSources, TrainingJobList
from chatserver.assistant.training.service import TrainingService, shown
from chatserver.infra.storage import ObjectStore
from chatserver.kernel.ids import uuid7
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal


class OwnSources:
    """Documents of ours, in the transaction that both services stand in."""

    def __init__(self, *, documents: DocumentService, training: TrainingService) -> None:
        self._documents = documents
        self._training = training

    async def queue(self, principal: Principal, command: QueueSources) -> TrainingJobList:
        """Queue documents.

        Raises:
            DocumentNotFoundError: one is unknown; then none is queued.
        """
        jobs = []
        ids: list[UUID] = list(dict.fromkeys(command.source_ids))
        # In one order, so that two callers who name the same ones don't wait for each other.
        for source_id in sorted(ids):
            document = await self._documents.restarted(
                principal, DocumentPath(document_id=source_id)
            )
            jobs.append(await self._training.queue(document))
        if not jobs:
            raise DocumentNotFoundError
        return TrainingJobList(items=[shown(job) for job in jobs])


class Dashboard(Protocol):
    async def sources(self, client_id: UUID, ids: Sequence[UUID]) -> list[Source]: ...

    async def report(
        self, client_id: UUID, source_id: UUID, *, status: str, reason: str | None, chunks: int
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Mirrors:
    """The services and rows of one transaction."""

    bots: BotService
    documents: DocumentRepository
    training: TrainingService


class DashboardSources:
    """Training sources of the dashboard: read there when they are queued, and copied."""

    def __init__(self, *, dashboard: Dashboard, mirrors: Open[Mirrors], store: ObjectStore) -> None:
        self._dashboard = dashboard
        self._mirrors = mirrors
        self._store = store

    async def queue(self, principal: Principal, command: QueueSources) -> TrainingJobList:
        """Queue sources, all or none.

        Raises:
            DocumentNotFoundError: one is unknown, of no bot of the client, or another client's.
            UnavailableError: the dashboard's database is away.
        """
        client_id = principal.client_id
        wanted = sorted(set(command.source_ids))
        found = {each.id: each for each in await self._dashboard.sources(client_id, wanted)}
        if len(found) < len(wanted):
            raise DocumentNotFoundError
        keys = {each.id: await self._key(client_id, each) for each in found.values()}
        jobs = []
        async with self._mirrors() as mirrors:
            for source_id in wanted:
                source = found[source_id]
                bot = await mirrors.bots.find(client_id, source.bot_id)
                row = _row(client_id, source, keys[source_id])
                if bot is None or not await mirrors.documents.mirror(row):
                    raise DocumentNotFoundError
                document = await mirrors.documents.find(client_id, source_id, lock=True)
                if document is None:
                    raise DocumentNotFoundError
                document.status = "queued"
                jobs.append(await mirrors.training.queue(document))
        for source_id in wanted:
            await self._dashboard.report(
                client_id, source_id, status="queued", reason=None, chunks=0
            )
        return TrainingJobList(items=[shown(job) for job in jobs])

    async def _key(self, client_id: UUID, source: Source) -> str | None:
        if source.kind != "text" or source.text is None:
            return source.storage_key
        key = f"t/{client_id}/documents/{uuid7()}"
        content = source.text.encode()
        await self._store.put(key, content, content_type="application/octet-stream")
        return key


def _row(client_id: UUID, source: Source, key: str | None) -> dict[str, Any]:
    # Names there need not differ; behind the id this one does, and keeps its ending.
    name = f"{source.id}/{source.name or source.title or source.kind}"[:512]
    return {
        "id": source.id,
        "client_id": client_id,
        "bot_id": source.bot_id,
        "kind": source.kind,
        "name": name,
        "title": (source.title or source.name or source.url or source.kind)[:512],
        "url": source.url,
        "storage_key": key,
    }
