"""What an endpoint's own condition is announced with: to the client's other endpoints."""

from uuid import UUID

from chatserver.kernel.events import SYSTEM, Fact
from chatserver.webhooks.endpoints.models import Endpoint
from chatserver.webhooks.endpoints.schemas import EndpointData


def endpoint_fact(told: str, endpoint: Endpoint, *, state: str, reason: str | None) -> Fact:
    """Announce `degraded`, `paused`, `resumed`, `disabling` or `disabled`."""
    return Fact(
        type=f"endpoint.{told}",
        client_id=endpoint.client_id,
        room_id=None,
        actor=SYSTEM,
        data=EndpointData(
            endpoint_id=endpoint.id, url=endpoint.url, state=state, reason=reason
        ).model_dump(mode="json"),
        # Nobody's socket: an application hears of it at another endpoint.
        sequenced=False,
    )


def sample(endpoint_id: UUID) -> dict[str, str]:
    """Give what a test event says."""
    return {"endpoint_id": str(endpoint_id), "message": "This is a test. Answer it with 2xx."}
