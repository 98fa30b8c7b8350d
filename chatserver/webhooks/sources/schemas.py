"""Inbound sources and what came by them, as a client's application sends and sees them."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, JsonValue, StringConstraints, model_validator

from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import Answer, Id, Request, ShortText, Timestamp, left_out
from chatserver.webhooks.sources.claims import Algorithm, Encoding, Scheme, Signing
from chatserver.webhooks.sources.rule_schemas import HeaderName, Path, Rules
from chatserver.webhooks.sources.vendors import check_template

MOST_SECRETS = 10
TOLERANCE_S = 300
# Mailgun repeats a request for 8 hours, with its first signature.
MAILGUN_TOLERANCE_S = 9 * 3600

Slug: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
SecretText: TypeAlias = Annotated[str, StringConstraints(min_length=8, max_length=512)]
ShortValue: TypeAlias = Annotated[str, StringConstraints(max_length=2048)]
Member: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,32}$")]


class GenericHmac(Request):
    """How a vendor signs that has no scheme of its own.

    `template` is what is signed: `{body}`, `{timestamp}`, `{id}`, `{url}`, `{header:NAME}` and any
    text. With `signature_key` the header is read as `name=value` pairs.
    """

    header: HeaderName
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    template: Annotated[str, StringConstraints(max_length=256)] = "{body}"
    prefix: Annotated[str, StringConstraints(max_length=32)] = ""
    signature_key: Member | None = None
    timestamp_key: Member | None = None
    timestamp_header: HeaderName | None = None
    timestamp_unit: Literal["s", "ms", "rfc3339"] = "s"
    id_header: HeaderName | None = None
    key_encoding: Literal["text", "hex", "base64"] = "text"

    @model_validator(mode="after")
    def _fits(self) -> "GenericHmac":
        check_template(self.template)
        has_time = self.timestamp_key is not None or self.timestamp_header is not None
        if "{timestamp}" in self.template and not has_time:
            raise ValueError("a template with {timestamp} needs timestamp_header or timestamp_key")
        if has_time and "{timestamp}" not in self.template:
            raise ValueError("a time that is not in the template is not signed")
        if self.timestamp_key is not None and self.signature_key is None:
            raise ValueError("timestamp_key needs signature_key")
        if "{id}" in self.template and self.id_header is None:
            raise ValueError("a template with {id} needs id_header")
        return self

    def signing(self) -> Signing:
        return Signing(**self.model_dump())


class Dedupe(Request):
    """What makes two requests the same event; without it, what the scheme knows.

    A header is not covered by most signatures: whoever caught a request could send it again under
    another id. `body`: the same content is the same event.
    """

    header: HeaderName | None = None
    path: Path | None = None
    body: Literal[True] | None = None

    @model_validator(mode="after")
    def _one(self) -> "Dedupe":
        if sum(each is not None for each in (self.header, self.path, self.body)) != 1:
            raise ValueError("name one of header, path and body")
        return self


class SourceCreate(Request):
    """A source is reached at `/webhooks/{client_slug}/{slug}`.

    `secrets` are what the vendor signs with; for `standard` and `generic_hmac` one is made, and
    shown once, where none is given. For `basic` a secret is `user:password`.
    """

    slug: Slug
    description: ShortText | None = None
    scheme: Annotated[Scheme, Field(strict=False)]
    signing: GenericHmac | None = None
    secrets: Annotated[list[SecretText], Field(max_length=MOST_SECRETS)] = []
    tolerance_s: Annotated[int, Field(ge=1, le=7 * 86400)] | None = None
    dedupe: Dedupe | None = None
    url: Annotated[str, StringConstraints(pattern=r"^https?://[!-~]{1,2000}$")] | None = Field(
        default=None,
        description="What the vendor calls, where it signs that (twilio) and it differs.",
    )
    rate_per_s: Annotated[float, Field(gt=0, le=1000)] = 20.0
    rate_burst: Annotated[int, Field(ge=1, le=10_000)] = 200
    rules: Rules = []
    is_active: bool = True

    @model_validator(mode="after")
    def _fits(self) -> "SourceCreate":
        if (self.scheme is Scheme.GENERIC_HMAC) != (self.signing is not None):
            raise ValueError("signing is for generic_hmac, which needs it")
        return self

    @property
    def how(self) -> Signing:
        return Signing() if self.signing is None else self.signing.signing()


class SourcePath(Request):
    id: Id


class SourceUpdate(Request):
    """What is left out stays; the scheme stays as it is. `rules` replaces all of them."""

    id: Id
    description: ShortText | None = None
    signing: GenericHmac | None = None
    tolerance_s: Annotated[int, Field(ge=1, le=7 * 86400)] | None = None
    dedupe: Dedupe | None = None
    url: Annotated[str, StringConstraints(pattern=r"^https?://[!-~]{1,2000}$")] | None = None
    rate_per_s: Annotated[float, Field(gt=0, le=1000)] | None = None
    rate_burst: Annotated[int, Field(ge=1, le=10_000)] | None = None
    rules: Rules | None = None
    is_active: bool | None = None


class SecretAdd(Request):
    """A further secret. `expire_others_in_s` ends the others then: 0 is now, 24 h is usual."""

    id: Id
    secret: SecretText | None = None
    expire_others_in_s: Annotated[int, Field(ge=0, le=30 * 86400)] | None = None


class SecretPath(Request):
    id: Id
    secret_id: Id


class EventList(Request):
    """The newest first. `cursor` is `next_cursor` of the page before."""

    id: Id
    status: Literal["received", "running", "done", "ignored", "dead", "looped"] | None = None
    cursor: Id | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class EventPath(Request):
    id: Id
    event_id: Id


class ReplayDead(Request):
    """Replay up to `limit` dead events, the oldest first."""

    id: Id
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class TrySource(Request):
    """Try a source without any effect.

    Without anything else the rules are tried on the last event; with `event_id` on that one; with
    `headers` and `body` on a request that is made up, whose signature is checked and explained,
    too. `rules` are tried instead of the stored ones.
    """

    id: Id
    event_id: Id | None = None
    headers: Annotated[dict[HeaderName, ShortValue], Field(max_length=64)] | None = None
    body: Annotated[str, StringConstraints(max_length=100_000)] | None = None
    rules: Rules | None = None

    @model_validator(mode="after")
    def _one(self) -> "TrySource":
        if self.event_id is not None and (self.headers is not None or self.body is not None):
            raise ValueError("name an event, or give headers and body")
        return self


class SecretOut(Answer):
    """A secret, by what may be shown of it."""

    id: Id
    hint: str
    created_at: Timestamp
    expires_at: Timestamp | None


class SourceOut(Answer):
    """A source. `path` is where its requests go; secrets are never shown again."""

    id: Id
    slug: str
    path: str
    description: str | None
    scheme: str
    signing: dict[str, Any] | None
    tolerance_s: int
    dedupe: dict[str, Any] | None
    url: str | None
    rate_per_s: float
    rate_burst: int
    rules: list[dict[str, Any]]
    is_active: bool
    secrets: list[SecretOut]
    verified_at: Timestamp | None
    created_at: Timestamp
    updated_at: Timestamp


class SourceCreated(SourceOut):
    """`secret` is there once, if the server made it."""

    secret: str | None = left_out()


class SecretAdded(Answer):
    added: SecretOut
    secrets: list[SecretOut]
    secret: str | None = left_out()


class EffectOut(Answer):
    """One action of a rule for an event."""

    rule: str
    index: int
    action: str
    state: Literal["planned", "done", "failed", "skipped"]
    arguments: dict[str, Any]
    result: dict[str, Any]
    error: str | None
    done_at: Timestamp | None


class EventOut(Answer):
    """Something that came. `status` is `done` when all that the rules wanted is done."""

    id: Id
    source_id: Id
    external_id: str
    received_at: Timestamp
    status: str
    attempts: int
    replays: int
    hops: int
    size: int
    error: str | None
    ended_at: Timestamp | None


class EventDetails(EventOut):
    """With what came and what was done. `body` is text; `payload` is what rules see of it."""

    headers: dict[str, str]
    body: str | None
    payload: JsonValue
    secret_hint: str | None
    effects: list[EffectOut]


class EventPage(Answer):
    items: list[EventOut]
    next_cursor: str | None


class Replayed(Answer):
    replayed: int


class RefusalOut(Answer):
    """Why requests were refused. `count`: how many since the one before."""

    at: Timestamp
    reason: str
    explanation: str
    details: dict[str, Any]
    count: int


class RefusalList(Answer):
    items: list[RefusalOut]


class PlannedOut(Answer):
    """What an action would do, or why it can't."""

    index: int
    action: str
    arguments: dict[str, Any]
    problem: str | None


class RuleTried(Answer):
    """Whether a rule takes a request; if not, which of its conditions does not hold."""

    name: str
    matched: bool
    unmet: int | None
    actions: list[PlannedOut]


class Verification(Answer):
    ok: bool
    reason: str | None
    explanation: str
    details: dict[str, Any]


class Tried(Answer):
    event_id: Id | None
    verification: Verification | None
    payload: JsonValue
    rules: list[RuleTried]


class SourceList(PageRequest):
    """The client's sources, by slug."""
