"""Training jobs: what was asked to be read, and how far that is."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column, uuid_column


class TrainingJob(SQLModel, table=True):
    """One reading of a document, or the re-embedding of a bot (then without a document)."""

    __tablename__ = "training_job"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "bot_id"], ["bot.client_id", "bot.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("client_id", "id"),
        Index("ix_training_job_document_id", "client_id", "document_id", "created_at"),
        Index("ix_training_job_created_at", "client_id", "created_at", "id"),
        Index("ix_training_job_ended_at", "ended_at"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    bot_id: UUID = Field(sa_column=uuid_column())
    document_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    kind: str = Field(max_length=16)  # process, reembed
    status: str = Field(default="queued", max_length=16)  # queued, running, done, failed
    step: str | None = Field(default=None, max_length=16)
    reason: str | None = Field(default=None, max_length=32)
    done: int = 0
    total: int = 0
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    started_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    ended_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
