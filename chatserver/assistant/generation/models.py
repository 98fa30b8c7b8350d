"""Answers while they are being made, and what they cost."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Date, ForeignKeyConstraint, Index, Integer, text
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column


def _count(kind: type[Integer] = Integer) -> Column[int]:
    return Column(kind, nullable=False, server_default="0")


class Generation(SQLModel, table=True):
    """One answer, by the id of its message; the text so far stands in the message.

    `generation` rises with every run: whoever has an older number can't write any more.
    `partial_index` is the number of deltas that the message's `partial_content` holds.
    """

    __tablename__ = "generation"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "message_id"], ["message.client_id", "message.id"], ondelete="CASCADE"
        ),
        Index(
            "ix_generation_running",
            "client_id",
            "room_id",
            postgresql_where=text("status in ('pending', 'in_progress')"),
        ),
        Index("ix_generation_asked_by", "client_id", "asked_by"),
        Index("ix_generation_question_id", "client_id", "question_id"),
    )

    message_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    room_id: UUID = Field(sa_column=uuid_column())
    bot_id: UUID = Field(sa_column=uuid_column())
    question_id: UUID = Field(sa_column=uuid_column())
    # The person's server id; None when the application asked.
    asked_by: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    status: str = Field(default="pending", max_length=16)
    generation: int = Field(default=0, sa_column=_count())
    attempt: int = Field(default=0, sa_column=_count())
    partial_index: int = Field(default=0, sa_column=_count())
    # The passages, once they were chosen; a later run uses the same.
    sources: list[Any] | None = Field(default=None, sa_column=json_column(None, nullable=True))
    is_weak: bool = False
    retrieval_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    cancel_requested_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    error_code: str | None = Field(default=None, max_length=32)
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    # When this run of attempts began: the deadline counts from here.
    started_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    ended_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


class AiUsage(SQLModel, table=True):
    """What a client's bot used on one day (UTC). Costs are millionths of the prices' currency."""

    __tablename__ = "ai_usage"
    __table_args__ = (ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),)

    client_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    bot_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    day: date = Field(sa_column=Column(Date, primary_key=True))
    model: str = Field(max_length=128, primary_key=True)
    answers: int = Field(default=0, sa_column=_count())
    prompt_tokens: int = Field(default=0, sa_column=_count(BigInteger))
    completion_tokens: int = Field(default=0, sa_column=_count(BigInteger))
    cost_micros: int = Field(default=0, sa_column=_count(BigInteger))
