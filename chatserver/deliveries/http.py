"""REST: how deliveries stand, whichever channel they are on."""

from collections.abc import Mapping
from typing import Final

from chatserver.deliveries.errors import DeliveryNotFoundError, DeliveryUnsettledError
from chatserver.deliveries.models import Attempt, Delivery
from chatserver.deliveries.schemas import DeliveryOut, DeliveryRef, Explained, GetLedger, Ledger
from chatserver.deliveries.service import DeliveryService, Headers
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal
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
        errors=(DeliveryNotFoundError, DeliveryUnsettledError),
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


ROUTES: Final = (
    Route(method="GET", path="/deliveries/{id}", operation="delivery.get"),
    Route(method="GET", path="/deliveries/{id}/explain", operation="delivery.explain"),
    Route(method="POST", path="/deliveries/{id}/replay", operation="delivery.replay", status=202),
    Route(method="GET", path="/ledger", operation="ledger.get"),
)
