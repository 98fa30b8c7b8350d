"""Scoped keys as they go over the wire. A key's text is in one answer, once."""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field

from chatserver.kernel.paging import PageRequest
from chatserver.kernel.principal import Scope
from chatserver.kernel.wire import Answer, ExternalId, Id, Request, Timestamp, left_out
from chatserver.users.schemas import UserOut

MAX_TTL_S: Final = 90 * 86_400

Rotation: TypeAlias = Literal["always", "explicit"]


def _unique(scopes: list[Scope]) -> list[Scope]:
    return list(dict.fromkeys(scopes))


# JSON has no enumerations, so strict mode would refuse the strings that are meant.
Scopes: TypeAlias = Annotated[
    list[Annotated[Scope, Field(strict=False)]], Field(min_length=1), AfterValidator(_unique)
]


class Login(Request):
    external_id: ExternalId
    device_id: ExternalId | None = Field(
        default=None, description="Goes on with this device's keys; left out, a device is made."
    )
    scopes: Scopes | None = Field(default=None, description="Left out: all of them.")
    ttl_s: Annotated[int, Field(ge=1, le=MAX_TTL_S)] | None = Field(
        default=None, description="The key ends after so many seconds; left out, after 90 days."
    )
    rotation: Rotation = Field(
        default="always",
        description="`explicit`: it never rotates by itself, for pods and fixed payloads.",
    )
    replace: bool = Field(
        default=False, description="The device's older keys and their sockets end at once."
    )


class KeysOf(Request):
    external_id: ExternalId


class KeyList(PageRequest):
    external_id: ExternalId


class KeyOf(Request):
    external_id: ExternalId
    id: Id


class LoggedIn(Answer):
    key: str = Field(repr=False)
    key_id: Id
    device_id: str
    expires_at: Timestamp
    user: UserOut


class KeyOut(Answer):
    """The living key of one device, without its secret."""

    key_id: Id
    device_id: str
    scopes: list[str]
    rotation: Rotation
    created_at: Timestamp
    last_seen_at: Timestamp | None
    expires_at: Timestamp
    idle_expires_at: Timestamp


class Revoked(Answer):
    """How many living keys were ended."""

    user_id: str
    revoked: int


class Unread(Answer):
    """What waits for the caller, of what the key may see: messages as `GET /me/unread` counts them.

    `notifications`: in-app notifications, at most 10,000.
    """

    total_unread: int | None = left_out()
    muted_unread: int | None = left_out()
    total_mentions: int | None = left_out()
    unread_rooms: int | None = left_out()
    notifications: int | None = left_out()


class Me(UserOut):
    """The caller's own profile, what waits for him, and the key that he presents, if it is one."""

    key: KeyOut | None
    unread: Unread = Unread()
