"""Bots, who may use them, and the rooms that they are members of."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Double, ForeignKeyConstraint, Index, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column


class Bot(SQLModel, table=True):
    """An AI participant. `origin` dashboard: a copy of a row there, kept for when that is away."""

    __tablename__ = "bot"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        UniqueConstraint("client_id", "id"),
        Index("ix_bot_client_id_created_at", "client_id", "created_at", "id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    name: str = Field(max_length=128)
    instructions: str = Field(default="", sa_column=Column(Text, nullable=False))
    model: str | None = Field(default=None, max_length=128)
    temperature: float | None = Field(default=None, sa_column=Column(Double, nullable=True))
    retrieval: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    # everyone: each user of the client; listed: those of `bot_user`.
    access: str = Field(default="everyone", max_length=16)
    origin: str = Field(default="local", max_length=16)
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    updated_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    deleted_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


class BotUser(SQLModel, table=True):
    """A person named in a bot's access: a user of a listed bot, or an editor of its documents."""

    __tablename__ = "bot_user"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "bot_id"], ["bot.client_id", "bot.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["client_id", "user_id"], ["app_user.client_id", "app_user.id"], ondelete="CASCADE"
        ),
        Index("ix_bot_user_user_id", "user_id"),
    )

    bot_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    user_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    role: str = Field(default="user", max_length=8)


class RoomBot(SQLModel, table=True):
    """A bot that is a member of a room; `room.bots` counts these rows.

    `answers`: `auto` is always in `assistant` rooms and in `support` rooms that nobody attends to,
    else when mentioned. `is_paused`: a human has taken over.
    """

    __tablename__ = "room_bot"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "room_id"], ["room.client_id", "room.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["client_id", "bot_id"], ["bot.client_id", "bot.id"], ondelete="CASCADE"
        ),
        Index("ix_room_bot_bot_id", "bot_id", "room_id"),
    )

    room_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    bot_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    answers: str = Field(default="auto", max_length=16)
    is_paused: bool = False
    added_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
