"""Links that let people into a room."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column, uuid_column


class Invite(SQLModel, table=True):
    """A link into a room. Only its code's hash is kept: whoever reads the table can't come in."""

    __tablename__ = "invite"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "room_id"], ["room.client_id", "room.id"], ondelete="CASCADE"
        ),
        Index("ix_invite_room_id", "room_id", "created_at"),
        Index("ix_invite_expires_at", "expires_at"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    room_id: UUID = Field(sa_column=uuid_column())
    code_hash: bytes = Field(unique=True)
    role: str = Field(max_length=16)
    max_uses: int | None = None
    uses: int = 0
    created_by: str | None = Field(default=None, max_length=128)
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    expires_at: datetime = Field(default=None, sa_column=time_column())
    revoked_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
