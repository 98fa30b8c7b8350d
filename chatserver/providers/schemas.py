"""Providers as callers send and see them. Secrets go in and never come out."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, TypeAdapter

from chatserver.infra.mail import MailInvalidError, check_address
from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import Answer, Id, Request, ShortText, Timestamp

HIDDEN: Literal["********"] = "********"


def _mailbox(value: str) -> str:
    try:
        return check_address(value)
    except MailInvalidError as error:
        raise ValueError(str(error)) from error


Mailbox: TypeAlias = Annotated[str, StringConstraints(max_length=320), AfterValidator(_mailbox)]
Host: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9.:_-]+$")
]
Secret: TypeAlias = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1024),
    Field(json_schema_extra={"writeOnly": True}),
]
DisplayName: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class SmtpSettings(Request):
    """An SMTP server. TLS is required unless it is turned off; `implicit` is port 465."""

    model_config = ConfigDict(populate_by_name=True)

    host: Host
    port: Annotated[int, Field(ge=1, le=65_535)] = 587
    tls: Literal["required", "none", "implicit"] = "required"
    username: Annotated[str, StringConstraints(min_length=1, max_length=320)] | None = None
    password: Secret | None = None
    from_: Annotated[Mailbox, Field(alias="from")]
    from_name: DisplayName | None = None


class MailgunSettings(Request):
    """A Mailgun domain. `signing_key` verifies its events, which come to `/callbacks/{id}`."""

    model_config = ConfigDict(populate_by_name=True)

    domain: Annotated[
        str, StringConstraints(max_length=253, pattern=r"^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$")
    ]
    api_key: Secret
    region: Literal["us", "eu"] = "us"
    signing_key: Secret | None = None
    base_url: Annotated[str, StringConstraints(max_length=2048)] | None = None
    from_: Annotated[Mailbox, Field(alias="from")]
    from_name: DisplayName | None = None


class WebhookSettings(Request):
    """Signs what goes to the addresses that notifications name, by Standard Webhooks."""

    secret: Secret | None = None


Settings: TypeAlias = SmtpSettings | MailgunSettings | WebhookSettings
# What can be made, by channel and kind. The states of `push` and `sms` are there, their adapters
# are not: a provider of them could only pretend.
KINDS: dict[tuple[str, str], TypeAdapter[Settings]] = {
    ("email", "smtp"): TypeAdapter(SmtpSettings),
    ("email", "mailgun"): TypeAdapter(MailgunSettings),
    ("webhook", "standard"): TypeAdapter(WebhookSettings),
}
SECRETS: frozenset[str] = frozenset({"password", "api_key", "signing_key", "secret"})


class CreateProvider(Request):
    """`config` is what the kind takes: `smtp`, `mailgun` (email), `standard` (webhook)."""

    channel: Literal["email", "webhook", "push", "sms"]
    kind: Annotated[str, StringConstraints(min_length=1, max_length=16)]
    name: ShortText
    config: Annotated[dict[str, Any], Field(max_length=32)]
    position: Annotated[int, Field(ge=0, le=100)] = 0
    enabled: bool = True


class UpdateProvider(Request):
    """What is left out stays; members of `config` too: a password need not be sent again."""

    id: Id
    name: ShortText | None = None
    config: Annotated[dict[str, Any], Field(max_length=32)] | None = None
    position: Annotated[int, Field(ge=0, le=100)] | None = None
    enabled: bool | None = None


class ProviderRef(Request):
    id: Id


class ListProviders(PageRequest):
    channel: Literal["email", "webhook", "push", "sms"] | None = None


class Verification(Answer):
    """How a check went: how far it came, and the other side's own words."""

    ok: bool
    phase: str
    text: str
    at: Timestamp


class ProviderHealth(Answer):
    state: str
    reason: str | None
    since: Timestamp
    open_until: Timestamp | None


class ProviderOut(Answer):
    """A provider. Secrets in `config` are shown as stars."""

    id: Id
    channel: str
    kind: str
    name: str
    position: int
    enabled: bool
    config: dict[str, Any]
    verified: Verification | None
    health: ProviderHealth
    created_at: Timestamp
    updated_at: Timestamp


class ProviderDeleted(Answer):
    id: Id
    deleted: bool = True
