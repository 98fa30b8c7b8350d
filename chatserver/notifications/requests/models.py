"""What was asked to be told to whom, and how each delivery belongs to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    SmallInteger,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column


class Notification(SQLModel, table=True):
    """One request: what is to be told, to all of its recipients. Its contents are kept apart."""

    __tablename__ = "notification"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        UniqueConstraint("client_id", "id"),
        Index(
            "ix_notification_batch_id", "batch_id", postgresql_where=text("batch_id is not null")
        ),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    category: str | None = Field(default=None, max_length=64)
    # 0 critical, 1 transactional, 2 bulk
    priority: int = Field(default=1, sa_column=Column(SmallInteger, nullable=False))
    details: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    scheduled_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    expires_at: datetime = Field(sa_column=time_column())
    # The file that it came with, if it was one of many.
    batch_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    cancelled_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    # The trace that its deliveries go on with, where there is one.
    traceparent: str | None = Field(default=None, max_length=55)
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class NotificationContent(SQLModel, table=True):
    """What a notification says on a channel: sealed, and gone before its deliveries are."""

    __tablename__ = "notification_content"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "notification_id"],
            ["notification.client_id", "notification.id"],
            ondelete="CASCADE",
        ),
        Index("ix_notification_content_purge_at", "purge_at"),
    )

    notification_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    channel: str = Field(primary_key=True, max_length=16)
    client_id: UUID = Field(sa_column=uuid_column())
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    purge_at: datetime = Field(sa_column=time_column())


class NotificationFile(SQLModel, table=True):
    """A file that a notification's mails carry: the janitor leaves it alone while this is here.

    It goes with what was said, by a time of its own: the notification stays for longer.
    """

    __tablename__ = "notification_file"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "notification_id"],
            ["notification.client_id", "notification.id"],
            ondelete="CASCADE",
        ),
        # Whoever deletes a file, or is erased, is not held up: the mail then ends without it.
        ForeignKeyConstraint(
            ["client_id", "file_id"], ["file.client_id", "file.id"], ondelete="CASCADE"
        ),
        Index("ix_notification_file_notification", "client_id", "notification_id"),
        Index("ix_notification_file_purge_at", "purge_at"),
    )

    file_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    notification_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    purge_at: datetime = Field(sa_column=time_column())


class NotificationDelivery(SQLModel, table=True):
    """To whom a delivery goes: what `delivery` itself does not know."""

    __tablename__ = "notification_delivery"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "notification_id"],
            ["notification.client_id", "notification.id"],
            ondelete="CASCADE",
        ),
        Index("ix_notification_delivery_notification_id", "notification_id", "position"),
        Index("ix_notification_delivery_person", "client_id", "person"),
        Index(
            "ix_notification_delivery_instead_of",
            "instead_of",
            postgresql_where=text("instead_of is not null"),
        ),
    )

    delivery_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    notification_id: UUID = Field(sa_column=uuid_column())
    client_id: UUID = Field(sa_column=uuid_column())
    position: int
    channel: str = Field(max_length=16)
    # Whom it is for, by external id, where it is one of the client's users.
    person: str | None = Field(default=None, max_length=128)
    address_hash: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    address: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
    # Providers in the order in which they are asked; the delivery's target is one of them.
    route: list[UUID] = Field(
        default_factory=list, sa_column=Column(ARRAY(PG_UUID(as_uuid=True)), nullable=False)
    )
    # It goes out unless another delivery to the same person came so far by then.
    unless: str | None = Field(default=None, max_length=16)
    instead_of: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What is put into somebody's inbox; its delivery is acknowledged and read by its id."""

    client_id: UUID
    external_id: str
    delivery_id: UUID
    notification_id: UUID
    category: str | None
    content: Mapping[str, Any]


def place_of_content(client_id: UUID, notification_id: UUID) -> str:
    """Name what a sealed content is bound to."""
    return f"notification:{client_id}:{notification_id}"


def place_of_address(client_id: UUID, delivery_id: UUID) -> str:
    """Name what a sealed address is bound to."""
    return f"delivery:{client_id}:{delivery_id}"
