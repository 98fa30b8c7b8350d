"""REST: what is read, by whom it was asked for, and how far it is."""

from typing import Final, Protocol

from chatserver.assistant.bots.errors import BotNotFoundError
from chatserver.assistant.bots.service import BotService
from chatserver.assistant.documents.errors import DocumentNotFoundError
from chatserver.assistant.documents.schemas import DeletedDocument, DocumentPath
from chatserver.assistant.documents.service import DocumentService
from chatserver.assistant.training.errors import TrainingJobNotFoundError
from chatserver.assistant.training.schemas import (
    JobPath,
    ListJobs,
    QueueSources,
    ReembedBot,
    SourcePath,
    TrainingJobList,
    TrainingJobOut,
)
from chatserver.assistant.training.service import TrainingService
from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.transport.registry import MASTER, Route, operation


class Queues(Protocol):
    """Takes sources into the queue, wherever they are kept."""

    async def queue(self, principal: Principal, command: QueueSources) -> TrainingJobList: ...


class TrainingHttp:
    def __init__(
        self,
        training: Open[TrainingService],
        documents: Open[DocumentService],
        sources: Queues,
        bots: Open[BotService],
    ) -> None:
        self._training = training
        self._documents = documents
        self._sources = sources
        self._bots = bots

    @operation(
        "training.queue",
        QueueSources,
        TrainingJobList,
        callers=MASTER,
        errors=(DocumentNotFoundError,),
    )
    async def queue(self, principal: Principal, command: QueueSources) -> TrainingJobList:
        """Have sources read, or read again: all of them, or, where one is unknown, none.

        A source is a document, or a training source of the dashboard's database.
        """
        return await self._sources.queue(principal, command)

    @operation("training.list", ListJobs, Page[TrainingJobOut], callers=MASTER)
    async def list(self, principal: Principal, command: ListJobs) -> Page[TrainingJobOut]:
        """List training jobs, the newest first."""
        async with self._training() as training:
            return await training.find_page(principal, command)

    @operation(
        "training.get", JobPath, TrainingJobOut, callers=MASTER, errors=(TrainingJobNotFoundError,)
    )
    async def get(self, principal: Principal, command: JobPath) -> TrainingJobOut:
        """Show a training job."""
        async with self._training() as training:
            return await training.get(principal, command)

    @operation(
        "training.reembed",
        ReembedBot,
        TrainingJobOut,
        callers=MASTER,
        errors=(BotNotFoundError,),
    )
    async def reembed(self, principal: Principal, command: ReembedBot) -> TrainingJobOut:
        """Embed all of a bot anew, by the model that the server is set to now.

        Searches use the old vectors until all of the new ones are there. Asked again meanwhile, the
        job that does it is given.
        """
        async with self._bots() as bots:
            await bots.usable(principal, command.bot_id)
        async with self._training() as training:
            return await training.reembed(principal, command)

    @operation(
        "training.delete",
        SourcePath,
        DeletedDocument,
        callers=MASTER,
        errors=(DocumentNotFoundError,),
    )
    async def delete(self, principal: Principal, command: SourcePath) -> DeletedDocument:
        """Remove what was read of a source: passages, vectors, and files that are ours."""
        async with self._documents() as documents:
            return await documents.delete(principal, DocumentPath(document_id=command.source_id))


ROUTES: Final = (
    Route(method="POST", path="/training/queue", operation="training.queue", status=202),
    Route(method="GET", path="/training/queue", operation="training.list"),
    Route(method="DELETE", path="/training/{source_id}", operation="training.delete"),
    Route(method="GET", path="/training/jobs/{job_id}", operation="training.get"),
    Route(method="POST", path="/bots/{bot_id}/reembed", operation="training.reembed", status=202),
)
