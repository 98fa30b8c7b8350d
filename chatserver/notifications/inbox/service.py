"""A person's notifications inside of the application: kept, shown on every device, answered."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias
from uuid import UUID

from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.notifications.inbox import events
from chatserver.notifications.inbox.models import InAppNotification
from chatserver.notifications.inbox.repository import InboxRepository
from chatserver.notifications.inbox.schemas import (
    Acked,
    NotificationIds,
    NotificationList,
    NotificationOut,
    NotificationPage,
    Read,
    ReadAll,
    SocketContent,
)

# Of more at once devices are told "all until", not which.
MOST_NAMED: Final = 100
Told: TypeAlias = Callable[[UUID, Sequence[UUID]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A delivery that goes into somebody's inbox."""

    user_id: UUID
    delivery_id: UUID
    category: str
    content: SocketContent


class InboxService:
    """`acked` is told, in the same transaction, which deliveries a device has received."""

    def __init__(
        self, *, inbox: InboxRepository, recorder: Recorder, acked: Told | None = None
    ) -> None:
        self._inbox = inbox
        self._recorder = recorder
        self._acked = acked

    async def put_all(self, client_id: UUID, items: Sequence[Item]) -> None:
        """Keep notifications and show each on every device of its person.

        What a delivery put here before is neither kept nor shown again.
        """
        if not items:
            return
        kept = await self._inbox.add([_row(client_id, item) for item in items])
        for each in kept:
            self._recorder.record(events.created(client_id, each.user_id, shown(each)))
        await self._tell_unread(client_id, list(dict.fromkeys(each.user_id for each in kept)))

    async def put(
        self,
        client_id: UUID,
        user_id: UUID,
        *,
        delivery_id: UUID,
        category: str,
        content: SocketContent,
    ) -> None:
        """Keep one notification; see `put_all`."""
        item = Item(user_id=user_id, delivery_id=delivery_id, category=category, content=content)
        await self.put_all(client_id, [item])

    async def page(self, principal: Principal, command: NotificationList) -> NotificationPage:
        found = await self._inbox.page(
            principal.user_id,
            before=command.cursor,
            unread_only=command.unread_only,
            limit=command.limit + 1,
        )
        items = [shown(each) for each in found[: command.limit]]
        has_more = len(found) > command.limit
        return NotificationPage(
            items=items,
            next_cursor=str(items[-1].id) if has_more else None,
            unread=await self._unread(principal.user_id),
        )

    async def ack(self, principal: Principal, command: NotificationIds) -> Acked:
        """Note that a device has received notifications: only then they are delivered."""
        deliveries = await self._inbox.ack(principal.user_id, command.ids)
        await self._tell_acked(principal, deliveries)
        return Acked(acked=len(deliveries))

    async def read(self, principal: Principal, command: NotificationIds) -> Read:
        """Mark notifications as read, on every device of the person."""
        marked = await self._inbox.read(principal.user_id, command.ids)
        return await self._told(principal, marked, up_to=None)

    async def read_all(self, principal: Principal, command: ReadAll) -> Read:
        """Mark everything as read, or everything until `up_to`."""
        marked = await self._inbox.read_all(principal.user_id, command.up_to)
        return await self._told(principal, marked, up_to=command.up_to)

    async def _told(
        self, principal: Principal, marked: Mapping[UUID, UUID], *, up_to: UUID | None
    ) -> Read:
        client_id, user_id = principal.client_id, principal.user_id
        if not marked:
            return Read(read=0, unread=await self._unread(user_id))
        # Who has read it has it.
        await self._tell_acked(principal, list(marked.values()))
        named = sorted(marked) if len(marked) <= MOST_NAMED else None
        at = await self._inbox.now()
        self._recorder.record(events.read(client_id, user_id, ids=named, up_to=up_to, at=at))
        left = await self._tell_unread(client_id, [user_id])
        return Read(read=len(marked), unread=left[user_id])

    async def _tell_acked(self, principal: Principal, deliveries: Sequence[UUID]) -> None:
        if deliveries and self._acked is not None:
            await self._acked(principal.client_id, deliveries)

    async def _tell_unread(self, client_id: UUID, user_ids: Sequence[UUID]) -> dict[UUID, int]:
        counts = await self._inbox.unread(user_ids)
        for user_id, count in counts.items():
            self._recorder.record(events.unread(client_id, user_id, count))
        return counts

    async def _unread(self, user_id: UUID) -> int:
        return (await self._inbox.unread([user_id]))[user_id]


def _row(client_id: UUID, item: Item) -> InAppNotification:
    return InAppNotification(
        id=uuid7(),
        client_id=client_id,
        user_id=item.user_id,
        delivery_id=item.delivery_id,
        category=item.category,
        title=item.content.title,
        body=item.content.body,
        data=item.content.data,
    )


def shown(notification: InAppNotification) -> NotificationOut:
    return NotificationOut(
        id=notification.id,
        category=notification.category,
        title=notification.title,
        body=notification.body,
        data=notification.data,
        created_at=notification.created_at,
        read_at=notification.read_at,
    )
