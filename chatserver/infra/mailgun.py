"""Hands mails to Mailgun's HTTP API (https://documentation.mailgun.com), and reads its events."""

import base64
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import quote, urlencode

import orjson

from chatserver.infra.addresses import AddressRefusedError
from chatserver.infra.http_client import GuardedClient, OutboundError, Reply
from chatserver.infra.mail import Kind, Outcome
from chatserver.infra.mailgun_events import SHOWN, MailEvent, read_event

BASES: Final = {"us": "https://api.mailgun.net", "eu": "https://api.eu.mailgun.net"}
THROTTLED_S: Final = 60.0
# Events at a time, and how many times in one go: what is left is read the next time.
PAGE: Final = 300
# An event has the mail's headers and the other side's words: some kilobytes.
MOST_BYTES: Final = 4 * 1024 * 1024
MOST_PAGES: Final = 100
TOLD: Final = "delivered OR failed OR rejected OR complained OR unsubscribed"


@dataclass(frozen=True, slots=True)
class MailgunConfig:
    """A sending domain. `base_url` is only for tests and proxies of one's own."""

    domain: str
    api_key: str = field(repr=False)
    region: Literal["us", "eu"] = "us"
    base_url: str | None = None

    @property
    def messages(self) -> str:
        return f"{self._domain}/messages.mime"

    @property
    def events(self) -> str:
        return f"{self._domain}/events"

    @property
    def _domain(self) -> str:
        base = (self.base_url or BASES[self.region]).rstrip("/")
        return f"{base}/v3/{quote(self.domain, safe='')}"


class Mailgun:
    """Asks the API. What goes wrong is an outcome, never an exception."""

    def __init__(self, client: GuardedClient) -> None:
        self._client = client

    async def send(
        self, config: MailgunConfig, recipient: str, message: bytes, *, delivery_id: str
    ) -> Outcome:
        """Hand one mail over, as it was written, for one recipient."""
        fields = {"to": recipient, "v:delivery_id": delivery_id, "o:tracking": "no"}
        content_type, body = _form(fields, message)
        try:
            reply = await self._client.fetch(
                "POST",
                config.messages,
                headers={**_credentials(config), "Content-Type": content_type},
                body=body,
            )
        except AddressRefusedError as error:
            return Outcome(kind="configuration", phase="resolve", text=f"The address {error}.")
        except OutboundError as error:
            return _unanswered(error)
        return _judged(reply)

    async def verify(self, config: MailgunConfig) -> Outcome:
        """Look whether the key may read the domain's events, without sending anything."""
        try:
            reply = await self._ask(config, {"limit": "1"})
        except AddressRefusedError as error:
            return Outcome(kind="configuration", phase="resolve", text=f"The address {error}.")
        except OutboundError as error:
            return Outcome(kind="retryable", phase="connect", text=str(error))
        if reply.status == HTTPStatus.OK:
            return Outcome(kind="accepted", phase="auth", code=reply.status)
        return _judged(reply)

    async def events_of(
        self, config: MailgunConfig, message_id: str, *, since: datetime | None = None
    ) -> Sequence[MailEvent] | None:
        """Look up what became of a mail by its Message-ID. Empty: Mailgun does not know it (yet).

        None: it can't be asked now. `since`: of a mail that was sent before, what is new alone.
        """
        query = {"message-id": message_id.strip("<>"), "limit": "25"}
        if since is not None:
            query |= {"begin": format_datetime(since), "ascending": "yes"}
        try:
            reply = await self._ask(config, query)
            found = orjson.loads(reply.body)
        except (AddressRefusedError, OutboundError, ValueError):
            return None
        items = found.get("items") if isinstance(found, dict) else None
        if reply.status != HTTPStatus.OK or not isinstance(items, list):
            return None
        events = [read_event(item, accepted=True) for item in items]
        return [it for it in events if it is not None and (since is None or it.at >= since)]

    async def events_since(
        self, config: MailgunConfig, since: datetime
    ) -> AsyncIterator[list[MailEvent]]:
        """Read what became of mails since a moment, page by page; ends where it can't be asked."""
        query = {
            "begin": format_datetime(since),
            "ascending": "yes",
            "limit": str(PAGE),
            "event": TOLD,
        }
        url = f"{config.events}?{urlencode(query)}"
        for _ in range(MOST_PAGES):
            try:
                reply = await self._client.fetch(
                    "GET", url, headers=_credentials(config), max_body=MOST_BYTES
                )
                found = orjson.loads(reply.body)
            except (AddressRefusedError, OutboundError, ValueError):
                return
            items = found.get("items") if isinstance(found, dict) else None
            if reply.status != HTTPStatus.OK or not isinstance(items, list) or not items:
                return
            yield [event for item in items if (event := read_event(item)) is not None]
            paging = found.get("paging")
            following = paging.get("next") if isinstance(paging, dict) else None
            # The key goes nowhere but to the domain that it is of.
            if not isinstance(following, str) or not following.startswith(f"{config.events}/"):
                return
            url = following

    async def _ask(self, config: MailgunConfig, query: Mapping[str, str]) -> Reply:
        return await self._client.fetch(
            "GET",
            f"{config.events}?{urlencode(query)}",
            headers=_credentials(config),
            max_body=MOST_BYTES,
        )


def _credentials(config: MailgunConfig) -> dict[str, str]:
    pair = base64.b64encode(f"api:{config.api_key}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def _form(fields: Mapping[str, str], message: bytes) -> tuple[str, bytes]:
    """Write a form with the mail as its file (RFC 7578); the fields are our own, without quotes."""
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="message"; filename="message.mime"'
        "\r\nContent-Type: message/rfc822\r\n\r\n"
    )
    body = b"".join((*parts, head.encode(), message, f"\r\n--{boundary}--\r\n".encode()))
    return f"multipart/form-data; boundary={boundary}", body


def _unanswered(error: OutboundError) -> Outcome:
    if error.kind == "connect_failed":
        return Outcome(kind="retryable", phase="connect", text=str(error))
    if error.kind == "tls_failed":
        return Outcome(kind="configuration", phase="tls", text=str(error))
    # It may have taken the mail before the line broke: nobody knows.
    return Outcome(kind="ambiguous", phase="answer", text=str(error))


def _judged(reply: Reply) -> Outcome:
    said = _message(reply.body)
    if reply.status == HTTPStatus.OK:
        return Outcome(
            kind="accepted",
            phase="done",
            code=reply.status,
            text=said.get("message", ""),
            peer=reply.peer,
            provider_message_id=said.get("id"),
        )
    kind: Kind = "content"
    retry_after_s = None
    if reply.status == HTTPStatus.TOO_MANY_REQUESTS:
        kind, retry_after_s = "throttled", _seconds(reply.headers.get("Retry-After"))
    elif reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = "retryable"
    elif reply.status in (
        *(HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN),
        HTTPStatus.NOT_FOUND,
    ):
        kind = "configuration"
    elif "'to' parameter" in said.get("message", "").lower():
        kind = "recipient"
    return Outcome(
        kind=kind,
        phase="answer",
        code=reply.status,
        text=said.get("message", ""),
        retry_after_s=retry_after_s,
        peer=reply.peer,
    )


def _message(body: bytes) -> dict[str, str]:
    try:
        said = orjson.loads(body)
    except ValueError:
        return {"message": body[:SHOWN].decode(errors="replace")}
    if not isinstance(said, dict):
        return {}
    return {name: value[:SHOWN] for name, value in said.items() if isinstance(value, str)}


def _seconds(value: str | None) -> float:
    if value is not None and value.isascii() and value.isdigit():
        return float(min(int(value), 86_400))
    return THROTTLED_S
