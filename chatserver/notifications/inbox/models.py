"""Notifications that wait for a person inside of the application."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column


class InAppNotification(SQLModel, table=True):
    """One notification of one person. `delivery_id` makes delivering it twice harmless."""

    __tablename__ = "in_app_notification"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "user_id"], ["app_user.client_id", "app_user.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("client_id", "delivery_id"),
        Index("ix_in_app_notification_user_id_id", "user_id", "id"),
        Index(
            "ix_in_app_notification_unread",
            "user_id",
            "id",
            postgresql_where=text("read_at is null"),
        ),
        Index("ix_in_app_notification_created_at", "created_at"),
        # Of what is said in a room one is unread at a time.
        Index(
            "uq_in_app_notification_room",
            "room_id",
            "user_id",
            unique=True,
            postgresql_where=text("room_id is not null and read_at is null"),
        ),
        Index(
            "ix_in_app_notification_user_id_room_id",
            "user_id",
            "room_id",
            "upto_seq",
            postgresql_where=text("room_id is not null"),
        ),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    user_id: UUID = Field(sa_column=uuid_column())
    delivery_id: UUID = Field(sa_column=uuid_column())
    category: str = Field(max_length=64)
    title: str = Field(max_length=256)
    body: str | None = None
    data: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    # Of messages: the room, the newest of them, and its place. What they say is read from there.
    room_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    message_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    upto_seq: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    # When a device said that it has it, and when the person looked.
    acked_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    read_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
