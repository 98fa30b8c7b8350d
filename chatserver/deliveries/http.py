"""REST: how deliveries stand, whichever channel they are on."""

from collections.abc import Mapping
from typing import Final

from chatserver.deliveries.errors import (
    DeliveryNotFoundError,
    DeliveryNotReplayableError,
    DeliveryUnsettledError,
)
from chatserver.deliveries.many import DeliveryExporter, ManyService
from chatserver.deliveries.models import Attempt, Delivery
from chatserver.deliveries.schemas import (
    Analytics,
    CancelDeliveries,
    DeliveryOut,
    DeliveryPage,
    DeliveryRef,
    Explained,
    ExportDeliveries,
    GetAnalytics,
    GetLedger,
    Ledger,
    ListAllDeliveries,
    ManyDone,
    ReplayDeliveries,
)
from chatserver.deliveries.service import DeliveryService, Headers
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Lines
from chatserver.transport.registry import MASTER, Route, operation


class DeliveriesHttp:
    """`headers` tells by channel what a request's headers were."""

    def __init__(self, deliveries: Open[DeliveryService], headers: Mapping[str, Headers]) -> None:
        self._deliveries = deliveries
        self._headers = headers

    @operation(
        "delivery.get", DeliveryRef, DeliveryOut, callers=MASTER, errors=(DeliveryNotFoundError,)
    )
    async def get(self, principal: Principal, command: DeliveryRef) -> DeliveryOut:
        """Read a delivery with all its attempts.

        Attempts are kept for 30 days: what was sent where, what came back (at most 4 KB), how long
        it took. The body that was sent is not kept; its size and SHA-256 are.
        """
        async with self._deliveries() as deliveries:
            return await deliveries.get(principal, command, self._sent_with)

    @operation(
        "delivery.explain", DeliveryRef, Explained, callers=MASTER, errors=(DeliveryNotFoundError,)
    )
    async def explain(self, principal: Principal, command: DeliveryRef) -> Explained:
        """Say in a sentence how a delivery stands, whose fault it is, and when it is tried next."""
        async with self._deliveries() as deliveries:
            return await deliveries.explain(principal, command)

    @operation(
        "delivery.replay",
        DeliveryRef,
        DeliveryOut,
        callers=MASTER,
        errors=(DeliveryNotFoundError, DeliveryNotReplayableError, DeliveryUnsettledError),
    )
    async def replay(self, principal: Principal, command: DeliveryRef) -> DeliveryOut:
        """Send a delivery again, under its id, delivered or not; one that waits is tried now."""
        async with self._deliveries() as deliveries:
            return await deliveries.replay(principal, command)

    @operation("ledger.get", GetLedger, Ledger, callers=MASTER)
    async def ledger(self, principal: Principal, command: GetLedger) -> Ledger:
        """Show what was promised, channel by channel, and what became of it.

        `accepted` was counted when the deliveries were made, the other numbers are counted now:
        they must balance. Whole days (UTC), at most 31 of them.
        """
        async with self._deliveries() as deliveries:
            return await deliveries.ledger(principal, command)

    def _sent_with(self, attempt: Attempt, delivery: Delivery) -> dict[str, str]:
        headers = self._headers.get(delivery.channel)
        return {} if headers is None else headers(attempt, delivery)


class ManyDeliveriesHttp:
    def __init__(self, many: Open[ManyService], exporter: DeliveryExporter) -> None:
        self._many = many
        self._exporter = exporter

    @operation("delivery.list", ListAllDeliveries, DeliveryPage, callers=MASTER)
    async def list(self, principal: Principal, command: ListAllDeliveries) -> DeliveryPage:
        """List deliveries of every channel that fit a filter, the newest first."""
        async with self._many() as many:
            return await many.page(principal, command)

    @operation("delivery.export", ExportDeliveries, Lines, callers=MASTER)
    async def export(self, principal: Principal, command: ExportDeliveries) -> Lines:
        """Read deliveries out that fit a filter, the oldest first.

        One JSON object a line, or with `format=csv` a table with the same members.
        """
        return await self._exporter.export(principal, command)

    @operation("delivery.cancel_many", CancelDeliveries, ManyDone, callers=MASTER)
    async def cancel(self, principal: Principal, command: CancelDeliveries) -> ManyDone:
        """Cancel the deliveries that fit a filter and were not sent yet, up to 1,000 at a time."""
        async with self._many() as many:
            return await many.cancel(principal, command)

    @operation("delivery.replay_many", ReplayDeliveries, ManyDone, callers=MASTER)
    async def replay(self, principal: Principal, command: ReplayDeliveries) -> ManyDone:
        """Send the deliveries again that fit a filter and have ended, up to 1,000 at a time."""
        async with self._many() as many:
            return await many.replay(principal, command)

    @operation("analytics.get", GetAnalytics, Analytics, callers=MASTER)
    async def analytics(self, principal: Principal, command: GetAnalytics) -> Analytics:
        """Count deliveries by day, channel and provider, with rates and how long they took."""
        async with self._many() as many:
            return await many.analytics(principal, command)


ROUTES: Final = (
    Route(method="GET", path="/deliveries/{id}", operation="delivery.get"),
    Route(method="GET", path="/deliveries/{id}/explain", operation="delivery.explain"),
    Route(method="POST", path="/deliveries/{id}/replay", operation="delivery.replay", status=202),
    Route(method="GET", path="/ledger", operation="ledger.get"),
)
MANY_ROUTES: Final = (
    Route(method="GET", path="/deliveries", operation="delivery.list"),
    Route(method="GET", path="/deliveries/export", operation="delivery.export"),
    Route(method="POST", path="/deliveries/cancel", operation="delivery.cancel_many"),
    Route(method="POST", path="/deliveries/replay", operation="delivery.replay_many", status=202),
    Route(method="GET", path="/analytics", operation="analytics.get"),
)
