"""Notifications to many by a file: what of it is promised, and what still waits."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, ForeignKeyConstraint, Integer, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column, uuid_column


class NotificationBatch(SQLModel, table=True):
    """One file. `sealed` is what it says, for as long as somebody must still be told."""

    __tablename__ = "notification_batch"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        UniqueConstraint("client_id", "id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    # queued, running, done, cancelled
    state: str = Field(default="queued", max_length=16)
    recipients: int
    done: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    # Lines that name somebody who is unknown.
    skipped: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    # Why it does not go on just now.
    error: str | None = Field(default=None, max_length=64)
    sealed: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    ended_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


class BatchPart(SQLModel, table=True):
    """Some lines of a file. Gone in the transaction that promises their deliveries."""

    __tablename__ = "notification_batch_part"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "batch_id"],
            ["notification_batch.client_id", "notification_batch.id"],
            ondelete="CASCADE",
        ),
    )

    batch_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    no: int = Field(primary_key=True)
    client_id: UUID = Field(sa_column=uuid_column())
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


def place_of_batch(client_id: UUID, batch_id: UUID) -> str:
    """Name what a sealed request is bound to."""
    return f"notification_batch:{client_id}:{batch_id}"


def place_of_part(client_id: UUID, batch_id: UUID, no: int) -> str:
    """Name what sealed lines are bound to."""
    return f"notification_batch_part:{client_id}:{batch_id}:{no}"
