"""Notifications as callers send and see them."""

import re
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from chatserver.deliveries.schemas import DeliveryOut, State
from chatserver.infra.mail import MailInvalidError, check_address, check_headers
from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import (
    Answer,
    ExternalId,
    Id,
    Metadata,
    Request,
    Timestamp,
    left_out,
    shows,
)

Channel: TypeAlias = Literal["socket", "email", "webhook", "push", "sms"]
Priority: TypeAlias = Literal["critical", "transactional", "bulk"]
Milestone: TypeAlias = Literal["accepted", "delivered", "read"]
Moment: TypeAlias = Annotated[datetime, Field(strict=False)]
MOST_RECIPIENTS: Final = 1000
MOST_BYTES: Final = 256 * 1024
MOST_ATTACHMENTS: Final = 10
# As base64 that is 14 MiB, which the common mail servers still take.
MOST_ATTACHED_BYTES: Final = 10 * 2**20
# With ids, a category and the seal no more than the 4,096 bytes that every push service takes.
MOST_PUSH_BYTES: Final = 3800
_SPAN: Final = re.compile(r"(\d{1,5})(s|m|h|d)")
_WEB: Final = re.compile(r"https?://[^/?#\s]+[!-~]*", re.IGNORECASE)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _mailbox(value: str) -> str:
    try:
        return check_address(value)
    except MailInvalidError as error:
        raise ValueError(str(error)) from error


def _span(value: object) -> object:
    """Take a bare number as seconds."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value}s"
    if not isinstance(value, str):
        return value
    if _SPAN.fullmatch(value) is None:
        msg = "must be a number and s, m, h or d, as 2m"
        raise ValueError(msg)
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        msg = "must be printable text of one line"
        raise ValueError(msg)
    return value


def _url(value: str) -> str:
    # Whether it may be reached is known when it is: what it leads to may change until then.
    if _WEB.fullmatch(value) is None:
        msg = "must begin with https:// or http:// and name a host"
        raise ValueError(msg)
    return value


_Seconds: TypeAlias = Annotated[int, Field(ge=0, le=99_999)]
Span: TypeAlias = Annotated[str, BeforeValidator(_span, json_schema_input_type=str | _Seconds)]


def span_s(value: str) -> int:
    """Give the seconds of a span such as `2m`."""
    found = _SPAN.fullmatch(value)
    assert found is not None  # noqa: S101 - the schema has checked it
    return int(found.group(1)) * _SECONDS[found.group(2)]


Mailbox: TypeAlias = Annotated[str, StringConstraints(max_length=320), AfterValidator(_mailbox)]
Line: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=998, pattern=r"^[^\r\n]+$")
]
Url: TypeAlias = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_url)]


class Recipient(Request):
    """One recipient: a user, an address, or both. What a channel lacks is a state, no error."""

    user_id: ExternalId | None = None
    email: Mailbox | None = None
    name: Annotated[str, StringConstraints(max_length=128)] | None = None
    phone: Annotated[str, StringConstraints(pattern=r"^\+[1-9]\d{6,14}$")] | None = None
    url: Url | None = None

    @model_validator(mode="after")
    def _somebody(self) -> "Recipient":
        if not (self.user_id or self.email or self.phone or self.url):
            msg = "name at least one of user_id, email, phone, url"
            raise ValueError(msg)
        return self


class SocketContent(Request):
    title: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    body: Annotated[str, StringConstraints(max_length=4096)] | None = None
    data: Metadata = {}


class EmailAttachment(Request):
    """A file of `POST /files`, under its own name unless `filename` gives it another."""

    file_id: Id
    filename: Annotated[Line, AfterValidator(_printable), Field(max_length=255)] | None = None


class EmailContent(Request):
    model_config = shows(subject="Your order is on its way", text="It arrives on Friday.")

    subject: Line
    text: str | None = None
    html: str | None = None
    reply_to: Mailbox | None = None
    headers: dict[str, str] = Field(default={}, max_length=32)
    # Read from the store when it is sent: at most 10 MiB in all.
    attachments: Annotated[list[EmailAttachment], Field(max_length=MOST_ATTACHMENTS)] = []

    @model_validator(mode="after")
    def _something(self) -> "EmailContent":
        if self.text is None and self.html is None:
            msg = "needs text or html"
            raise ValueError(msg)
        try:
            check_headers(self.headers)
        except MailInvalidError as error:
            raise ValueError(str(error)) from error
        return self


class WebhookContent(Request):
    """JSON, posted to each recipient's `url`, signed where a provider of the channel is set up."""

    type: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.]{1,64}$")] = "notification"
    data: Annotated[dict[str, Any], Field(max_length=256)]


class PushContent(Request):
    """What the application's service worker gets, at most 3,800 bytes of JSON.

    What has the same `collapse_key` takes the place of what still waits at the push service.
    """

    title: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    body: Annotated[str, StringConstraints(max_length=2048)] | None = None
    data: Metadata = {}
    collapse_key: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "PushContent":
        content = self.model_dump_json(exclude={"collapse_key"}, exclude_none=True)
        if len(content.encode()) > MOST_PUSH_BYTES:
            msg = f"more than {MOST_PUSH_BYTES} bytes, which push services do not take"
            raise ValueError(msg)
        return self


class SmsContent(Request):
    text: Annotated[str, StringConstraints(min_length=1, max_length=1600)]


class Channels(Request):
    """What is said on each channel, ready to be sent."""

    socket: SocketContent | None = None
    email: EmailContent | None = None
    webhook: WebhookContent | None = None
    push: PushContent | None = None
    sms: SmsContent | None = None

    def said(self) -> dict[str, Request]:
        """Give the channels that are used."""
        names = ("socket", "email", "webhook", "push", "sms")
        return {name: said for name in names if (said := getattr(self, name)) is not None}


class Fallback(Request):
    """Tell it on `channel`, too, `after` a while, unless the person came so far by then.

    A while is `90s`, `2m`, `1h` or `1d`; a bare number is seconds.
    """

    channel: Channel
    after: Span = "5m"
    unless: Milestone = "read"


class SendNotification(Request):
    """One thing to be told to up to 1,000 recipients, on one or more channels.

    A channel that stands in `fallback` is used for the fallback alone. `dry_run` checks everything
    and keeps nothing.
    """

    model_config = shows(
        recipients=[{"user_id": "bob", "email": "bob@example.com"}],
        channels={
            "socket": {"title": "Your order is on its way"},
            "email": {"subject": "Your order is on its way", "text": "It arrives on Friday."},
        },
        category="orders",
    )

    recipients: Annotated[list[Recipient], Field(min_length=1, max_length=MOST_RECIPIENTS)]
    channels: Channels
    category: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_.-]{1,64}$")] | None = None
    priority: Priority = "transactional"
    scheduled_at: Moment | None = None
    expires_at: Moment | None = None
    fallback: Annotated[list[Fallback], Field(max_length=5)] = []
    metadata: Metadata = {}
    dry_run: bool = False

    @field_validator("scheduled_at", "expires_at")
    @classmethod
    def _with_zone(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            msg = "must have a time zone, as 2026-01-31T12:00:00Z"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "SendNotification":
        said = self.channels.said()
        if not said:
            msg = "channels: name at least one"
            raise ValueError(msg)
        later = [each.channel for each in self.fallback]
        if len(set(later)) != len(later):
            msg = "fallback: a channel stands twice"
            raise ValueError(msg)
        if missing := [name for name in later if name not in said]:
            msg = f"fallback: {missing[0]} has no content in channels"
            raise ValueError(msg)
        if set(said) <= set(later):
            msg = "fallback: at least one channel must be used at once"
            raise ValueError(msg)
        if len(self.model_dump_json().encode()) > MOST_BYTES:
            msg = f"more than {MOST_BYTES // 1024} KiB"
            raise ValueError(msg)
        return self


class NotificationRef(Request):
    id: Id


class ListNotifications(PageRequest):
    category: Annotated[str, StringConstraints(max_length=64)] | None = None


class ListNotificationDeliveries(Request):
    """`cursor` is `next_cursor` of the page before."""

    id: Id
    state: State | None = None
    cursor: Id | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class Planned(Answer):
    """A delivery that was promised, and where it stands."""

    id: Id
    channel: str
    recipient: dict[str, str]
    state: State
    reason: str | None = left_out()


class LimitOut(Answer):
    policy: str
    limit: int
    remaining: int
    reset_at: Timestamp | None


class SentNotification(Answer):
    """What was committed: every delivery comes to one honest end before `expires_at`."""

    id: Id
    deliveries: list[Planned]
    limits: list[LimitOut]
    expires_at: Timestamp
    dry_run: bool | None = left_out()


class NotificationOut(Answer):
    id: Id
    category: str | None
    priority: Priority
    metadata: dict[str, Any]
    scheduled_at: Timestamp | None
    expires_at: Timestamp
    cancelled_at: Timestamp | None
    created_at: Timestamp
    # How many deliveries stand how.
    states: dict[str, int]


class NotificationDeliveryOut(DeliveryOut):
    """A delivery with its recipient."""

    recipient: dict[str, str]


class NotificationDeliveries(Answer):
    """A page, in the order of the recipients. No `next_cursor`: it was the last."""

    items: list[NotificationDeliveryOut]
    next_cursor: str | None


class Cancelled(Answer):
    """How many deliveries were still waiting, and now are cancelled."""

    id: Id
    cancelled: int
