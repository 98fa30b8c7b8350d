"""Hands messages to push services (RFC 8030): what goes wrong is an outcome."""

from http import HTTPStatus
from typing import Final, Protocol

from chatserver.infra.addresses import AddressRefusedError
from chatserver.infra.http_client import OutboundError, Reply
from chatserver.infra.web_push import (
    LONGEST_TTL_S,
    MOST_PAYLOAD,
    Kind,
    PushMessage,
    PushOutcome,
    Subscription,
    Vapid,
    encrypt,
)

MOST_ANSWER: Final = 2048


class Exchanges(Protocol):
    """The guarded client."""

    async def exchange(
        self, url: str, *, headers: dict[str, str], body: bytes, most: int
    ) -> Reply: ...


class WebPush:
    """Pushes to browsers. What goes wrong is an outcome, never an exception."""

    def __init__(self, client: Exchanges) -> None:
        self._client = client

    async def send(
        self, vapid: Vapid, subscription: Subscription, message: PushMessage
    ) -> PushOutcome:
        """Hand one message to the push service of one browser."""
        if len(message.payload) > MOST_PAYLOAD:
            return PushOutcome(kind="rejected", error="payload_too_large")
        try:
            body = encrypt(message.payload, p256dh=subscription.p256dh, auth=subscription.auth)
        except ValueError:
            return PushOutcome(kind="gone", error="subscription_invalid")
        headers = {
            "Authorization": vapid.authorization(subscription.endpoint),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(max(0, min(message.ttl_s, LONGEST_TTL_S))),
            "Urgency": message.urgency,
        }
        if message.topic is not None:
            headers["Topic"] = message.topic
        try:
            reply = await self._client.exchange(
                subscription.endpoint, headers=headers, body=body, most=MOST_ANSWER
            )
        except AddressRefusedError:
            return PushOutcome(kind="rejected", error="address_refused")
        except OutboundError as error:
            return PushOutcome(kind="retryable", error=error.kind)
        return judged(reply)


def judged(reply: Reply) -> PushOutcome:
    """Say what a push service's answer means (RFC 8030, and what the large ones document)."""
    status = reply.status
    kind: Kind
    retry_after_s = None
    error: str | None = f"status_{status}"
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        kind, error = "accepted", None
    elif status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        kind = "gone"
    elif status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        kind, error = "rejected", "payload_too_large"
    elif status == HTTPStatus.TOO_MANY_REQUESTS:
        kind, retry_after_s = "throttled", _seconds(reply.headers.get("Retry-After"))
    elif status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        kind, retry_after_s = "retryable", _seconds(reply.headers.get("Retry-After"))
    else:
        kind = "rejected"
    return PushOutcome(
        kind=kind, error=error, status=status, retry_after_s=retry_after_s, peer=reply.peer
    )


def _seconds(value: str | None) -> float | None:
    if value is not None and value.isascii() and value.isdigit():
        return float(min(int(value), 86_400))
    return None
