"""Receipts of searches."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Column, Double, ForeignKeyConstraint, Index, SmallInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column


def _flag() -> Column[bool]:
    return Column(Boolean, nullable=False, server_default="false")


class Receipt(SQLModel, table=True):
    """What a search was asked, what it weighed and what it chose: enough to do it again.

    `candidates`: `[chunk_id, cosine, bm25, score, chosen]`, the best first, over all legs.
    """

    __tablename__ = "retrieval"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        # A question is the person's own: it goes with the person.
        ForeignKeyConstraint(
            ["client_id", "user_id"], ["app_user.client_id", "app_user.id"], ondelete="CASCADE"
        ),
        Index("ix_retrieval_user_id", "client_id", "user_id"),
        Index("ix_retrieval_created_at", "created_at"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    bot_ids: list[UUID] = Field(sa_column=Column(ARRAY(PG_UUID(as_uuid=True)), nullable=False))
    # Who asked.
    user_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    query: str = Field(sa_column=Column(Text, nullable=False))
    model_id: int | None = Field(default=None, sa_column=Column(SmallInteger, nullable=True))
    legs: str = Field(max_length=8)
    weight: float = Field(sa_column=Column(Double, nullable=False))
    # Whether the documents were given as a whole.
    is_whole: bool = Field(default=False, sa_column=_flag())
    top: int = Field(sa_column=Column(SmallInteger, nullable=False))
    candidates: list[Any] = Field(default_factory=list, sa_column=json_column("[]"))
    timings: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
