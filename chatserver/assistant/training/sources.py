"""Takes sources into the queue: documents of ours, or the dashboard's training sources."""

from uuid import UUID

from chatserver.assistant.documents.errors import DocumentNotFoundError
from chatserver.assistant.documents.schemas import DocumentPath
from chatserver.assistant.documents.service import DocumentService
from chatserver.assistant.training.schemas import QueueSources, TrainingJobList
from chatserver.assistant.training.service import TrainingService, shown
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
