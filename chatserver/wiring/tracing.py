"""What became of a message beyond the sockets: asked of the features that know."""

from typing import Any

from chatserver.chat.traces import Traced
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.opening import Open
from chatserver.notifications.requests.repository import NotificationRepository
from chatserver.webhooks.endpoints.policies import Happened, wants
from chatserver.webhooks.endpoints.repository import EndpointRepository

CREATED = "message.created"


class OnwardLook:
    """See `chat/traces.py`. Each look is a transaction of its own, which changes nothing."""

    def __init__(self, open_work: Open[UnitOfWork]) -> None:
        self._open_work = open_work

    async def webhooks(self, message: Traced) -> list[dict[str, Any]]:
        """Tell for every endpoint of the client what it got of a message, or why it got nothing."""
        happened = Happened(
            type=CREATED,
            room_id=message.room_id,
            room_type=message.room_type,
            actor_type=message.actor_type,
            actor_id=message.actor_id,
        )
        async with self._open_work() as work:
            endpoints = EndpointRepository(work.session)
            rows = await endpoints.traced(message.client_id, message.fact_id)
            wishes = {
                wish.endpoint_id: wish for wish in await endpoints.wishes([message.client_id])
            }
        for row in rows:
            wish = wishes.get(row["endpoint_id"])
            if not row["state"]:
                is_wanted = wish is not None and wants(wish, happened)
                row["state"] = "not_planned" if is_wanted else "not_wanted"
        return rows

    async def notifications(self, message: Traced) -> list[dict[str, Any]]:
        """Give what members were notified of because of a message: inboxes, and deliveries."""
        async with self._open_work() as work:
            return await NotificationRepository(work.session).traced(
                message.client_id,
                message.people,
                message_id=message.message_id,
                room_id=message.room_id,
                seq=message.seq,
                since=message.created_at,
            )
