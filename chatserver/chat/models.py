"""Messages. The log of what happened to them is `infra/event_log.py`."""

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
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column


class Message(SQLModel, table=True):
    """A message. Its text stands here once; the log refers to it."""

    __tablename__ = "message"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "room_id"], ["room.client_id", "room.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("client_id", "id"),
        # Holds every row. It is partial so that only a query that says `seq > 0` may use it: by the
        # room alone, a look-up of one message would read all of a room.
        Index(
            "uq_message_room_id_seq",
            "room_id",
            "seq",
            unique=True,
            postgresql_where=text("seq > 0"),
        ),
        # Both are partial: a send that is no reply, and nothing that is not pinned, touches them.
        Index(
            "ix_message_thread_id_seq",
            "thread_id",
            "seq",
            postgresql_where=text("thread_id is not null"),
        ),
        Index("ix_message_pinned", "room_id", "pinned_at", postgresql_where=text("pinned")),
        # Never expires: a phone may retry hours later.
        UniqueConstraint("room_id", "sender_key", "client_msg_id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    room_id: UUID = Field(sa_column=uuid_column())
    seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    msg_no: int = Field(sa_column=Column(BigInteger, nullable=False))
    sender: str = Field(max_length=8)
    sender_id: str | None = Field(default=None, max_length=128)
    # Whose `client_msg_id` it is: the user's or bot's server id, or `system:<origin>`. Never null.
    sender_key: str = Field(max_length=160)
    client_msg_id: str = Field(max_length=64)
    body_hash: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    content: str = Field(sa_column=Column(Text, nullable=False))
    status: str = Field(default="complete", max_length=16)
    partial_content: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    error_message: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    context: dict[str, Any] | None = Field(default=None, sa_column=json_column(None, nullable=True))
    reply_to: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    attachments: list[Any] = Field(default_factory=list, sa_column=json_column("[]"))
    mentions: list[str] = Field(default_factory=list, sa_column=json_column("[]"))
    details: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    pinned: bool = False
    pinned_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    # Counts from 1 and rises with every edit and with the deletion; the fact of the last of these.
    version: int = Field(default=1, sa_column=Column(Integer, nullable=False, server_default="1"))
    changed_seq: int = Field(
        default=0, sa_column=Column(BigInteger, nullable=False, server_default="0")
    )
    # `[{emoji, count}]` in the order of the first of each: what `reaction` counts, kept with the
    # message under its room's lock, so that no reader counts.
    reactions: list[dict[str, Any]] = Field(default_factory=list, sa_column=json_column("[]"))
    # It is not in `msg_no`, and mentions nobody.
    silent: bool = Field(
        default=False, sa_column=Column(Boolean, nullable=False, server_default="false")
    )
    thread_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    reply_count: int = Field(
        default=0, sa_column=Column(Integer, nullable=False, server_default="0")
    )
    edited_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    deleted_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class ReactionRow(SQLModel, table=True):
    """One emoji that one user gave a message."""

    __tablename__ = "reaction"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "message_id"], ["message.client_id", "message.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["client_id", "user_id"], ["app_user.client_id", "app_user.id"], ondelete="CASCADE"
        ),
        Index("ix_reaction_user_id", "user_id", "message_id"),
    )

    message_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    user_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    emoji: str = Field(sa_column=Column(String(64), primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class MessageEdit(SQLModel, table=True):
    """What a message said before an edit. Gone with the message's deletion."""

    __tablename__ = "message_edit"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "message_id"], ["message.client_id", "message.id"], ondelete="CASCADE"
        ),
    )

    message_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    version: int = Field(sa_column=Column(Integer, primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    content: str = Field(sa_column=Column(Text, nullable=False))
    replaced_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class Mention(SQLModel, table=True):
    """A name in a message that is not silent: what unread mentions are counted from.

    One row per name, not per person: `!everyone` is one, however many they are.
    """

    __tablename__ = "mention"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "room_id"], ["room.client_id", "room.id"], ondelete="CASCADE"
        ),
    )

    room_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    target: str = Field(sa_column=Column(String(128), primary_key=True))
    seq: int = Field(sa_column=Column(BigInteger, primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
