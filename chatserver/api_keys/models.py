"""Scoped keys: one family per user and device, one generation after the other."""

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    Column,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column, uuid_column


def _optional_bytes() -> Column[bytes]:
    return Column(LargeBinary, nullable=True)


class KeyFamily(SQLModel, table=True):
    """All keys of one user on one device: `cur` works, `pend` follows it, `prev` went before it.

    `pend` was handed out and waits for its first use on a socket. `cur_ct` is kept while older
    generations are in their grace: who presents one of those is handed the current key.
    """

    __tablename__ = "key_family"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "user_id"], ["app_user.client_id", "app_user.id"], ondelete="CASCADE"
        ),
        UniqueConstraint("client_id", "kid"),
        Index(
            "uq_key_family_device",
            "client_id",
            "user_id",
            "device_id",
            unique=True,
            postgresql_where=text("status = 'active'"),
        ),
    )

    kid: str = Field(primary_key=True, max_length=16)
    client_id: UUID = Field(sa_column=uuid_column())
    user_id: UUID = Field(sa_column=uuid_column())
    device_id: str = Field(max_length=128)
    issued_by: str | None = Field(default=None, max_length=16)
    scopes: list[str] = Field(sa_column=Column(ARRAY(Text), nullable=False))
    rotation: str = Field(default="always", max_length=16)
    status: str = Field(default="active", max_length=16)
    revoked_reason: str | None = Field(default=None, max_length=32)
    cur_gen: int = 1
    cur_id: UUID = Field(sa_column=uuid_column())
    cur_mac: bytes
    cur_ct: bytes | None = Field(default=None, sa_column=_optional_bytes())
    pend_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    pend_mac: bytes | None = Field(default=None, sa_column=_optional_bytes())
    pend_ct: bytes | None = Field(default=None, sa_column=_optional_bytes())
    pend_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    prev_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    prev_mac: bytes | None = Field(default=None, sa_column=_optional_bytes())
    grace_until: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    idle_expires_at: datetime = Field(sa_column=time_column())
    abs_expires_at: datetime = Field(sa_column=time_column())
    # When the login was that the present lifetime counts from.
    issued_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
    pepper_id: int = 1
    epoch: int = 0
    last_seen_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


class RetiredKey(SQLModel, table=True):
    """A generation that was followed by another: `rotated` on connect or `replaced` by a login."""

    __tablename__ = "key_retired"
    __table_args__ = (
        ForeignKeyConstraint(
            ["client_id", "kid"], ["key_family.client_id", "key_family.kid"], ondelete="CASCADE"
        ),
    )

    kid: str = Field(primary_key=True, max_length=16)
    gen: int = Field(primary_key=True)
    client_id: UUID = Field(sa_column=uuid_column())
    mac: bytes
    key_id: UUID = Field(sa_column=uuid_column())
    reason: str = Field(max_length=16)
    valid_until: datetime = Field(sa_column=time_column())
    by_id: UUID | None = Field(default=None, sa_column=uuid_column(nullable=True))
    by_door: str | None = Field(default=None, max_length=16)
    # When it last raised the alarm without ending the family (`key_reuse: reject_and_alert`).
    alarmed_at: datetime | None = Field(default=None, sa_column=time_column(nullable=True))
    retired_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


# Not frozen: that alone would be a tenth of what a look-up costs, and one is made at each connect.
@dataclass(slots=True, kw_only=True)
class StoredScopedKey:
    """A family with what a key's check needs, read in one statement by PostgreSQL's clock.

    `old_*` is the retired generation that was asked for, if there is one.
    """

    kid: str
    client_id: UUID
    client_slug: str
    is_client_active: bool
    origins: tuple[str, ...]
    user_id: UUID
    external_id: str
    display_name: str | None
    device_id: str
    scopes: tuple[str, ...]
    status: str
    is_expired: bool
    # Seconds until the family ends unless it is used; `expires_at` is when it ends for good.
    ends_in_s: float
    expires_at: float
    issued_at: float = 0.0
    rotation: str = "always"
    cur_gen: int
    cur_id: UUID
    cur_mac: bytes = dataclass_field(repr=False)
    cur_ct: bytes | None = dataclass_field(default=None, repr=False)
    pend_id: UUID | None = None
    pend_mac: bytes | None = dataclass_field(default=None, repr=False)
    pend_ct: bytes | None = dataclass_field(default=None, repr=False)
    old_id: UUID | None = None
    old_mac: bytes | None = dataclass_field(default=None, repr=False)
    old_ends_in_s: float = 0.0
    old_reason: str = "replaced"
    old_by_id: UUID | None = None
    old_by_door: str | None = None
    # The client's `key_reuse`.
    reuse_policy: str = "revoke_family"


@dataclass(frozen=True, slots=True, kw_only=True)
class Successor:
    """A generation that is to follow: what is stored of it, and nothing that is not."""

    key_id: UUID
    mac: bytes = dataclass_field(repr=False)
    ciphertext: bytes = dataclass_field(repr=False)
