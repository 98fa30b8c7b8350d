"""How a notification's deliveries are sent, channel by channel: one try, told as an outcome."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

import orjson

from chatserver.deliveries.models import Claim, Sent
from chatserver.infra import standard_webhooks, tracing
from chatserver.infra.addresses import AddressRefusedError
from chatserver.infra.http_client import OutboundError, Reply
from chatserver.infra.mail import Outcome
from chatserver.infra.secrets import SecretBox, UnreadableSecretError
from chatserver.kernel.clock import Clock, rfc3339
from chatserver.notifications.consent.policies import blocks
from chatserver.notifications.requests.models import Item, place_of_address, place_of_content
from chatserver.notifications.requests.policies import GENERAL, UNKNOWN
from chatserver.notifications.requests.ports import Inbox
from chatserver.notifications.requests.service import NAMES

SHOWN: Final = 64
_OK, _MULTIPLE, _GONE, _MANY, _UNAVAILABLE, _ERROR = 200, 300, 410, 429, 503, 500
# The receiver's own settings seem to be wrong; it may mend them.
_CONFIGURATION: Final = frozenset({401, 403, 404, 422})


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a claim is about, opened."""

    row: Any
    content: dict[str, Any]
    address: str
    name: str | None


class Lookup(Protocol):
    """Where deliveries, contents and providers are read."""

    async def sendable(self, deliveries: Sequence[UUID]) -> dict[UUID, Any]: ...

    async def forward_key(self, client_id: UUID) -> Any: ...  # noqa: ANN401 - a row, or None


class Reader:
    """Reads what claims are about: the common half of all channels."""

    def __init__(self, lookup: Lookup, box: SecretBox) -> None:
        self._lookup = lookup
        self._box = box

    async def load(self, claims: Sequence[Claim]) -> list[Prepared | None]:
        """Give what is to be sent, in the order of the claims; None: nothing any more."""
        rows = await self._lookup.sendable([claim.id for claim in claims])
        if tracing.is_on():
            tracing.remember(
                {
                    row["notification_id"]: row["traceparent"]
                    for row in rows.values()
                    if row["traceparent"] is not None
                }
            )
        return [self._open(claim, rows.get(claim.id)) for claim in claims]

    def _open(self, claim: Claim, row: Any) -> Prepared | None:  # noqa: ANN401
        if row is None or row["content"] is None or row["address"] is None:
            return None
        try:
            content = self._box.open(
                row["content"], bound_to=place_of_content(claim.client_id, row["notification_id"])
            )
            address = self._box.open(
                row["address"], bound_to=place_of_address(claim.client_id, claim.id)
            )
        except UnreadableSecretError:
            return None
        whom = orjson.loads(address)
        return Prepared(row, orjson.loads(content), whom["address"], whom["name"])


def skipped(prepared: Prepared | None) -> Sent | None:
    """Say why a delivery is not tried at all; None: it is."""
    if prepared is None:
        return Sent(outcome="rejected", error="content_gone")
    if prepared.row["is_met"]:
        return Sent(outcome="skipped", error="fallback_not_needed")
    barred = _barred(prepared.row)
    return None if barred is None else Sent(outcome="unreachable", error=barred)


def _barred(row: Any) -> str | None:  # noqa: ANN401 - of a database
    """Say what came between the request and this try: an address or a person that wants nothing."""
    for each in row["against"]:
        scope, _, reason = each.rpartition(" ")
        if blocks(
            scope=scope,
            reason=reason,
            category=row["category"] or GENERAL,
            priority=NAMES[row["priority"]],
        ):
            return str(reason)
    return "preference" if row["is_wanted"] is False else None


class ProviderReader(Reader):
    """Reads claims that go through the provider that is the delivery's target just now."""

    def __init__(
        self,
        lookup: Lookup,
        box: SecretBox,
        *,
        config_place: Any,  # noqa: ANN401 - a function of two ids
    ) -> None:
        super().__init__(lookup, box)
        self._config_place = config_place

    def _config(self, claim: Claim, row: Any) -> dict[str, Any]:  # noqa: ANN401
        """Open the provider's settings.

        Raises:
            UnreadableSecretError: they were sealed with a key that is gone.
        """
        place = self._config_place(claim.client_id, row["provider_id"])
        config: dict[str, Any] = orjson.loads(
            self._box.open(row["provider_config"], bound_to=place)
        )
        return config


def handed_over(outcome: Outcome, latency_ms: int, *, may_repeat: bool) -> Sent:
    """Say what a provider's answer means; `may_repeat`: also what it may have taken already."""
    names = {
        "accepted": "accepted",
        "retryable": "retryable",
        "throttled": "throttled",
        "configuration": "configuration",
        "content": "rejected",
        "recipient": "bounced",
        "ambiguous": "unknown" if may_repeat else "rejected",
    }
    error = None
    if outcome.kind == "ambiguous":
        error = UNKNOWN
    elif outcome.kind != "accepted":
        error = f"{outcome.phase}_{outcome.enhanced or outcome.code or outcome.kind}"
    return Sent(
        outcome=names[outcome.kind],
        error=error,
        status=outcome.code,
        retry_after_s=outcome.retry_after_s,
        latency_ms=latency_ms,
        peer=outcome.peer,
        response=None,
    )


class Exchanges(Protocol):
    """The guarded client."""

    async def exchange(self, url: str, *, headers: dict[str, str], body: bytes) -> Reply: ...


class ForwardSender(Reader):
    """Posts a notification to an address that the request named (Standard Webhooks)."""

    def __init__(
        self,
        lookup: Lookup,
        box: SecretBox,
        *,
        client: Exchanges,
        config_place: Any,  # noqa: ANN401 - a function of two ids
        clock: Clock,
    ) -> None:
        super().__init__(lookup, box)
        self._lookup_key = lookup.forward_key
        self._sealed = box
        self._client = client
        self._config_place = config_place
        self._clock = clock

    async def send(self, claim: Claim, prepared: Prepared | None) -> Sent:
        """Send it once. Never raises but for cancellation: what goes wrong is an outcome."""
        if (not_tried := skipped(prepared)) is not None:
            return not_tried
        assert prepared is not None  # noqa: S101 - `skipped` said so
        body = orjson.dumps(
            {
                "type": prepared.content["type"],
                "id": str(claim.id),
                "timestamp": rfc3339(prepared.row["created_at"]),
                "data": prepared.content["data"],
            }
        )
        stamp = int(self._clock().timestamp())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": str(claim.id),
            "webhook-timestamp": str(stamp),
            "webhook-attempt": str(claim.tries),
        }
        secret = await self._secret(claim.client_id)
        if secret is not None:
            headers["webhook-signature"] = standard_webhooks.sign(
                [secret], id=str(claim.id), timestamp=stamp, body=body
            )
        began = time.monotonic()
        try:
            reply = await self._client.exchange(prepared.address, headers=headers, body=body)
        except AddressRefusedError:
            return Sent(outcome="rejected", error="address_refused", url=prepared.address)
        except OutboundError as error:
            return Sent(
                outcome="retryable",
                error=error.kind,
                latency_ms=int((time.monotonic() - began) * 1000),
                url=prepared.address,
            )
        outcome, error_name = _answered(reply.status)
        return Sent(
            outcome=outcome,
            error=error_name,
            status=reply.status,
            retry_after_s=_seconds(reply.headers.get("Retry-After")),
            latency_ms=int((time.monotonic() - began) * 1000),
            peer=reply.peer,
            url=prepared.address,
            signed_at=stamp,
            signature=headers.get("webhook-signature"),
            body_bytes=len(body),
        )

    async def _secret(self, client_id: UUID) -> bytes | None:
        row = await self._lookup_key(client_id)
        if row is None:
            return None
        config = orjson.loads(
            self._sealed.open(row["sealed"], bound_to=self._config_place(client_id, row["id"]))
        )
        secret = config.get("secret")
        if secret is None:
            return None
        try:
            return standard_webhooks.key_of(secret)
        except ValueError:
            return secret.encode() if isinstance(secret, str) else None


def _answered(status: int) -> tuple[str, str | None]:
    if _OK <= status < _MULTIPLE:
        # The answer is the proof: there is nothing beyond it to wait for.
        return "accepted", "delivered"
    if status in (_MANY, _UNAVAILABLE):
        return "throttled", f"status_{status}"
    if status in _CONFIGURATION:
        return "configuration", f"status_{status}"
    if status >= _ERROR or status == 408:  # noqa: PLR2004 - request timeout
        return "retryable", f"status_{status}"
    return ("gone" if status == _GONE else "rejected"), f"status_{status}"


def _seconds(value: str | None) -> float | None:
    if value is not None and value.isascii() and value.isdigit():
        return float(min(int(value), 86_400))
    return None


class OpenInbox(Protocol):
    """Opens an inbox in a transaction of its own."""

    def __call__(self) -> Any: ...  # noqa: ANN401 - an async context manager around an `Inbox`


class InboxSender(Reader):
    """Puts a notification into an inbox later than it was asked for: scheduled, or a fallback."""

    def __init__(self, lookup: Lookup, box: SecretBox, *, open_inbox: OpenInbox) -> None:
        super().__init__(lookup, box)
        self._open_inbox = open_inbox

    async def send(self, claim: Claim, prepared: Prepared | None) -> Sent:
        """Put it there. A repeat finds it there already."""
        if (not_tried := skipped(prepared)) is not None:
            return not_tried
        assert prepared is not None  # noqa: S101 - `skipped` said so
        item = Item(
            client_id=claim.client_id,
            external_id=prepared.address,
            delivery_id=claim.id,
            notification_id=prepared.row["notification_id"],
            category=prepared.row["category"],
            content=prepared.content,
        )
        async with self._open_inbox() as opened:
            inbox: Inbox = opened
            await inbox.keep([item])
        return Sent(outcome="accepted")
