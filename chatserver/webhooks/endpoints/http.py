"""REST: webhook endpoints."""

from typing import Final

from chatserver.deliveries.errors import DeliveryCursorInvalidError, DeliveryUnsettledError
from chatserver.deliveries.events import DELIVERY_FAILED, FailedData
from chatserver.deliveries.schemas import DeliveryPage
from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Empty
from chatserver.providers.events import SUMMARIES as PROVIDER_FACTS
from chatserver.providers.events import ProviderData
from chatserver.transport.registry import MASTER, FactSpec, Route, operation
from chatserver.webhooks.endpoints.errors import (
    EndpointDisabledError,
    EndpointLimitError,
    EndpointNotFoundError,
    EventsTruncatedError,
    SecretLimitError,
    WebhookEventNotFoundError,
)
from chatserver.webhooks.endpoints.replays import Replays
from chatserver.webhooks.endpoints.schemas import (
    ENDPOINT_FACTS,
    CreatedEndpoint,
    CreateEndpoint,
    EndpointData,
    EndpointEvents,
    EndpointOut,
    EndpointRef,
    ListDeliveries,
    ListEndpointEvents,
    ListEndpoints,
    Replayed,
    ReplayEvents,
    RotatedSecret,
    RotateSecret,
    Tested,
    UpdateEndpoint,
)
from chatserver.webhooks.endpoints.sender import FactReader
from chatserver.webhooks.endpoints.service import EndpointService

# One poll looks at so many events at most; `last_seq` says how far it came.
SCAN: Final = 2000
_SUMMARIES: Final = {
    "endpoint.degraded": "A webhook endpoint failed several times in a row.",
    "endpoint.paused": "A webhook endpoint fails: its events gather, and one at a time probes it.",
    "endpoint.resumed": "A paused webhook endpoint answers again: what has gathered is sent.",
    "endpoint.disabling": "A webhook endpoint failed for four days; in one more it is disabled.",
    "endpoint.disabled": "A webhook endpoint was disabled: nothing is sent there any more.",
}
FACTS: Final = (
    # No namespace: applications hear of it at another endpoint.
    *(
        FactSpec(name, (), EndpointData, sequenced=False, summary=_SUMMARIES[name])
        for name in ENDPOINT_FACTS
    ),
    *(
        FactSpec(name, (), ProviderData, sequenced=False, summary=summary)
        for name, summary in PROVIDER_FACTS.items()
    ),
    FactSpec(
        DELIVERY_FAILED,
        (),
        FailedData,
        sequenced=False,
        summary="Notifications were lost: all of some minutes at once.",
    ),
)


class EndpointsHttp:
    def __init__(
        self, endpoints: Open[EndpointService], replays: Open[Replays], reader: FactReader
    ) -> None:
        self._endpoints = endpoints
        self._replays = replays
        self._reader = reader

    @operation(
        "endpoint.create",
        CreateEndpoint,
        CreatedEndpoint,
        callers=MASTER,
        errors=(EndpointLimitError,),
    )
    async def create(self, principal: Principal, command: CreateEndpoint) -> CreatedEndpoint:
        """Add a webhook endpoint. The answer shows its secret once.

        Every fact it wants that is committed after this answer is posted to it, signed as Standard
        Webhooks has it, until it answers 2xx: up to 13 tries in 75 hours. Until the first 2xx it
        gets one request at a time.
        """
        async with self._endpoints() as endpoints:
            return await endpoints.create(principal, command)

    @operation("endpoint.list", ListEndpoints, Page[EndpointOut], callers=MASTER)
    async def list(self, principal: Principal, command: ListEndpoints) -> Page[EndpointOut]:
        """List the webhook endpoints, the oldest first."""
        async with self._endpoints() as endpoints:
            return await endpoints.list(principal, command)

    @operation(
        "endpoint.get", EndpointRef, EndpointOut, callers=MASTER, errors=(EndpointNotFoundError,)
    )
    async def get(self, principal: Principal, command: EndpointRef) -> EndpointOut:
        """Read a webhook endpoint and how it is."""
        async with self._endpoints() as endpoints:
            return await endpoints.get(principal, command)

    @operation(
        "endpoint.update",
        UpdateEndpoint,
        EndpointOut,
        callers=MASTER,
        errors=(EndpointNotFoundError, EndpointLimitError),
    )
    async def update(self, principal: Principal, command: UpdateEndpoint) -> EndpointOut:
        """Change a webhook endpoint; `enabled: true` ends a pause, or enables a disabled one."""
        async with self._endpoints() as endpoints:
            return await endpoints.update(principal, command)

    @operation(
        "endpoint.delete", EndpointRef, Empty, callers=MASTER, errors=(EndpointNotFoundError,)
    )
    async def delete(self, principal: Principal, command: EndpointRef) -> Empty:
        """Delete a webhook endpoint; what still waits for it is cancelled."""
        async with self._endpoints() as endpoints:
            await endpoints.delete(principal, command)
        return Empty()

    @operation(
        "endpoint.rotate_secret",
        RotateSecret,
        RotatedSecret,
        callers=MASTER,
        errors=(EndpointNotFoundError, SecretLimitError),
    )
    async def rotate(self, principal: Principal, command: RotateSecret) -> RotatedSecret:
        """Give a webhook endpoint a new secret, shown this once.

        For `overlap_s` (a day, unless you say otherwise) requests carry a signature by each secret:
        put the new one into your receiver in that time.
        """
        async with self._endpoints() as endpoints:
            return await endpoints.rotate(principal, command)

    @operation(
        "endpoint.test",
        EndpointRef,
        Tested,
        callers=MASTER,
        errors=(EndpointNotFoundError, EndpointDisabledError),
    )
    async def test(self, principal: Principal, command: EndpointRef) -> Tested:
        """Send an `endpoint.test` event to this endpoint; its delivery shows how that went."""
        async with self._replays() as replays:
            return await replays.test(principal, command)

    @operation(
        "endpoint.replay",
        ReplayEvents,
        Replayed,
        callers=MASTER,
        errors=(
            EndpointNotFoundError,
            EndpointDisabledError,
            WebhookEventNotFoundError,
            DeliveryUnsettledError,
        ),
    )
    async def replay(self, principal: Principal, command: ReplayEvents) -> Replayed:
        """Send events again: one, all since a time or a number, or only what has not arrived.

        They keep their ids, so that a receiver that has seen one already can tell.
        """
        async with self._replays() as replays:
            return await replays.replay(principal, command)

    @operation(
        "endpoint.deliveries",
        ListDeliveries,
        DeliveryPage,
        callers=MASTER,
        errors=(EndpointNotFoundError, DeliveryCursorInvalidError),
    )
    async def deliveries(self, principal: Principal, command: ListDeliveries) -> DeliveryPage:
        """List what was sent to an endpoint, the newest first."""
        async with self._endpoints() as endpoints:
            return await endpoints.deliveries(principal, command)

    @operation(
        "endpoint.events",
        ListEndpointEvents,
        EndpointEvents,
        callers=MASTER,
        errors=(EndpointNotFoundError, EventsTruncatedError),
    )
    async def events(self, principal: Principal, command: ListEndpointEvents) -> EndpointEvents:
        """Poll what an endpoint is told, instead of being told: facts after `after_seq`, in order.

        Numbers have no gaps and are visible in their order, so nothing is missed that way.
        """
        async with self._replays() as replays:
            found, last_seq, complete = await replays.wanted(
                principal.client_id,
                command.id,
                after=command.after_seq,
                limit=command.limit,
                scan=SCAN,
            )
            events = [event.model_dump() for event in found]
        facts = await self._reader.read(events)
        numbered = [
            {**fact, "event_seq": event["seq"]} for fact, event in zip(facts, events, strict=True)
        ]
        return EndpointEvents(events=numbered, last_seq=last_seq, complete=complete)


_ONE: Final = "/webhooks/endpoints/{id}"
ROUTES: Final = (
    Route(method="POST", path="/webhooks/endpoints", operation="endpoint.create", status=201),
    Route(method="GET", path="/webhooks/endpoints", operation="endpoint.list"),
    Route(method="GET", path=_ONE, operation="endpoint.get"),
    Route(method="PATCH", path=_ONE, operation="endpoint.update"),
    Route(method="DELETE", path=_ONE, operation="endpoint.delete", status=204),
    Route(method="POST", path=_ONE + "/rotate-secret", operation="endpoint.rotate_secret"),
    Route(method="POST", path=_ONE + "/test", operation="endpoint.test", status=202),
    Route(method="POST", path=_ONE + "/replay", operation="endpoint.replay", status=202),
    Route(method="GET", path=_ONE + "/deliveries", operation="endpoint.deliveries"),
    Route(method="GET", path=_ONE + "/events", operation="endpoint.events"),
)
