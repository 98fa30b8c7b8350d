"""Where a person can be reached by push."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, ForeignKeyConstraint, Index, LargeBinary, UniqueConstraint
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column, uuid_column


class PushDevice(SQLModel, table=True):
    """A device's push address; sealed, and found again by the MAC of its token."""

    __tablename__ = "push_device"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "user_id"], ["app_user.client_id", "app_user.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("client_id", "kind", "token_hash"),
        Index("ix_push_device_user_id", "user_id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    user_id: UUID = Field(sa_column=uuid_column())
    kind: str = Field(max_length=16)
    token_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    last_seen_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
