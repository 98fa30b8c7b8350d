"""The people of a client."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column


class User(SQLModel, table=True):
    """A person, named by the client's own `external_id`; `id` never leaves the server."""

    __tablename__ = "app_user"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        UniqueConstraint("client_id", "id"),
        UniqueConstraint("client_id", "external_id"),
        Index("ix_app_user_rooms_changed_at", "rooms_changed_at"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    external_id: str = Field(max_length=128)
    display_name: str | None = Field(default=None, max_length=256)
    avatar_url: str | None = Field(default=None, max_length=2048)
    details: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    # Rises with every change of the set of rooms, in the change's own transaction: a node that
    # missed the news finds it by comparing.
    rooms_version: int = Field(
        default=0, sa_column=Column(BigInteger, nullable=False, server_default="0")
    )
    rooms_changed_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    revoked_before: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    # Set when an erasure was asked for: the person is gone for every caller, the row is not yet.
    erasing_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    updated_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
