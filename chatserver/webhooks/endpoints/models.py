"""Endpoints, their secrets, and the events that they are told of."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column

CHANNEL = "webhook"


class Endpoint(SQLModel, table=True):
    """A URL of a client, and which facts it wants. Its health is in the target of the same id."""

    __tablename__ = "webhook_endpoint"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "id"],
            ["delivery_target.client_id", "delivery_target.id"],
            ondelete="CASCADE",
        ),
        UniqueConstraint("client_id", "id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    url: str = Field(max_length=2048)
    description: str | None = Field(default=None, max_length=1024)
    # Types of facts, `message.*` or `*`.
    events: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    room_ids: list[UUID] | None = Field(
        default=None, sa_column=Column(ARRAY(PG_UUID(as_uuid=True)), nullable=True)
    )
    room_types: list[str] | None = Field(default=None, sa_column=Column(ARRAY(Text), nullable=True))
    bot_ids: list[UUID] | None = Field(
        default=None, sa_column=Column(ARRAY(PG_UUID(as_uuid=True)), nullable=True)
    )
    # The client's number of events when it was made: it is owed those that came after.
    from_seq: int = Field(
        default=0, sa_column=Column(BigInteger, nullable=False, server_default="0")
    )
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    updated_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    deleted_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


class EndpointSecret(SQLModel, table=True):
    """What an endpoint's requests are signed with. While one replaces another, both sign."""

    __tablename__ = "webhook_secret"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "endpoint_id"],
            ["webhook_endpoint.client_id", "webhook_endpoint.id"],
            ondelete="CASCADE",
        ),
        Index("ix_webhook_secret_endpoint_id", "endpoint_id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    endpoint_id: UUID = Field(sa_column=uuid_column())
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    expires_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))


class EventNumber(SQLModel, table=True):
    """A client's last event number; its lock makes the order of numbers that of commits."""

    __tablename__ = "webhook_event_number"
    __table_args__ = (ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),)

    client_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    last_seq: int = Field(
        default=0, sa_column=Column(BigInteger, nullable=False, server_default="0")
    )


class Event(SQLModel, table=True):
    """A fact that some endpoint of the client wanted; numbered without gaps, client by client.

    It has the fact's own id. What stands in a room's log is read from there, as it is by then:
    `data` holds only what is kept nowhere else.
    """

    __tablename__ = "webhook_event"
    __table_args__ = (UniqueConstraint("client_id", "id"),)

    client_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    seq: int = Field(sa_column=Column(BigInteger, primary_key=True))
    id: UUID = Field(sa_column=uuid_column())
    type: str = Field(max_length=64)
    room_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    room_type: str | None = Field(default=None, max_length=16)
    room_seq: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    actor_type: str = Field(max_length=8)
    actor_id: str | None = Field(default=None, max_length=128)
    data: dict[str, Any] | None = Field(default=None, sa_column=json_column(None, nullable=True))
    # For one endpoint alone, whatever the others want: a test, something forwarded.
    only_endpoint_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    hops: int = Field(default=0, sa_column=Column(SmallInteger, nullable=False, server_default="0"))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


def secret_place(client_id: UUID, endpoint_id: UUID, secret_id: UUID) -> str:
    """Name what a sealed secret is bound to."""
    return f"webhook:{client_id}:{endpoint_id}:{secret_id}"
