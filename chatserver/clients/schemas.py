"""Tenants, their settings and their master keys, as they go over the wire."""

import re
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator, model_validator

from chatserver.clients.setting_schemas import MessageNotifications
from chatserver.infra.public_keys import algorithm_of, read_pem
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
# A token whose `jti` is longer is none of ours: it could not be revoked.
MAX_JTI: Final = 1024


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
    requests_per_s: Rate | None = None
    requests_burst: Rate | None = None
    joins_per_s: Rate | None = None
    joins_burst: Rate | None = None
    reads_per_s: Rate | None = None
    reads_burst: Rate | None = None
    connects_per_s: Rate | None = None
    connects_burst: Rate | None = None
    connections_per_user: Rate | None = None
    connections_per_device: Rate | None = None


class ClientLimits(Request):
    """What all users and servers of a client may do together; only the operator sets that."""

    client_messages_per_s: Rate | None = None
    client_messages_burst: Rate | None = None
    client_commands_per_s: Rate | None = None
    client_commands_burst: Rate | None = None
    client_requests_per_s: Rate | None = None
    client_requests_burst: Rate | None = None
    client_connects_per_s: Rate | None = None
    client_connects_burst: Rate | None = None
    connections_per_client: Annotated[int, Field(ge=1, le=10_000_000)] | None = None


Amount: TypeAlias = Annotated[int, Field(ge=0, le=2**62)]


class Quotas(Request):
    """What a client may use in an hour and on a day (UTC); what isn't named keeps its default."""

    messages_per_hour: Amount | None = None
    messages_per_day: Amount | None = None
    notifications_per_hour: Amount | None = None
    notifications_per_day: Amount | None = None
    ai_tokens_per_hour: Amount | None = None
    ai_tokens_per_day: Amount | None = None
    storage_bytes_per_hour: Amount | None = None
    storage_bytes_per_day: Amount | None = None
    connections_per_hour: Amount | None = None
    connections_per_day: Amount | None = None


Days: TypeAlias = Annotated[int, Field(ge=1, le=36_600)]


class Retention(Request):
    """After how many days messages and facts of rooms of a type are deleted; null: never."""

    support: Days | None = None
    group: Days | None = None
    direct: Days | None = None
    channel: Days | None = None
    assistant: Days | None = None


# What a used-up key does that comes back: it ends its device's keys, or it is refused and told of.
KeyReuse: TypeAlias = Literal["revoke_family", "reject_and_alert"]
REVOKE_FAMILY: Final = "revoke_family"
REJECT_AND_ALERT: Final = "reject_and_alert"


class Chat(Request):
    """Rules of the conversation; what isn't named has the server's default."""

    edit_window_s: Annotated[int, Field(ge=0, le=10 * _YEAR_S)] | None = Field(
        default=None,
        description="For how long a user may edit a message; 0: not at all, null: for ever.",
    )


# PostgreSQL's own, in every version from 15 on; `simple` knows no forms of words.
Language: TypeAlias = Literal[
    "simple", "arabic", "armenian", "basque", "catalan", "danish", "dutch", "english", "finnish",
    "french", "german", "greek", "hindi", "hungarian", "indonesian", "irish", "italian",
    "lithuanian", "nepali", "norwegian", "portuguese", "romanian", "russian", "serbian", "spanish",
    "swedish", "tamil", "turkish", "yiddish",
]  # fmt: skip
Claim: TypeAlias = Annotated[str, Field(min_length=1, max_length=64)]
Algorithm: TypeAlias = Literal["RS256", "ES256", "EdDSA"]


def _at_most_bytes(most: int) -> AfterValidator:
    # Both are in one row of an index, which has no room for 768 characters of four bytes each.
    def check(text: str) -> str:
        if len(text.encode()) > most:
            msg = f"must have at most {most} bytes"
            raise ValueError(msg)
        return text

    return AfterValidator(check)


def _algorithms(names: list[Algorithm]) -> list[Algorithm]:
    return list(dict.fromkeys(names))


class JwtIssuerIn(Request):
    """Who may sign tokens for the client's users. Give the public key as `pem` or by `jwks_url`."""

    issuer: Annotated[str, Field(min_length=1, max_length=512), _at_most_bytes(1536)] = Field(
        description="What `iss` must be."
    )
    audience: Annotated[str, Field(min_length=1, max_length=256), _at_most_bytes(1024)] = Field(
        description="What `aud` must be, or contain."
    )
    algorithms: Annotated[list[Algorithm], Field(min_length=1), AfterValidator(_algorithms)] = [
        "RS256"
    ]
    pem: Annotated[str, Field(max_length=8192)] | None = None
    jwks_url: Annotated[str, Field(max_length=2048)] | None = None
    user_claim: Claim = Field(default="sub", description="Which claim names the user.")
    scope_claim: Claim | None = Field(
        default=None,
        description="Which claim lists scopes, as a list or divided by spaces; null: all of them.",
    )
    required_claims: Annotated[list[Claim], Field(max_length=20)] = Field(
        default=[], description="Claims that must be there beside exp, iat, iss and aud."
    )

    @model_validator(mode="after")
    def _has_one_key(self) -> "JwtIssuerIn":
        if (self.pem is None) == (self.jwks_url is None):
            msg = "give either pem or jwks_url"
            raise ValueError(msg)
        if self.pem is not None and [algorithm_of(read_pem(self.pem))] != self.algorithms:
            msg = "algorithms must be the one that the key in pem is for"
            raise ValueError(msg)
        return self


class JwtIssuerOut(Answer):
    issuer: str
    audience: str
    algorithms: list[str]
    pem: str | None
    jwks_url: str | None
    user_claim: str
    scope_claim: str | None
    required_claims: list[str]


class RevokeToken(Request):
    jti: Annotated[str, Field(min_length=1, max_length=MAX_JTI)]
    issuer: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None, description="Whose token; left out: of any of the client's issuers."
    )


class TokenRevoked(Answer):
    """The token is refused from now on; it is forgotten when every token of today has ended."""

    jti: str
    issuers: list[str]
    kept_until: Timestamp


class RevokedTokenOut(Answer):
    jti: str
    issuer: str
    revoked_at: Timestamp
    kept_until: Timestamp


def _distinct(issuers: list[JwtIssuerIn]) -> list[JwtIssuerIn]:
    if len({(it.issuer, it.audience) for it in issuers}) < len(issuers):
        msg = "the same issuer and audience stand there twice"
        raise ValueError(msg)
    return issuers


class OwnClientUpdate(Request):
    """Members that are given replace the old value whole; `null` takes the override away."""

    name: ShortText | None = None
    cors_origins: Origins | None = Field(
        default=None, description="Origins that browsers may come from; null = any."
    )
    limits: Limits | None = None
    room_deactivation: RoomDeactivation | None = None
    retention: Retention | None = None
    key_reuse: KeyReuse | None = Field(
        default=None,
        description="What follows when a used-up key comes back: `revoke_family` ends all keys of"
        " the device, `reject_and_alert` refuses that key alone. Both are told and audited.",
    )
    chat: Chat | None = None
    message_notifications: MessageNotifications | None = Field(
        default=None, description="What absent members are told of messages; null: in the inbox."
    )
    search_language: Language | None = Field(
        default=None, description="Whose forms of words a search knows; null: `simple`, none."
    )
    jwt_issuers: (
        Annotated[list[JwtIssuerIn], Field(max_length=10), AfterValidator(_distinct)] | None
    ) = Field(default=None, description="Whose JWTs are taken for the client's users.")

    @field_validator("name")
    @classmethod
    def _stays_named(cls, name: str | None) -> str:
        return _given(name)

    def changed_settings(self) -> dict[str, Any]:
        """Give the settings that were sent, as they are kept; None where one is to be removed."""
        members = self.model_dump(exclude_unset=True)
        return {name: members[name] for name in _SETTINGS if name in members}


_SETTINGS: Final = (
    "cors_origins", "limits", "room_deactivation", "retention", "key_reuse", "chat",
    "search_language", "client_limits", "quotas", "message_notifications",
)  # fmt: skip


class ClientUpdate(OwnClientUpdate):
    id: Id
    status: Status | None = None
    client_limits: ClientLimits | None = None
    quotas: Quotas | None = None

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
    client_limits: dict[str, int]
    quotas: dict[str, int]
    room_deactivation: dict[str, int | None]
    retention: dict[str, int | None]
    key_reuse: KeyReuse
    chat: dict[str, int | None]
    message_notifications: dict[str, Any] = {}
    search_language: str
    jwt_issuers: list[JwtIssuerOut] = []
    created_at: Timestamp
    updated_at: Timestamp


class KeyCreate(Request):
    name: ShortText = "key"
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
