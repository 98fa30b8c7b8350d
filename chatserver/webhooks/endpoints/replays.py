"""What an endpoint is told besides: tests, forwards and replays; and what it can ask for itself."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from chatserver.deliveries.models import Planned
from chatserver.deliveries.schemas import DeliveryRef
from chatserver.deliveries.service import DeliveryService
from chatserver.deliveries.targets import TargetService
from chatserver.infra.audit import actor_name
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.webhooks.endpoints.errors import (
    EndpointDisabledError,
    EventsTruncatedError,
    WebhookEventNotFoundError,
)
from chatserver.webhooks.endpoints.events import sample
from chatserver.webhooks.endpoints.models import CHANNEL, Endpoint, Event
from chatserver.webhooks.endpoints.planner import EventPlanner, NewEvent
from chatserver.webhooks.endpoints.policies import TEST, Happened, Wish, wants
from chatserver.webhooks.endpoints.repository import EndpointRepository
from chatserver.webhooks.endpoints.schemas import EndpointRef, Replayed, ReplayEvents, Tested
from chatserver.webhooks.endpoints.service import EndpointService

SLICE: Final = 500


@dataclass(frozen=True, slots=True)
class Replaying:
    """A replay under way: events after `after`, up to `upto`; `by` asked for it, `asked_at`."""

    client_id: UUID
    endpoint_id: UUID
    after: int
    upto: int
    only_lost: bool
    by: str
    asked_at: datetime


class Replays:
    """`later` has a range replayed by a job, which calls `replay_slice` until it is done."""

    def __init__(
        self,
        *,
        service: EndpointService,
        endpoints: EndpointRepository,
        deliveries: DeliveryService,
        targets: TargetService,
        planner: EventPlanner,
        recorder: Recorder,
        later: Callable[[Replaying], Awaitable[None]],
    ) -> None:
        self._service = service
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._targets = targets
        self._planner = planner
        self._recorder = recorder
        self._later = later

    async def test(self, principal: Principal, command: EndpointRef) -> Tested:
        """Send an event `endpoint.test` to this endpoint alone.

        Raises:
            EndpointNotFoundError: there is none of the client.
            EndpointDisabledError: nothing is sent there.
        """
        event_id = uuid7()
        endpoint = await self._service.must(principal.client_id, command.id)
        delivery_id, seq = await self._send_one(
            endpoint, event_id, TEST, sample(endpoint.id), hops=0
        )
        return Tested(delivery_id=delivery_id, event_id=event_id, event_seq=seq)

    async def forward(
        self,
        *,
        client_id: UUID,
        endpoint_id: UUID,
        event_id: UUID,
        type: str,  # noqa: A002 - the event's own word
        data: dict[str, Any],
        hops: int,
    ) -> UUID:
        """Send something to one endpoint whatever it follows; the delivery's id.

        Once for each event and endpoint: a repeat gives the first one's id.

        Raises:
            EndpointNotFoundError: there is none of the client.
            EndpointDisabledError: nothing is sent there.
        """
        endpoint = await self._service.must(client_id, endpoint_id)
        delivery_id, _ = await self._send_one(endpoint, event_id, type, data, hops=hops)
        return delivery_id

    async def replay(self, principal: Principal, command: ReplayEvents) -> Replayed:
        """Send one event again now, or have many sent again soon.

        Raises:
            EndpointNotFoundError: there is none of the client.
            EndpointDisabledError: nothing is sent there.
            WebhookEventNotFoundError: no such event, or this endpoint does not want it.
            DeliveryUnsettledError: the event is still on its way there.
        """
        client_id = principal.client_id
        endpoint = await self._service.must(client_id, command.id)
        await self._must_serve(endpoint)
        if command.event_id is not None:
            return await self._replay_one(principal, endpoint, command.event_id)
        after = endpoint.from_seq if command.after_seq is None else command.after_seq
        if command.since is not None:
            after = await self._endpoints.seq_before(client_id, command.since)
        upto = await self._endpoints.last_seq(client_id)
        await self._later(
            Replaying(
                client_id,
                endpoint.id,
                after,
                upto,
                only_lost=command.missing,
                by=actor_name(principal),
                asked_at=await self._deliveries.now(),
            )
        )
        self._recorder.audit(
            client_id,
            principal,
            "endpoint.replay",
            f"endpoint:{endpoint.id}",
            after_seq=after,
            to_seq=upto,
            missing=command.missing,
        )
        return Replayed(endpoint_id=endpoint.id, after_seq=after, to_seq=upto)

    async def replay_slice(self, replaying: Replaying) -> Replaying | None:
        """Do a slice of a replay in this transaction; what is left, or None when it is done."""
        endpoint = await self._endpoints.find(replaying.client_id, replaying.endpoint_id)
        if endpoint is None:
            return None
        events = await self._endpoints.events(
            replaying.client_id,
            after=replaying.after,
            upto=replaying.upto,
            limit=SLICE,
        )
        if not events:
            return None
        last = events[-1].seq
        await self._deliveries.replay_range(
            replaying.client_id,
            endpoint.id,
            by=replaying.by,
            after=replaying.after,
            upto=last,
            before=replaying.asked_at,
            only_lost=replaying.only_lost,
        )
        wish = await self._wish(endpoint)
        await self._deliveries.plan(
            [_planned(endpoint, event) for event in events if wants(wish, happened(event))],
            channel=CHANNEL,
        )
        return replace(replaying, after=last)

    async def wanted(
        self, client_id: UUID, endpoint_id: UUID, *, after: int, limit: int, scan: int
    ) -> tuple[Sequence[Event], int, bool]:
        """Find events that an endpoint wants: (events, looked at up to, there are no more).

        Raises:
            EndpointNotFoundError: there is none of the client.
            EventsTruncatedError: events after this number are gone.
        """
        endpoint = await self._service.must(client_id, endpoint_id)
        wish = await self._wish(endpoint)
        first = await self._endpoints.first_seq(client_id)
        last = await self._endpoints.last_seq(client_id)
        if first is not None and after + 1 < first and after > 0:
            raise EventsTruncatedError(min_seq=first)
        if first is None and 0 < after < last:
            raise EventsTruncatedError(min_seq=last + 1)
        rows = await self._endpoints.events(client_id, after=after, limit=scan)
        found: list[Event] = []
        for row in rows:
            if wants(wish, happened(row)):
                found.append(row)
                if len(found) == limit:
                    return found, row.seq, row.seq == last
        reached = rows[-1].seq if rows else after
        return found, reached, len(rows) < scan

    async def _replay_one(
        self, principal: Principal, endpoint: Endpoint, event_id: UUID
    ) -> Replayed:
        event = await self._endpoints.event(principal.client_id, event_id)
        if event is None:
            raise WebhookEventNotFoundError
        delivery_id = await self._deliveries.planned(endpoint.id, event.seq)
        if delivery_id is not None:
            await self._deliveries.replay(principal, DeliveryRef(id=delivery_id))
        else:
            if not wants(await self._wish(endpoint), happened(event)):
                raise WebhookEventNotFoundError
            planned = _planned(endpoint, event)
            await self._deliveries.plan([planned], channel=CHANNEL)
            delivery_id = planned.id
        return Replayed(endpoint_id=endpoint.id, delivery_id=delivery_id)

    async def _send_one(
        self,
        endpoint: Endpoint,
        event_id: UUID,
        type: str,  # noqa: A002
        data: dict[str, Any],
        *,
        hops: int,
    ) -> tuple[UUID, int]:
        await self._must_serve(endpoint)
        # The lock on the client's number makes of two at once one after the other.
        await self._endpoints.take_numbers(endpoint.client_id, 0)
        event = await self._endpoints.event(endpoint.client_id, event_id)
        if event is None:
            new = NewEvent(
                id=event_id,
                client_id=endpoint.client_id,
                type=type,
                data=data,
                only_endpoint_id=endpoint.id,
                hops=hops,
            )
            await self._planner.keep([new], {endpoint.client_id: [await self._wish(endpoint)]})
            event = await self._endpoints.event(endpoint.client_id, event_id)
            assert event is not None  # noqa: S101 - kept above
        else:
            await self._deliveries.plan([_planned(endpoint, event)], channel=CHANNEL)
        delivery_id = await self._deliveries.planned(endpoint.id, event.seq)
        assert delivery_id is not None  # noqa: S101 - planned above, or before
        return delivery_id, event.seq

    async def _must_serve(self, endpoint: Endpoint) -> None:
        targets = await self._targets.find(endpoint.client_id, [endpoint.id])
        if targets[endpoint.id].state == "disabled":
            raise EndpointDisabledError

    async def _wish(self, endpoint: Endpoint) -> Wish:
        wishes = await self._endpoints.wishes([endpoint.client_id])
        return next(wish for wish in wishes if wish.endpoint_id == endpoint.id)


def happened(event: Event) -> Happened:
    """Give what a stored event is matched by."""
    is_about_endpoint = event.type.startswith("endpoint.")
    return Happened(
        type=event.type,
        room_id=event.room_id,
        room_type=event.room_type,
        actor_type=event.actor_type,
        actor_id=event.actor_id,
        only_endpoint_id=event.only_endpoint_id,
        about=(event.data or {}).get("endpoint_id") if is_about_endpoint else None,
    )


def _planned(endpoint: Endpoint, event: Event) -> Planned:
    return Planned(
        id=uuid7(),
        client_id=endpoint.client_id,
        target_id=endpoint.id,
        source_id=event.id,
        source_seq=event.seq,
    )
