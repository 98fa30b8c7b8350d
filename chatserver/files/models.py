"""Files, and what of them is still to be removed from the store."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    UniqueConstraint,
)
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column, uuid_column


class StoredFile(SQLModel, table=True):
    """A file. Its keys in the store follow from client and id; its name is only a name.

    `state`: `pending` (a link was given out), `checking`, `ready` or `failed` with a `reason`.
    """

    __tablename__ = "file"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(
            ["client_id", "uploader_id"], ["app_user.client_id", "app_user.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("client_id", "id"),
        # The janitor reads it by age; whose files somebody's are is asked by erasure and export.
        Index("ix_file_state_expires_at", "state", "expires_at"),
        Index("ix_file_client_id_uploader_id", "client_id", "uploader_id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    # None: the application itself has uploaded it.
    uploader_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    name: str = Field(max_length=255)
    content_type: str = Field(max_length=128)
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    sha256: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    state: str = Field(default="pending", max_length=16)
    reason: str | None = Field(default=None, max_length=64)
    width: int | None = None
    height: int | None = None
    has_thumbnail: bool = False
    # When it goes: unless it is completed before, and then unless a message carries it.
    expires_at: datetime = Field(default=None, sa_column=time_column())
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class MessageFile(SQLModel, table=True):
    """Which messages carry a file. Kept by a trigger on `message`, in the message's transaction."""

    __tablename__ = "message_file"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "message_id"], ["message.client_id", "message.id"], ondelete="CASCADE"
        ),
        Index("ix_message_file_client_id_message_id", "client_id", "message_id"),
    )

    file_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    message_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())


class ObjectRemoval(SQLModel, table=True):
    """Objects of a file whose row is gone, however it went: kept by a trigger on `file`.

    It refers to nothing: a client's objects are removed after the client.
    """

    __tablename__ = "object_removal"

    key: str = Field(max_length=512, primary_key=True)
    # Not before the last link to upload has ended.
    due_at: datetime = Field(sa_column=time_column())
