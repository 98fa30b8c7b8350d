"""Rules for texts, and messages that somebody or a rule has flagged."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Boolean, Column, ForeignKeyConstraint, Index, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column, uuid_column


class ModerationRule(SQLModel, table=True):
    """What a client does not want to be said, and what happens when somebody does."""

    __tablename__ = "moderation_rule"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        Index("ix_moderation_rule_client_id", "client_id", "id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    kind: str = Field(max_length=16)
    values: list[str] = Field(sa_column=Column("terms", ARRAY(Text), nullable=False))
    action: str = Field(max_length=8)
    # Null: everywhere.
    room_ids: list[UUID] | None = Field(
        default=None, sa_column=Column(ARRAY(PG_UUID(as_uuid=True)), nullable=True)
    )
    enabled: bool = Field(default=True, sa_column=Column(Boolean, nullable=False))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    updated_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class Flag(SQLModel, table=True):
    """Somebody, or a rule, says that a message needs a moderator's eye; each says it once.

    A rule's flag is written before its message: one whose message was refused after all points
    nowhere, is never shown, and goes with the retention of flags.
    """

    __tablename__ = "flag"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "room_id"], ["room.client_id", "room.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("message_id", "source"),
        Index(
            "ix_flag_open", "client_id", "created_at", "id", postgresql_where=text("state = 'open'")
        ),
        Index("ix_flag_created_at", "created_at"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    room_id: UUID = Field(sa_column=uuid_column())
    message_id: UUID = Field(sa_column=uuid_column())
    # `user:<server id>` or `rule:<id>`.
    source: str = Field(max_length=64)
    flagged_by: str | None = Field(default=None, max_length=128)
    rule_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    reason: str | None = Field(default=None, max_length=500)
    state: str = Field(default="open", max_length=16)
    resolved_by: str | None = Field(default=None, max_length=128)
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    resolved_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
