"""Messages. The log of what happened to them is `infra/event_log.py`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
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
    edited_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    deleted_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
