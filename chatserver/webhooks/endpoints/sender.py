"""What goes out: the event as it is by now, signed, and what the answer means."""

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, Protocol
from uuid import UUID

import orjson
import structlog

from chatserver.deliveries.models import Attempt, Claim, Delivery, Sent
from chatserver.deliveries.service import place
from chatserver.infra import standard_webhooks
from chatserver.infra.addresses import AddressRefusedError
from chatserver.infra.expiring import Expiring
from chatserver.infra.http_client import OutboundError, Reply
from chatserver.infra.secrets import SecretBox, UnreadableSecretError
from chatserver.kernel.clock import Clock, rfc3339
from chatserver.webhooks.endpoints.models import secret_place
from chatserver.webhooks.endpoints.repository import Outgoing, Sendable

log = structlog.get_logger()

EXCERPT: Final = 4096
# Opened secrets are forgotten after a while.
SECRETS_TTL_S: Final = 60.0
_CONFIGURATION: Final = frozenset({401, 403, 404, 405, 422})
_THROTTLED: Final = frozenset({429, 503})

# Facts of rooms' logs by (room, seq), as they are now.
ReadFacts = Callable[
    [Sequence[tuple[UUID, int]]], Awaitable[dict[tuple[UUID, int], dict[str, Any]]]
]
ReadRooms = Callable[[Sequence[UUID]], Awaitable[dict[UUID, dict[str, Any]]]]


class Exchanges(Protocol):
    async def exchange(self, url: str, *, headers: dict[str, str], body: bytes) -> Reply:
        """Post a body; gives whatever answer comes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request that lacks only its time and its signature."""

    url: str
    event_id: str
    event_seq: int
    version: int
    hops: int
    body: bytes
    keys: tuple[bytes, ...] = field(repr=False)


class FactReader:
    """Writes events as the facts that they are, whoever asks: a push, or a poll."""

    def __init__(self, *, facts: ReadFacts, rooms: ReadRooms) -> None:
        self._facts = facts
        self._rooms = rooms

    async def read(self, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give the facts of events, in their order, with everything as it is by now."""
        places = {(it["room_id"], it["room_seq"]) for it in events if it["room_seq"] is not None}
        logged = await self._facts(list(places)) if places else {}
        roomy = {it["room_id"] for it in events if _is_about_room(it)}
        rooms = await self._rooms(list(roomy)) if roomy else {}
        return [_fact(event, logged, rooms) for event in events]


class WebhookSender:
    """Sends what a claim says. Loads many at once; holds no connection while it waits."""

    def __init__(
        self,
        *,
        outgoing: Outgoing,
        reader: FactReader,
        client: Exchanges,
        box: SecretBox,
        clock: Clock,
    ) -> None:
        self._outgoing = outgoing
        self._reader = reader
        self._client = client
        self._box = box
        self._clock = clock
        # Which secrets live is read with every delivery: one that was replaced a moment ago must
        # not sign alone. To open them again and again would be dear.
        self._keys: Expiring[tuple[UUID, frozenset[UUID]], tuple[bytes, ...]] = Expiring(
            size=10_000, ttl_s=SECRETS_TTL_S, clock=time.monotonic
        )

    async def load(self, claims: Sequence[Claim]) -> list[Prepared | None]:
        """Read and write what is to be sent, as it is now; None: there is nothing to send."""
        found = await self._outgoing.sendable(
            [(claim.client_id, claim.source_seq or 0, claim.target_id) for claim in claims]
        )
        events = {
            (it.event["id"]): it.event for it in found if it is not None and not it.is_deleted
        }
        facts = await self._reader.read(list(events.values()))
        written = {
            event_id: (fact, orjson.dumps(fact))
            for event_id, fact in zip(events, facts, strict=True)
        }
        keys = await self._keys_of(
            {it.endpoint_id: it.secret_ids for it in found if it is not None}
        )
        return [_prepared(it, written, keys) for it in found]

    async def send(self, claim: Claim, prepared: Prepared | None) -> Sent:
        """Send it once. Never raises but for cancellation: what goes wrong is an outcome."""
        if prepared is None:
            return Sent(outcome="rejected", error="undeliverable")
        if not prepared.keys:
            # Nothing goes out unsigned; whoever runs the server can mend it (`secrets check`).
            return Sent(outcome="retryable", error="undeliverable")
        signed_at = int(self._clock().timestamp())
        signature = standard_webhooks.sign(
            prepared.keys, id=prepared.event_id, timestamp=signed_at, body=prepared.body
        )
        headers = request_headers(
            event_id=prepared.event_id,
            signed_at=signed_at,
            signature=signature,
            attempt=claim.tries,
            event_seq=prepared.event_seq,
        )
        headers["webhook-resource-version"] = str(prepared.version)
        headers["webhook-origin"] = f"chatserver;hops={prepared.hops}"
        began = time.monotonic()
        reply: Reply | None = None
        error: str | None = None
        try:
            reply = await self._client.exchange(prepared.url, headers=headers, body=prepared.body)
        except OutboundError as failed:
            error = failed.kind
        except AddressRefusedError:
            error = "address_refused"
        outcome, why, retry_after_s = ("retryable", error, None)
        if reply is not None:
            outcome, why, retry_after_s = meaning(reply, self._clock())
        return Sent(
            outcome=outcome,
            error=why,
            status=None if reply is None else reply.status,
            retry_after_s=retry_after_s,
            latency_ms=int((time.monotonic() - began) * 1000),
            peer=None if reply is None else reply.peer,
            url=prepared.url,
            signed_at=signed_at,
            signature=signature,
            body_bytes=len(prepared.body),
            body_sha256=hashlib.sha256(prepared.body).digest(),
            response=self._sealed(claim, reply),
        )

    def _sealed(self, claim: Claim, reply: Reply | None) -> bytes | None:
        if reply is None or not reply.body:
            return None
        bound_to = place(claim.client_id, claim.id, claim.generation, claim.tries)
        return self._box.seal(reply.body[:EXCERPT], bound_to=bound_to)

    async def _keys_of(
        self, secrets: Mapping[UUID, frozenset[UUID]]
    ) -> dict[UUID, tuple[bytes, ...]]:
        known = {
            each: keys for each, ids in secrets.items() if (keys := self._keys.get((each, ids)))
        }
        missing = secrets.keys() - known.keys()
        if not missing:
            return known
        opened: dict[UUID, list[bytes]] = {each: [] for each in missing}
        for secret_id, client_id, endpoint_id, sealed in await self._outgoing.secrets(missing):
            bound_to = secret_place(client_id, endpoint_id, secret_id)
            try:
                secret = self._box.open(sealed, bound_to=bound_to).decode()
            except UnreadableSecretError:
                log.error("webhook_secret_unreadable", endpoint_id=str(endpoint_id))  # noqa: TRY400
                continue
            opened[endpoint_id].append(standard_webhooks.key_of(secret))
        for endpoint_id, found in opened.items():
            known[endpoint_id] = tuple(found)
            self._keys.put((endpoint_id, secrets[endpoint_id]), tuple(found))
        return known


def request_headers(
    *, event_id: str, signed_at: int, signature: str, attempt: int, event_seq: int
) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(signed_at),
        "webhook-signature": signature,
        "webhook-attempt": str(attempt),
        "webhook-event-seq": str(event_seq),
    }


def headers_of(attempt: Attempt, delivery: Delivery) -> dict[str, str]:
    """Give the headers that an attempt was made with."""
    return request_headers(
        event_id=str(delivery.source_id),
        signed_at=attempt.signed_at or 0,
        signature=attempt.signature or "",
        attempt=attempt.no,
        event_seq=delivery.source_seq or 0,
    )


def meaning(  # noqa: PLR0911 - a table of answers
    reply: Reply, now: datetime
) -> tuple[str, str | None, float | None]:
    """Give outcome, error and the seconds that the receiver asks to wait."""
    status = reply.status
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return "accepted", None, None
    asked = reply.headers.get("webhook-delivery", "").strip().lower()
    if status == HTTPStatus.GONE:
        return "gone", "gone", None
    if asked == "disable":
        return "gone", "disabled_by_receiver", None
    if asked == "abort-message":
        return "rejected", "aborted_by_receiver", None
    if status < HTTPStatus.BAD_REQUEST:
        return "retryable", "redirect", None
    wait_s = retry_after(reply.headers.get("Retry-After"), now)
    if status in _THROTTLED:
        return "throttled", f"status_{status}", wait_s
    if status in _CONFIGURATION:
        return "configuration", f"status_{status}", wait_s
    return "retryable", f"status_{status}", wait_s


def retry_after(value: str | None, now: datetime) -> float | None:
    """Read a `Retry-After`: seconds, or a date; None where it can't be read."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(min(int(value[:9]), 10**8))
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _prepared(
    sendable: Sendable | None,
    written: dict[UUID, tuple[dict[str, Any], bytes]],
    keys: dict[UUID, tuple[bytes, ...]],
) -> Prepared | None:
    if sendable is None or sendable.is_deleted:
        return None
    event = sendable.event
    fact, body = written[event["id"]]
    return Prepared(
        url=sendable.url,
        event_id=str(event["id"]),
        event_seq=event["seq"],
        version=event["seq"] if event["room_seq"] is None else event["room_seq"],
        hops=event["hops"] or _hops(fact["data"]),
        body=body,
        keys=keys.get(sendable.endpoint_id, ()),
    )


def _fact(
    event: dict[str, Any],
    logged: dict[tuple[UUID, int], dict[str, Any]],
    rooms: dict[UUID, dict[str, Any]],
) -> dict[str, Any]:
    found = logged.get((event["room_id"], event["room_seq"]))
    if found is None:
        found = _own(event, rooms)
    # Standard Webhooks calls it that.
    return {**found, "timestamp": found["ts"]}


def _own(event: dict[str, Any], rooms: dict[UUID, dict[str, Any]]) -> dict[str, Any]:
    """Write a fact that no log holds: it never did, or its place there was removed."""
    data = event["data"]
    if isinstance(data, str):
        data = orjson.loads(data)
    members: dict[str, Any] = {"v": 1, "type": event["type"], "id": str(event["id"])}
    if event["room_id"] is not None:
        members["room_id"] = str(event["room_id"])
    members["ts"] = rfc3339(event["created_at"])
    members["actor"] = {"type": event["actor_type"], "id": event["actor_id"]}
    if _is_about_room(event):
        room = rooms.get(event["room_id"])
        data = {"room": room} if room is not None else None
    if data is None:
        # Removed since, with all that it said.
        return {**members, "data": {}, "superseded": True, "erased": True}
    return {**members, "data": data}


def _is_about_room(event: dict[str, Any]) -> bool:
    return event["room_id"] is not None and str(event["type"]).startswith("room.")


def _hops(data: dict[str, Any]) -> int:
    """Read how many hooks a message or room has come through already."""
    for holder in (data.get("message"), data.get("room")):
        metadata = (holder or {}).get("metadata") if isinstance(holder, dict) else None
        origin = metadata.get("webhook") if isinstance(metadata, dict) else None
        hops = origin.get("hops") if isinstance(origin, dict) else None
        if isinstance(hops, int) and not isinstance(hops, bool):
            return max(0, min(hops, 1000))
    return 0
