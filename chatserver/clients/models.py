"""Tenants and their master keys."""

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ForeignKeyConstraint, Index, LargeBinary, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import json_column, time_column, uuid_column


class Client(SQLModel, table=True):
    """A tenant: an application that uses the server. Everything else belongs to exactly one."""

    __tablename__ = "client"

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    slug: str = Field(unique=True, max_length=64)
    name: str = Field(max_length=256)
    status: str = Field(default="active", max_length=16)
    # Overrides of defaults: `cors_origins`, `limits`, `room_deactivation` (seconds),
    # `retention` (days), `key_reuse`, `chat`.
    settings: dict[str, Any] = Field(default_factory=dict, sa_column=json_column())
    # The types of fact that some webhook endpoint of the client wants: they get an outbox row.
    followed: list[str] = Field(
        default_factory=list, sa_column=Column(ARRAY(Text), nullable=False, server_default="{}")
    )
    # Whatever was issued before this moment is dead, whichever cache still knows it.
    revoked_before: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    updated_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class ClientKey(SQLModel, table=True):
    """A master key. HMAC selects and rejects, bcrypt confirms once per key and process."""

    __tablename__ = "client_key"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        UniqueConstraint("client_id", "id"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    # The public part of the key, by which it is looked up.
    kid: str = Field(unique=True, max_length=16)
    name: str = Field(max_length=256)
    mac: bytes
    pepper_id: int = Field(default=1)
    bcrypt_hash: bytes
    expires_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    revoked_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    last_used_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class JwtIssuer(SQLModel, table=True):
    """Who may sign tokens for a client's users, and what those must say.

    The key is in `pem`, or at `jwks_url`. A table and no setting of the client: a token is looked
    up by its issuer before it is known whose it is.
    """

    __tablename__ = "jwt_issuer"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        UniqueConstraint("client_id", "issuer", "audience"),
        Index("ix_jwt_issuer_issuer", "issuer"),
    )

    id: UUID = Field(sa_column=uuid_column(primary_key=True))
    client_id: UUID = Field(sa_column=uuid_column())
    issuer: str = Field(max_length=512)
    audience: str = Field(max_length=256)
    algorithms: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    pem: str | None = None
    jwks_url: str | None = Field(default=None, max_length=2048)
    user_claim: str = Field(max_length=64)
    scope_claim: str | None = Field(default=None, max_length=64)
    required_claims: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class RevokedToken(SQLModel, table=True):
    """One token of an issuer that was ended before its time. Kept until it would have ended anyway.

    `handle` stands for issuer and `jti` (`policies.token_handle`): both may be long.
    """

    __tablename__ = "revoked_token"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["client.id"], ondelete="CASCADE"),
        Index("ix_revoked_token_client_id_revoked_at", "client_id", "revoked_at"),
        Index("ix_revoked_token_kept_until", "kept_until"),
    )

    client_id: UUID = Field(sa_column=uuid_column(primary_key=True))
    handle: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    issuer: str = Field(max_length=512)
    jti: str = Field(max_length=1024)
    kept_until: datetime = Field(sa_column=time_column())
    revoked_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredIssuer:
    """An issuer with what the check of its tokens needs of the client.

    `is_token_revoked`: the one token that was asked for was ended before its time.
    """

    id: UUID
    client_id: UUID
    client_slug: str
    is_client_active: bool
    client_revoked_before: float | None
    origins: tuple[str, ...]
    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    pem: str | None
    jwks_url: str | None
    user_claim: str
    scope_claim: str | None
    required_claims: tuple[str, ...]
    is_token_revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMasterKey:
    """A master key with what its check needs, read in one statement by PostgreSQL's clock."""

    key_id: UUID
    kid: str
    mac: bytes = dataclass_field(repr=False)
    bcrypt_hash: bytes = dataclass_field(repr=False)
    is_revoked: bool
    is_expired: bool
    # Seconds until the key ends; None when it has no end.
    ends_in_s: float | None
    expires_at: float | None
    client_id: UUID
    client_slug: str
    is_client_active: bool
    origins: tuple[str, ...]
