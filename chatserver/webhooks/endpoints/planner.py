"""From facts to events and deliveries, in the transaction that takes the facts from the outbox.

So each fact becomes one event with one number, and each endpoint that wants it gets one delivery:
if that transaction is undone, the facts are in the outbox again.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from chatserver.deliveries.models import Planned
from chatserver.deliveries.service import DeliveryService
from chatserver.infra.outbox import OutboxRow
from chatserver.kernel.ids import uuid7
from chatserver.webhooks.endpoints.models import CHANNEL
from chatserver.webhooks.endpoints.policies import (
    PRIVATE_UNLESS_LOGGED,
    Happened,
    Wish,
    wants,
)
from chatserver.webhooks.endpoints.repository import EndpointRepository
from chatserver.webhooks.endpoints.schemas import FACT_TYPES


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """Something that happened, before it has its number."""

    id: UUID
    client_id: UUID
    type: str
    room_id: UUID | None = None
    room_type: str | None = None
    room_seq: int | None = None
    actor_type: str = "system"
    actor_id: str | None = None
    data: dict[str, Any] | None = None
    only_endpoint_id: UUID | None = None
    hops: int = 0
    created_at: datetime | None = None

    def happened(self) -> Happened:
        about = (self.data or {}).get("endpoint_id") if self.type.startswith("endpoint.") else None
        return Happened(
            type=self.type,
            room_id=self.room_id,
            room_type=self.room_type,
            actor_type=self.actor_type,
            actor_id=self.actor_id,
            only_endpoint_id=self.only_endpoint_id,
            about=about,
        )


class EventPlanner:
    def __init__(self, *, endpoints: EndpointRepository, deliveries: DeliveryService) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries

    async def plan(self, rows: Sequence[OutboxRow]) -> int:
        """Make events and deliveries of facts that somebody wants; how many deliveries."""
        rows = [row for row in rows if _concerns(row)]
        if not rows:
            return 0
        wishes = _by_client(await self._endpoints.wishes({row.client_id for row in rows}))
        if not wishes:
            return 0
        rooms = {row.room_id for row in rows if row.room_id and row.client_id in wishes}
        types = await self._endpoints.room_types(rooms)
        events = [
            _event(row, types.get(row.room_id) if row.room_id else None)
            for row in rows
            if row.client_id in wishes
        ]
        return await self.keep(events, wishes)

    async def keep(self, events: Sequence[NewEvent], wishes: dict[UUID, list[Wish]]) -> int:
        """Number what somebody wants, and make its deliveries; how many."""
        wanted: dict[UUID, list[tuple[NewEvent, list[Wish]]]] = defaultdict(list)
        for event in events:
            happened = event.happened()
            whose = [wish for wish in wishes.get(event.client_id, ()) if wants(wish, happened)]
            if whose:
                wanted[event.client_id].append((event, whose))
        kept: list[dict[str, Any]] = []
        planned: list[Planned] = []
        # In this order everywhere: two workers with the same clients don't wait in a circle.
        for client_id in sorted(wanted):
            batch = wanted[client_id]
            last = await self._endpoints.take_numbers(client_id, len(batch))
            for seq, (event, whose) in enumerate(batch, start=last - len(batch) + 1):
                kept.append(_columns(event, seq))
                planned += [
                    Planned(
                        id=uuid7(),
                        client_id=client_id,
                        target_id=wish.endpoint_id,
                        source_id=event.id,
                        source_seq=seq,
                    )
                    for wish in whose
                    if wish.is_served
                ]
        if kept:
            await self._endpoints.add_events(kept)
        return await self._deliveries.plan(planned, channel=CHANNEL)


def _concerns(row: OutboxRow) -> bool:
    if row.type not in FACT_TYPES:
        return False
    return row.seq is not None or row.type not in PRIVATE_UNLESS_LOGGED


def _by_client(wishes: Sequence[Wish]) -> dict[UUID, list[Wish]]:
    found: dict[UUID, list[Wish]] = defaultdict(list)
    for wish in wishes:
        found[wish.client_id].append(wish)
    return found


def _event(row: OutboxRow, room_type: str | None) -> NewEvent:
    return NewEvent(
        id=row.fact_id,
        client_id=row.client_id,
        type=row.type,
        room_id=row.room_id,
        room_type=room_type,
        room_seq=row.seq,
        actor_type=row.actor_type,
        actor_id=row.actor_id,
        # What is in the log is read from there: what is erased there is erased here.
        data=None if row.seq is not None else row.data,
        created_at=row.created_at,
    )


def _columns(event: NewEvent, seq: int) -> dict[str, Any]:
    return {
        "client_id": str(event.client_id),
        "seq": seq,
        "id": str(event.id),
        "type": event.type,
        "room_id": None if event.room_id is None else str(event.room_id),
        "room_type": event.room_type,
        "room_seq": event.room_seq,
        "actor_type": event.actor_type,
        "actor_id": event.actor_id,
        "data": event.data,
        "only_endpoint_id": None if event.only_endpoint_id is None else str(event.only_endpoint_id),
        "hops": event.hops,
        "created_at": None if event.created_at is None else event.created_at.isoformat(),
    }
