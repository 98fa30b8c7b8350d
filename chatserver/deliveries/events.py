"""What a client's endpoints hear of its lost deliveries: all of some minutes in one fact."""

from typing import Final
from uuid import UUID

from chatserver.kernel.events import SYSTEM, Fact
from chatserver.kernel.wire import Answer, Id, Timestamp

DELIVERY_FAILED: Final = "delivery.failed"


class LostOut(Answer):
    """How many ended in one way, and some of them. `provider_id`: null where none is concerned."""

    channel: str
    provider_id: Id | None
    state: str
    reason: str | None
    count: int
    delivery_ids: list[Id]


class FailedData(Answer):
    """What was lost between two times: `failed`, `expired` and `bounced`, the most first.

    Webhook events for endpoints are not in it: `endpoint.*` tells of those.
    """

    since: Timestamp
    until: Timestamp
    count: int
    items: list[LostOut]


def failed(client_id: UUID, data: FailedData) -> Fact:
    return Fact(
        type=DELIVERY_FAILED,
        client_id=client_id,
        room_id=None,
        actor=SYSTEM,
        data=data.model_dump(mode="json"),
        # Nobody's socket: an application hears of it at an endpoint.
        sequenced=False,
    )
