"""Erasures: what was asked for, how far it is, and the signed report of what was done."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    UniqueConstraint,
)
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column


def _optional_bytes() -> Column[bytes]:
    return Column(LargeBinary, nullable=True)


class Erasure(SQLModel, table=True):
    """One erasure of one person. It is kept as proof, and names nothing but the external id."""

    __tablename__ = "erasure"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        UniqueConstraint("client_id", "id"),
        Index(
            "ix_erasure_client_id_external_id_requested_at",
            "client_id",
            "external_id",
            "requested_at",
        ),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    user_id: UUID = Field(sa_column=uuid_column())
    external_id: str = Field(max_length=128)
    state: str = Field(default="queued", max_length=16)
    requested_by: str = Field(max_length=160)
    requested_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    completed_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    # The last room that is done: a worker that takes over goes on behind it.
    after_room: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    counts: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    # The signed bytes, the signature, and the public key that it is checked with.
    report: bytes | None = Field(default=None, sa_column=_optional_bytes())
    signature: bytes | None = Field(default=None, sa_column=_optional_bytes())
    signed_by: bytes | None = Field(default=None, sa_column=_optional_bytes())


class LegalHold(SQLModel, table=True):
    """What must be kept: a person or a room, one of the two, until the hold is released."""

    __tablename__ = "legal_hold"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(
            ["client_id", "user_id"], ["app_user.client_id", "app_user.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["client_id", "room_id"], ["room.client_id", "room.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("client_id", "id"),
        CheckConstraint("(user_id is null) <> (room_id is null)", name="one_subject"),
        Index("ix_legal_hold_client_id_user_id", "client_id", "user_id"),
        Index("ix_legal_hold_client_id_room_id", "client_id", "room_id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    user_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    room_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    reason: str = Field(max_length=512)
    placed_by: str = Field(max_length=160)
    placed_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    released_by: str | None = Field(default=None, max_length=160)
    released_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


class ErasureRoom(SQLModel, table=True):
    """A room that must hear of an erasure, once: a worker that takes over knows what was told."""

    __tablename__ = "erasure_room"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "erasure_id"], ["erasure.client_id", "erasure.id"], ondelete="CASCADE"
        ),
    )

    erasure_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    room_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    told: bool = False
