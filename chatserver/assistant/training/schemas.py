"""Training jobs, as they go over the wire."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import Answer, Id, Request, Timestamp

MOST_SOURCES: int = 100
JobStatus: TypeAlias = Literal["queued", "running", "done", "failed"]


class QueueSources(Request):
    """Which sources to read, or to read again: documents, or the dashboard's training sources."""

    source_ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_SOURCES)]


class ListJobs(PageRequest):
    """Which page of the training jobs; of one state, of one source."""

    status: JobStatus | None = None
    source_id: Id | None = None


class JobPath(Request):
    job_id: Id


class SourcePath(Request):
    source_id: Id


class ReembedBot(Request):
    bot_id: Id


class TrainingJobOut(Answer):
    """A job. `step` is what it does now, `done` of `total` how far, `reason` why it failed."""

    id: Id
    source_id: Id | None
    bot_id: Id
    kind: Literal["process", "reembed"]
    status: JobStatus
    step: str | None
    reason: str | None
    done: int
    total: int
    created_at: Timestamp
    started_at: Timestamp | None
    ended_at: Timestamp | None


class TrainingJobList(Answer):
    items: list[TrainingJobOut]
