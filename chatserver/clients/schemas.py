"""Tenants, their settings and their master keys, as they go over the wire."""

import re
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator

from chatserver.kernel.wire import Answer, Id, Request, ShortText, Timestamp

Status: TypeAlias = Literal["active", "disabled"]

SLUG: Final = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"
_SLUG: Final = re.compile(SLUG)
# Browsers and the web views of apps: `https://app.example.com`, `capacitor://localhost`.
_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]{0,31})://([a-z0-9](?:[a-z0-9._-]{0,252}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])"
    r"(?::([1-9][0-9]{0,4}))?"
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
_MAX_PORT: Final = 65535
_YEAR_S: Final = 366 * 86_400
_WEEK_S: Final = 7 * 86_400
_DAY_S: Final = 86_400


def canonical_origin(text: str) -> str:
    """Write an origin as browsers send it.

    Raises:
        ValueError: it is none. Neither is `null`: every sandboxed page on the web has that one.
    """
    found = _ORIGIN.fullmatch(text.lower())
    if found is None or int(found[3] or 1) > _MAX_PORT:
        msg = "must be an origin like https://app.example.com, without a path"
        raise ValueError(msg)
    scheme, host, port = found.groups()
    if port is None or _DEFAULT_PORTS.get(scheme) == port:
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{port}"


def _slug(text: str) -> str:
    if _SLUG.fullmatch(text) is None:
        msg = "must be 1 to 63 characters of a-z 0-9 -, without a hyphen at either end"
        raise ValueError(msg)
    return text


def _unique(origins: list[str]) -> list[str]:
    return list(dict.fromkeys(origins))


Slug: TypeAlias = Annotated[
    str, AfterValidator(_slug), WithJsonSchema({"type": "string", "pattern": SLUG})
]
Origin: TypeAlias = Annotated[
    str, AfterValidator(canonical_origin), WithJsonSchema({"type": "string", "format": "uri"})
]
Origins: TypeAlias = Annotated[
    list[Origin], Field(min_length=1, max_length=50), AfterValidator(_unique)
]
Seconds: TypeAlias = Annotated[int, Field(ge=1, le=10 * _YEAR_S)]
Rate: TypeAlias = Annotated[int, Field(ge=1, le=100_000)]


class RoomDeactivation(Request):
    """After how many quiet seconds rooms of a type are deactivated.

    `null` = never; a type that isn't named has the server's default.
    """

    support: Seconds | None = None
    group: Seconds | None = None
    direct: Seconds | None = None
    channel: Seconds | None = None
    assistant: Seconds | None = None


class Limits(Request):
    """What replaces the server's default limits; what isn't named keeps its default."""

    messages_per_s: Rate | None = None
    messages_burst: Rate | None = None
    commands_per_s: Rate | None = None
    commands_burst: Rate | None = None
    connections_per_user: Rate | None = None
    connections_per_device: Rate | None = None


class OwnClientUpdate(Request):
    """Members that are given replace the old value whole; `null` takes the override away."""

    name: ShortText | None = None
    cors_origins: Origins | None = Field(
        default=None, description="Origins that browsers may come from; null = any."
    )
    limits: Limits | None = None
    room_deactivation: RoomDeactivation | None = None

    @field_validator("name")
    @classmethod
    def _stays_named(cls, name: str | None) -> str:
        return _given(name)

    def changed_settings(self) -> dict[str, Any]:
        """Give the settings that were sent, as they are kept; None where one is to be removed."""
        members = self.model_dump(exclude_unset=True)
        return {name: members[name] for name in _SETTINGS if name in members}


_SETTINGS: Final = ("cors_origins", "limits", "room_deactivation")


class ClientUpdate(OwnClientUpdate):
    id: Id
    status: Status | None = None

    @field_validator("status")
    @classmethod
    def _stays_stated(cls, status: Status | None) -> str:
        return _given(status)


def _given(value: str | None) -> str:
    # Runs only for what was sent: absent means unchanged, null would mean nothing.
    if value is None:
        msg = "must not be null"
        raise ValueError(msg)
    return value


class ClientCreate(Request):
    name: ShortText
    slug: Slug | None = Field(default=None, description="Made from the name unless given.")


class ClientPath(Request):
    id: Id


class Nothing(Request):
    """A request that says nothing beyond who sends it."""


class ClientCreated(Answer):
    """The one time that the master key is shown."""

    id: Id
    slug: str
    name: str
    master_key: str = Field(repr=False)


class ClientOut(Answer):
    id: Id
    slug: str
    name: str
    status: Status
    cors_origins: list[str] | None
    limits: dict[str, int]
    room_deactivation: dict[str, int | None]
    created_at: Timestamp
    updated_at: Timestamp


class KeyCreate(Request):
    name: ShortText
    expires_in_s: Seconds | None = None


class KeyPath(Request):
    id: Id


class KeyRotate(Request):
    id: Id
    overlap_s: Annotated[int, Field(ge=0, le=_WEEK_S)] = Field(
        default=_DAY_S, description="For how long the old key goes on working."
    )
    now: bool = Field(
        default=False, description="The key leaked: it ends at once, whatever the overlap."
    )


class MasterKeyOut(Answer):
    """A master key without its secret."""

    id: Id
    name: str
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_at: Timestamp | None


class KeyCreated(MasterKeyOut):
    """The one time that the key is shown."""

    key: str = Field(repr=False)
