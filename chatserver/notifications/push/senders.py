"""How pushes are sent: one delivery goes to every device of a person, and has one state."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlsplit
from uuid import UUID

import orjson
import structlog

from chatserver.deliveries.models import Claim, Sent
from chatserver.infra.batching import Batcher
from chatserver.infra.push_client import WebPush
from chatserver.infra.secrets import SecretBox, UnreadableSecretError
from chatserver.infra.web_push import PushMessage, PushOutcome, Subscription, Vapid, bytes_of
from chatserver.kernel.errors import UnavailableError
from chatserver.notifications.devices.service import place
from chatserver.notifications.push.policies import (
    NOBODY_REACHED,
    RESTING,
    Device,
    Part,
    Reached,
    Rests,
    Tried,
    message_of,
    summed_up,
)
from chatserver.notifications.push.service import PushKeys
from chatserver.notifications.requests.senders import Lookup, Prepared, Reader, skipped

BATCH: Final = 64

log = structlog.get_logger()


class Store(Protocol):
    """Whose devices there are, and who of them has it."""

    async def devices(self, claims: Sequence[Claim]) -> dict[UUID, Reached]: ...

    async def note(self, tried: Sequence[Tried]) -> list[None]: ...


@dataclass(frozen=True, slots=True)
class Addressed:
    """What a claim is about, opened, and where it goes."""

    prepared: Prepared | None
    reached: Reached


class PushSender:
    """Pushes to browsers; devices of other kinds have no adapter yet."""

    def __init__(
        self,
        lookup: Lookup,
        box: SecretBox,
        *,
        store: Store,
        keys: PushKeys,
        service: WebPush,
    ) -> None:
        self._reader = Reader(lookup, box)
        self._box = box
        self._store = store
        self._keys = keys
        self._service = service
        self._rests = Rests()
        self._vapid: Vapid | None = None
        self._notes: Batcher[Tried, None] = Batcher(store.note, size=BATCH, in_flight=2)

    async def load(self, claims: Sequence[Claim]) -> list[Addressed]:
        """Give what is to be pushed and where, in the order of the claims."""
        # Read here, where PostgreSQL being away is waited for.
        self._vapid = await self._keys.vapid()
        prepared, devices = await asyncio.gather(
            self._reader.load(claims), self._store.devices(claims)
        )
        return [
            Addressed(each, devices.get(claim.id, NOBODY_REACHED))
            for claim, each in zip(claims, prepared, strict=True)
        ]

    async def send(self, claim: Claim, loaded: Addressed) -> Sent:
        """Push it once to every device that does not have it yet.

        Never raises but for cancellation: what goes wrong is an outcome.
        """
        prepared, reached = loaded.prepared, loaded.reached
        if (not_tried := skipped(prepared)) is not None:
            return not_tried
        assert prepared is not None  # noqa: S101 - `skipped` said so
        message = message_of(
            claim.id,
            prepared.content,
            category=prepared.row["category"],
            priority=prepared.row["priority"],
            left_s=claim.left_s,
        )
        parts = await asyncio.gather(*(self._push(device, message) for device in reached.devices))
        gone = [
            device
            for device, part in zip(reached.devices, parts, strict=True)
            if part.outcome.kind == "gone"
        ]
        if parts:
            try:
                await self._notes.ask(Tried(claim, parts, gone))
            except UnavailableError:
                # The next try may tell a device again, which knows it by its id.
                log.warning("push_parts_unnoted", delivery_id=str(claim.id))
        return summed_up(parts, is_partly_done=reached.is_partly_done)

    async def _push(self, device: Device, message: PushMessage) -> Part:
        try:
            subscription = self._opened(device)
        except (UnreadableSecretError, ValueError):
            outcome = PushOutcome(kind="rejected", error="subscription_unreadable")
            return Part(device_id=device.id, outcome=outcome)
        origin = urlsplit(subscription.endpoint).netloc
        rest_s = self._rests.left_s(origin, time.monotonic())
        if rest_s:
            outcome = PushOutcome(kind="throttled", error=RESTING, retry_after_s=rest_s)
            return Part(device_id=device.id, outcome=outcome, is_tried=False)
        assert self._vapid is not None  # noqa: S101 - `load` has read it
        began = time.monotonic()
        outcome = await self._service.send(self._vapid, subscription, message)
        ended = time.monotonic()
        self._rests.heard(origin, outcome, ended)
        return Part(device_id=device.id, outcome=outcome, latency_ms=int((ended - began) * 1000))

    def _opened(self, device: Device) -> Subscription:
        content = self._box.open(device.sealed, bound_to=place(device.client_id, device.id))
        subscription = orjson.loads(content)["subscription"]
        return Subscription(
            subscription["endpoint"],
            bytes_of(subscription["keys"]["p256dh"]),
            bytes_of(subscription["keys"]["auth"]),
        )
