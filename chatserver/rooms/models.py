"""Conversations and who is in them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column


def _counter() -> Column[int]:
    return Column(BigInteger, nullable=False, server_default="0")


class Room(SQLModel, table=True):
    """A conversation. No column that a send changes is indexed: its updates stay in place."""

    __tablename__ = "room"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        UniqueConstraint("client_id", "id"),
        Index(
            "uq_room_external_id",
            "client_id",
            "external_id",
            unique=True,
            postgresql_where=text("deleted_at is null"),
        ),
        Index(
            "uq_room_pair",
            "client_id",
            "pair",
            unique=True,
            postgresql_where=text("pair is not null and deleted_at is null"),
        ),
        Index("ix_room_client_id_created_at", "client_id", "created_at", "id"),
        # The function is made by the migration; neither title nor name changes with a send.
        Index(
            "ix_room_grams",
            text("room_grams(client_id, title, external_id)"),
            postgresql_using="gin",
        ),
        Index(
            "ix_room_deactivation_check_at",
            "deactivation_check_at",
            postgresql_where=text("deactivation_check_at is not null"),
        ),
        Index(
            "ix_room_support",
            "client_id",
            "id",
            postgresql_where=text("type = 'support' and deleted_at is null"),
        ),
        {"postgresql_with": {"fillfactor": "80"}},
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    type: str = Field(max_length=16)
    title: str | None = Field(default=None, max_length=256)
    external_id: str | None = Field(default=None, max_length=128)
    history: str = Field(default="all", max_length=8)
    details: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    is_active: bool = True
    epoch: int = 1
    last_seq: int = Field(default=0, sa_column=_counter())
    # Below it the log was truncated: what is asked for from there is answered `history.truncated`.
    min_seq: int = Field(
        default=1, sa_column=Column(BigInteger, nullable=False, server_default="1")
    )
    msg_no: int = Field(default=0, sa_column=_counter())
    members_count: int = 0
    # How many bots are members: with any, new messages get an outbox row.
    bots: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))
    # Whether a member may want to be told of all messages: then a new one leaves a notice.
    is_loud: bool = Field(
        default=False, sa_column=Column(Boolean, nullable=False, server_default="false")
    )
    # Seconds that guests and members wait between two messages, and the lowest role that may send.
    slow_mode_s: int = Field(
        default=0, sa_column=Column(Integer, nullable=False, server_default="0")
    )
    post_role: str = Field(
        default="guest", sa_column=Column(String(16), nullable=False, server_default="guest")
    )
    archived_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    # Of a direct room: its two people by server id, so that they have one such room.
    pair: str | None = Field(default=None, max_length=73)
    # Of a support room: who of the team has it, by external id, and when it was closed.
    assignee: str | None = Field(default=None, max_length=128)
    closed_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    # Of a support room: when it was last given back, which ends what people said there before.
    handed_back_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    created_by: str | None = Field(default=None, max_length=128)
    last_activity_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    # Rises with every fact, where `last_activity_at` rises with messages alone: `sync` goes by it.
    last_event_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    # When to look at `last_activity_at` again; moved only when due, never by a send.
    deactivation_check_at: datetime | None = Field(
        default=None, sa_column=time_column(nullable=True)
    )
    deactivates_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    deactivated_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    deleted_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    updated_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class Member(SQLModel, table=True):
    """A user in a room. `joined_seq` is the fact that let the user in."""

    __tablename__ = "member"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "room_id"], ["room.client_id", "room.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["client_id", "user_id"], ["app_user.client_id", "app_user.id"], ondelete="CASCADE"
        ),
        Index("ix_member_user_id", "user_id", "room_id"),
        # The order in which they came, also of a channel with very many.
        Index("ix_member_room_id_joined_at", "room_id", "joined_at", "user_id"),
        {"postgresql_with": {"fillfactor": "80"}},
    )

    room_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    user_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    role: str = Field(default="member", max_length=16)
    is_muted: bool = False
    is_favorite: bool = False
    notification_level: str = Field(default="mentions", max_length=16)
    joined_seq: int = Field(default=0, sa_column=_counter())
    # With `history: joined` the first seq that this member may read.
    min_seq: int = Field(
        default=1, sa_column=Column(BigInteger, nullable=False, server_default="1")
    )
    read_seq: int = Field(default=0, sa_column=_counter())
    read_msg_no: int = Field(default=0, sa_column=_counter())
    # The member's own mark; the pointer stays where it is.
    marked_unread: bool = Field(
        default=False, sa_column=Column(Boolean, nullable=False, server_default="false")
    )
    muted_until: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    last_sent_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    joined_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    updated_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class Departure(SQLModel, table=True):
    """Who is no longer in a room and why; kept 90 days, so that `sync` can say `removed`."""

    __tablename__ = "departure"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "user_id"], ["app_user.client_id", "app_user.id"], ondelete="CASCADE"
        ),
        Index("ix_departure_user_id_at", "user_id", "at"),
        Index("ix_departure_at", "at"),
    )

    room_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    user_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    reason: str = Field(max_length=16)
    at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class RoomBan(SQLModel, table=True):
    """Who may not come back to a room, and until when; without an end, for good."""

    __tablename__ = "room_ban"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "room_id"], ["room.client_id", "room.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["client_id", "user_id"], ["app_user.client_id", "app_user.id"], ondelete="CASCADE"
        ),
        Index("ix_room_ban_user_id", "user_id"),
    )

    room_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    user_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    until: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    reason: str | None = Field(default=None, max_length=256)
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
