"""Who did what from where: to keys, members, settings, erasures and clients."""

from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Identity, Index, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import Field, SQLModel

from chatserver.infra.redaction import redact_mapping
from chatserver.kernel.events import Actor
from chatserver.kernel.principal import Principal
from chatserver.kernel.tables import json_column, time_column, uuid_column

# Set by the door for as long as it handles a request; jobs and the command line have none.
ADDRESS: ContextVar[str | None] = ContextVar("address", default=None)
MOST_SUBJECT: Final = 256


class AuditRow(SQLModel, table=True):
    """One thing that somebody did. Written in the transaction of what was done, never changed.

    `actor` is `operator`, `master:<id of the key>`, `user:<external id>` or `system`; `subject`
    names what it was done to, as callers name it: `user:ann`, `room:<id>`, `key:<id>`, `client`.
    """

    __tablename__ = "audit"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        Index("ix_audit_client_id_id", "client_id", "id"),
        Index("ix_audit_at", "at"),
    )

    id: int = Field(
        default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True)
    )
    client_id: UUID = Field(sa_column=uuid_column())
    at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    actor: str = Field(max_length=160)
    action: str = Field(max_length=64)
    subject: str = Field(max_length=256)
    address: str | None = Field(default=None, max_length=64)
    details: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())


async def record(
    session: AsyncSession,
    *,
    client_id: UUID,
    actor: Principal | Actor | str,
    action: str,
    subject: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write down what is done in this transaction; it is true if and only if that is.

    `action` is dotted like an operation (`user_key.revoke`). `details` are JSON without secrets:
    what looks like a key, or is called like one, is replaced all the same.
    """
    await session.execute(
        insert(AuditRow).values(
            client_id=client_id,
            actor=actor if isinstance(actor, str) else actor_name(actor),
            action=action,
            subject=subject[:MOST_SUBJECT],
            address=ADDRESS.get(),
            details=redact_mapping(details or {}),
        )
    )


def actor_name(actor: Principal | Actor) -> str:
    """Name who acts, the way the audit log does."""
    if isinstance(actor, Actor):
        return f"{actor.type}:{actor.id}" if actor.id else actor.type
    if actor.is_user:
        return f"user:{actor.external_id}"
    if actor.is_master:
        return f"master:{actor.key_id}"
    return actor.caller.value
