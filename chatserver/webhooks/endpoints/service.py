"""Endpoints: where a client's facts are sent, with which secrets, and what it can do about them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from chatserver.deliveries.models import Target
from chatserver.deliveries.schemas import DeliveryPage
from chatserver.deliveries.service import DeliveryService
from chatserver.deliveries.targets import TargetService
from chatserver.infra.addresses import AddressRefusedError
from chatserver.infra.secrets import SecretBox
from chatserver.infra.standard_webhooks import new_secret
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.errors import PayloadInvalidError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.webhooks.endpoints.errors import (
    EndpointLimitError,
    EndpointNotFoundError,
    SecretLimitError,
)
from chatserver.webhooks.endpoints.events import endpoint_fact
from chatserver.webhooks.endpoints.models import (
    CHANNEL,
    Endpoint,
    EndpointSecret,
    secret_place,
)
from chatserver.webhooks.endpoints.policies import (
    MOST_SECRETS,
    followed,
)
from chatserver.webhooks.endpoints.repository import EndpointRepository
from chatserver.webhooks.endpoints.schemas import (
    CreatedEndpoint,
    CreateEndpoint,
    EndpointHealth,
    EndpointOut,
    EndpointRef,
    ListDeliveries,
    ListEndpoints,
    RotatedSecret,
    RotateSecret,
    UpdateEndpoint,
)


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """How many endpoints a client may have, on one host too, and what each gets at first."""

    per_client: int
    per_host: int
    concurrency: int


class EndpointService:
    """`check_url` raises `AddressRefusedError` for what the server does not go to."""

    def __init__(
        self,
        *,
        endpoints: EndpointRepository,
        deliveries: DeliveryService,
        targets: TargetService,
        box: SecretBox,
        recorder: Recorder,
        check_url: Callable[[str], Awaitable[None]],
        limits: EndpointLimits,
    ) -> None:
        self._endpoints = endpoints
        self._deliveries = deliveries
        self._targets = targets
        self._box = box
        self._recorder = recorder
        self._check_url = check_url
        self._limits = limits

    async def create(self, principal: Principal, command: CreateEndpoint) -> CreatedEndpoint:
        """Make an endpoint; every fact that is committed after this one reaches it.

        Raises:
            PayloadInvalidError: the server does not go to this URL.
            EndpointLimitError: the client has enough of them, or of this host.
        """
        await self._check(command.url)
        client_id = principal.client_id
        await self._endpoints.lock_client(client_id)
        await self._have_room(client_id, command.url)
        endpoint = Endpoint(
            id=uuid7(),
            client_id=client_id,
            url=command.url,
            description=command.description,
            events=command.events,
            room_ids=command.room_ids,
            room_types=None if command.room_types is None else [*command.room_types],
            bot_ids=command.bot_ids,
            from_seq=await self._endpoints.last_seq(client_id),
        )
        self._targets.add(
            Target(
                id=endpoint.id,
                client_id=client_id,
                channel=CHANNEL,
                concurrency=command.concurrency or self._limits.concurrency,
                rate_per_s=command.rate_per_s,
                tokens=command.rate_per_s or 0.0,
            )
        )
        secret, row = self._secret(endpoint)
        await self._endpoints.add(endpoint, row)
        await self._follow(client_id)
        self._audit(principal, "create", endpoint, host=_host(endpoint.url))
        shown = await self._shown(endpoint)
        return CreatedEndpoint(**shown.model_dump(), secret=secret)

    async def get(self, principal: Principal, command: EndpointRef) -> EndpointOut:
        """Show an endpoint and how it is.

        Raises:
            EndpointNotFoundError: there is none of the client.
        """
        return await self._shown(await self.must(principal.client_id, command.id))

    async def list(self, principal: Principal, command: ListEndpoints) -> Page[EndpointOut]:
        found = await self._endpoints.page(principal.client_id, command)
        targets = await self._targets.find(principal.client_id, [it.id for it in found])
        items = [endpoint_out(each, targets[each.id]) for each in found]
        return Page.of(items, command, await self._endpoints.count(principal.client_id))

    async def update(self, principal: Principal, command: UpdateEndpoint) -> EndpointOut:
        """Change what is named.

        Raises:
            EndpointNotFoundError: there is none of the client.
            PayloadInvalidError: the server does not go to the new URL.
            EndpointLimitError: there are enough of the new URL's host.
        """
        if command.url is not None:
            await self._check(command.url)
        client_id = principal.client_id
        await self._endpoints.lock_client(client_id)
        endpoint = await self.must(client_id, command.id)
        is_moved = command.url is not None and command.url != endpoint.url
        if command.url is not None and _host(command.url) != _host(endpoint.url):
            await self._have_room(client_id, command.url)
        given = command.model_fields_set
        columns = {"url", "events", "room_ids", "room_types", "bot_ids", "description"} & given
        values: dict[str, Any] = {name: getattr(command, name) for name in columns}
        if values:
            endpoint = await self._endpoints.update(endpoint, values)
            await self._follow(client_id)
        if given & {"rate_per_s", "concurrency"}:
            await self._limit(endpoint, command)
        if command.enabled or is_moved:
            # Another place has to show itself what it can take.
            await self._targets.heal(client_id, CHANNEL, endpoint.id, is_new=is_moved)
        self._audit(principal, "update", endpoint, changed=sorted(given - {"id"}))
        return await self._shown(endpoint)

    async def delete(self, principal: Principal, command: EndpointRef) -> None:
        """Send nothing there any more. What waits is cancelled.

        Raises:
            EndpointNotFoundError: there is none of the client.
        """
        client_id = principal.client_id
        await self._endpoints.lock_client(client_id)
        endpoint = await self.must(client_id, command.id)
        await self._endpoints.delete(endpoint)
        await self._targets.end(client_id, endpoint.id)
        await self._follow(client_id)
        self._audit(principal, "delete", endpoint)

    async def rotate(self, principal: Principal, command: RotateSecret) -> RotatedSecret:
        """Make a new secret; the older ones sign beside it for the overlap.

        Raises:
            EndpointNotFoundError: there is none of the client.
            SecretLimitError: ten are live already.
        """
        endpoint = await self.must(principal.client_id, command.id)
        await self._endpoints.lock_client(principal.client_id)
        ends_at = await self._endpoints.end_secrets(endpoint.id, command.overlap_s)
        if await self._endpoints.live_secrets(endpoint.id) >= MOST_SECRETS:
            raise SecretLimitError
        secret, row = self._secret(endpoint)
        await self._endpoints.add_secret(row)
        self._audit(principal, "rotate_secret", endpoint, overlap_s=command.overlap_s)
        return RotatedSecret(id=endpoint.id, secret=secret, previous_expires_at=ends_at)

    async def deliveries(self, principal: Principal, command: ListDeliveries) -> DeliveryPage:
        """Show what was sent there, and how that went.

        Raises:
            EndpointNotFoundError: there is none of the client.
            DeliveryCursorInvalidError: the cursor was made up.
        """
        endpoint = await self.must(principal.client_id, command.id)
        return await self._deliveries.page(
            principal, endpoint.id, state=command.state, cursor=command.cursor, limit=command.limit
        )

    async def announce(
        self, client_id: UUID, endpoint_id: UUID, told: str, *, state: str, reason: str | None
    ) -> None:
        """Tell the client's other endpoints how this one is."""
        endpoint = await self._endpoints.find(client_id, endpoint_id)
        if endpoint is not None:
            self._recorder.record(endpoint_fact(told, endpoint, state=state, reason=reason))

    async def must(self, client_id: UUID, endpoint_id: UUID) -> Endpoint:
        """Find a client's endpoint.

        Raises:
            EndpointNotFoundError: there is none of the client.
        """
        found = await self._endpoints.find(client_id, endpoint_id)
        if found is None:
            raise EndpointNotFoundError
        return found

    async def _check(self, url: str) -> None:
        try:
            await self._check_url(url)
        except AddressRefusedError as error:
            raise PayloadInvalidError.of("url", str(error)) from error

    async def _have_room(self, client_id: UUID, url: str) -> None:
        urls = await self._endpoints.urls(client_id)
        if len(urls) >= self._limits.per_client:
            raise EndpointLimitError(f"A client may have {self._limits.per_client} endpoints.")
        # A thousand endpoints at one victim would be a thousand times the load that one may make.
        if sum(1 for each in urls if _host(each) == _host(url)) >= self._limits.per_host:
            raise EndpointLimitError(f"There may be {self._limits.per_host} endpoints of one host.")

    async def _limit(self, endpoint: Endpoint, command: UpdateEndpoint) -> None:
        target = (await self._targets.find(endpoint.client_id, [endpoint.id]))[endpoint.id]
        given = command.model_fields_set
        await self._targets.limit(
            endpoint.client_id,
            endpoint.id,
            concurrency=command.concurrency or target.concurrency,
            rate_per_s=command.rate_per_s if "rate_per_s" in given else target.rate_per_s,
        )

    async def _follow(self, client_id: UUID) -> None:
        wishes = await self._endpoints.wishes([client_id])
        await self._endpoints.follow(client_id, followed(wishes))

    async def _shown(self, endpoint: Endpoint) -> EndpointOut:
        targets = await self._targets.find(endpoint.client_id, [endpoint.id])
        return endpoint_out(endpoint, targets[endpoint.id])

    def _secret(self, endpoint: Endpoint) -> tuple[str, EndpointSecret]:
        secret, secret_id = new_secret(), uuid7()
        bound_to = secret_place(endpoint.client_id, endpoint.id, secret_id)
        return secret, EndpointSecret(
            id=secret_id,
            client_id=endpoint.client_id,
            endpoint_id=endpoint.id,
            sealed=self._box.seal(secret.encode(), bound_to=bound_to),
        )

    def _audit(
        self,
        principal: Principal,
        action: str,
        endpoint: Endpoint,
        **details: Any,  # noqa: ANN401 - JSON
    ) -> None:
        self._recorder.audit(
            endpoint.client_id,
            principal,
            f"endpoint.{action}",
            f"endpoint:{endpoint.id}",
            **details,
        )


def endpoint_out(endpoint: Endpoint, target: Target) -> EndpointOut:
    return EndpointOut(
        id=endpoint.id,
        url=endpoint.url,
        events=endpoint.events,
        room_ids=endpoint.room_ids,
        room_types=endpoint.room_types,
        bot_ids=endpoint.bot_ids,
        description=endpoint.description,
        rate_per_s=target.rate_per_s,
        concurrency=target.concurrency,
        health=EndpointHealth(
            state=target.state,
            reason=target.reason,
            since=target.since,
            failures=target.failures,
            next_try_at=target.open_until if target.state == "paused" else None,
            draining=target.is_draining,
        ),
        created_at=endpoint.created_at,
        updated_at=endpoint.updated_at,
    )


def _host(url: str) -> str:
    return urlsplit(url).netloc.lower()
