"""Rooms in which something was said that may concern somebody who is not there."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, Boolean, Column, Identity, Index, SmallInteger, text
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column, uuid_column

# After so many tries a notice is given up: something about it is wrong.
MOST_ATTEMPTS: Final = 20


class MessageNotice(SQLModel, table=True):
    """Look who was absent. Made by a trigger with the message itself; gone when they were told.

    A room has one that is open (`upto_seq` null), whatever is said meanwhile; whoever takes it
    writes how far he looks, so that the next message opens another. No foreign keys: it is written
    with messages, and what is gone meanwhile concerns nobody.
    """

    __tablename__ = "message_notice"
    __table_args__ = (
        Index("ix_message_notice_due_at", "due_at"),
        Index(
            "uq_message_notice_open",
            "room_id",
            unique=True,
            postgresql_where=text("upto_seq is null"),
        ),
    )

    id: int = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True)
    )
    client_id: UUID = Field(sa_column=uuid_column())
    room_id: UUID = Field(sa_column=uuid_column())
    # Mentions are looked for from here on; everything else begins where a member has read to.
    from_seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    # While somebody holds it, the end of his lease.
    due_at: datetime = Field(sa_column=time_column())
    upto_seq: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    attempts: int = Field(
        default=0, sa_column=Column(SmallInteger, nullable=False, server_default="0")
    )
    # Who seemed to be there at the first look and has not read it is looked for once more.
    is_second: bool = Field(
        default=False, sa_column=Column(Boolean, nullable=False, server_default="false")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Concerned:
    """A member whom messages of a room concern, and who has not read them.

    `wish`: what the client wants to follow; `details`: the person's own metadata.
    """

    notice_id: int
    client_id: UUID
    room_id: UUID
    room_type: str
    title: str | None
    user_id: UUID
    external_id: str
    details: dict[str, Any]
    wish: dict[str, Any]
    why: str
    count: int
    upto_seq: int
    message_id: UUID
    sender_id: str | None
    sender_name: str | None
    content: str


@dataclass(frozen=True, slots=True)
class Taken:
    """A notice that this process holds until its lease ends."""

    id: int
    room_id: UUID
    attempts: int
    is_second: bool
