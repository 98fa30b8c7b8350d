"""What people and addresses don't want."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    UniqueConstraint,
)
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column, uuid_column

CHANNELS = ("email", "sms", "push", "webhook", "socket")


class Preference(SQLModel, table=True):
    """Whether a person wants a category (`*`: any) on a channel. No row: yes."""

    __tablename__ = "preference"
    __table_args__ = (
        PrimaryKeyConstraint("user_id", "category", "channel"),
        ForeignKeyConstraint(
            ["client_id", "user_id"], ["app_user.client_id", "app_user.id"], ondelete="CASCADE"
        ),
    )

    user_id: UUID = Field(sa_column=uuid_column())
    category: str = Field(max_length=64)
    channel: str = Field(max_length=16)
    client_id: UUID = Field(sa_column=uuid_column())
    enabled: bool
    updated_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class Suppression(SQLModel, table=True):
    """An address that gets nothing: at all, or of a category. Found by its MAC, shown by a hint."""

    __tablename__ = "suppression"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        UniqueConstraint("client_id", "channel", "address_hash", "scope"),
        UniqueConstraint("client_id", "id"),
        Index("ix_suppression_expires_at", "expires_at"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    channel: str = Field(max_length=16)
    address_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    address_hint: str = Field(max_length=64)
    # `all`, or `category:` and its name.
    scope: str = Field(max_length=80)
    reason: str = Field(max_length=16)
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    expires_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


class SoftBounce(SQLModel, table=True):
    """A mail that an address did not take, without being dead: full, or over its quota for days.

    Some of them within days end in a suppression for days. A mail counts once.
    """

    __tablename__ = "soft_bounce"
    __table_args__ = (
        PrimaryKeyConstraint("client_id", "address_hash", "delivery_id"),
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        Index("ix_soft_bounce_at", "at", postgresql_using="brin"),
    )

    client_id: UUID = Field(sa_column=uuid_column())
    address_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    delivery_id: UUID = Field(sa_column=uuid_column())
    at: datetime = Field(default=None, sa_column=time_column(default_now=True))
