"""The words of messages, beside the messages: sends don't write here, one indexer does."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKeyConstraint, Index
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column, uuid_column


class MessageSearch(SQLModel, table=True):
    """One message that can be found. What is edited or deleted loses its row by a trigger."""

    __tablename__ = "message_search"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "message_id"], ["message.client_id", "message.id"], ondelete="CASCADE"
        ),
        Index(
            "ix_message_search_search",
            "search",
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
        ),
    )

    message_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    room_id: UUID = Field(sa_column=uuid_column())
    seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    created_at: datetime = Field(sa_column=time_column())
    search: Any = Field(sa_column=Column(TSVECTOR, nullable=False))


class SearchProgress(SQLModel, table=True):
    """How far the log is indexed; there is one row."""

    __tablename__ = "search_progress"
    __table_args__ = (CheckConstraint("singleton", name="one_row"),)

    singleton: bool = Field(primary_key=True)
    at: datetime = Field(sa_column=time_column())
    room_id: UUID = Field(sa_column=uuid_column())
    seq: int = Field(sa_column=Column(BigInteger, nullable=False))
