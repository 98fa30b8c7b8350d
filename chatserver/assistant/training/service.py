"""Training jobs: what is to be read, and how far that is."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from chatserver.assistant.documents.models import Document
from chatserver.assistant.training.errors import TrainingJobNotFoundError
from chatserver.assistant.training.models import TrainingJob
from chatserver.assistant.training.repository import TrainingJobRepository
from chatserver.assistant.training.schemas import JobPath, ListJobs, ReembedBot, TrainingJobOut
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal


class TrainingService:
    """`plan` makes the worker's job for a training job of this transaction."""

    def __init__(
        self,
        *,
        jobs: TrainingJobRepository,
        plan: Callable[[TrainingJob], Awaitable[None]],
    ) -> None:
        self._jobs = jobs
        self._plan = plan

    async def queue(self, document: Document) -> TrainingJob:
        """Have a document read."""
        job = await self._jobs.add(
            TrainingJob(
                id=uuid7(),
                client_id=document.client_id,
                bot_id=document.bot_id,
                document_id=document.id,
                kind="process",
            )
        )
        await self._plan(job)
        return job

    async def reembed(self, principal: Principal, command: ReembedBot) -> TrainingJobOut:
        """Have all of a bot embedded by the model for what is new.

        Asked again while that is under way, it gives the job that does it.
        """
        job = await self._jobs.reembedding(principal.client_id, command.bot_id)
        if job is None:
            job = await self._jobs.add(
                TrainingJob(
                    id=uuid7(),
                    client_id=principal.client_id,
                    bot_id=command.bot_id,
                    kind="reembed",
                )
            )
            await self._plan(job)
        return shown(job)

    async def get(self, principal: Principal, command: JobPath) -> TrainingJobOut:
        """Show a job.

        Raises:
            TrainingJobNotFoundError: unknown, or another client's.
        """
        job = await self._jobs.find(principal.client_id, command.job_id)
        if job is None:
            raise TrainingJobNotFoundError
        return shown(job)

    async def find_page(self, principal: Principal, command: ListJobs) -> Page[TrainingJobOut]:
        found, counted = await self._jobs.find_page(
            principal.client_id,
            status=command.status,
            document_id=command.source_id,
            offset=command.offset,
            limit=command.size,
        )
        return Page[TrainingJobOut].of([shown(job) for job in found], command, counted)

    async def waiting(self, client_id: UUID, document_id: UUID) -> list[UUID]:
        """Give the jobs of a document that have not ended, the oldest first."""
        return await self._jobs.waiting(client_id, document_id)

    async def find(self, client_id: UUID, job_id: UUID) -> TrainingJob | None:
        return await self._jobs.find(client_id, job_id)


def shown(job: TrainingJob) -> TrainingJobOut:
    return TrainingJobOut(
        id=job.id,
        source_id=job.document_id,
        bot_id=job.bot_id,
        kind=job.kind,
        status=job.status,
        step=job.step,
        reason=job.reason,
        done=job.done,
        total=job.total,
        created_at=job.created_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
    )
