"""By whom a client's notifications go out."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Column, ForeignKeyConstraint, Index, SmallInteger, UniqueConstraint
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column


class Provider(SQLModel, table=True):
    """A way to send on one channel. Its health is the delivery target of the same id."""

    __tablename__ = "provider"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        UniqueConstraint("client_id", "id"),
        Index("ix_provider_client_id_channel", "client_id", "channel", "position", "id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    channel: str = Field(max_length=16)
    kind: str = Field(max_length=16)
    name: str = Field(max_length=256)
    # The lowest goes first; the others take over when it can't.
    position: int = Field(
        default=0, sa_column=Column(SmallInteger, nullable=False, server_default="0")
    )
    enabled: bool = True
    # What may be shown of the configuration, and all of it, sealed.
    shown: dict[str, object] = Field(default_factory=dict, sa_column=json_column())
    sealed: bytes
    # How the last check went: `{ok, phase, text, at}`.
    verified: dict[str, object] | None = Field(
        default=None, sa_column=json_column(None, nullable=True)
    )
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    updated_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
