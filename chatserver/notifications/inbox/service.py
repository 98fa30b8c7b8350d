"""A person's notifications inside of the application: kept, shown on every device, answered."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import UUID

from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.notifications.inbox import events
from chatserver.notifications.inbox.models import InAppNotification
from chatserver.notifications.inbox.policies import MESSAGE, worded
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
MOST_COUNTED: Final = 1000
Told: TypeAlias = Callable[[UUID, Sequence[UUID]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A delivery that goes into somebody's inbox."""

    user_id: UUID
    delivery_id: UUID
    category: str
    content: SocketContent


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageItem:
    """What was said to somebody in a room since the last time, and its newest message."""

    user_id: UUID
    room_id: UUID
    message_id: UUID
    upto_seq: int
    count: int
    why: str
    sender_id: str | None
    delivery_id: UUID
    title: str
    body: str | None


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

    async def put_messages(
        self, client_id: UUID, items: Sequence[MessageItem]
    ) -> dict[tuple[UUID, UUID], UUID]:
        """Keep one notification for each person and room; what was unread of it goes into it.

        Gives the deliveries of those that are the first, by person and room. What they say is not
        kept: it is read from the messages, as they are by then.
        """
        if not items:
            return {}
        places = {(item.user_id, item.room_id): item for item in items}
        gone = {(row.user_id, row.room_id): row for row in await self._inbox.take_out(list(places))}
        made = [_of_messages(client_id, it, gone.get(place)) for place, it in places.items()]
        first: dict[tuple[UUID, UUID], UUID] = {}
        for row in await self._inbox.add(made):
            place = (row.user_id, row.room_id or row.id)
            item, old = places[place], gone.get(place)
            told = _shown_messages(row, item.title, item.body, item.sender_id)
            self._recorder.record(
                events.created(
                    client_id, row.user_id, told, replaces=None if old is None else old.id
                )
            )
            if old is None:
                first[place] = row.delivery_id
        await self._tell_unread(client_id, list(dict.fromkeys(it.user_id for it in items)))
        return first

    async def settle(self, *, users: Sequence[UUID] = (), rooms: Sequence[UUID] = ()) -> None:
        """Mark notifications of messages as read that were read in their rooms."""
        rows = await self._inbox.settle(users=users, rooms=rooms)
        if not rows:
            return
        at = await self._inbox.now()
        by_person: dict[tuple[UUID, UUID], list[UUID]] = {}
        for row in rows:
            by_person.setdefault((row.client_id, row.user_id), []).append(row.id)
        for (client_id, user_id), ids in sorted(by_person.items()):
            named = sorted(ids) if len(ids) <= MOST_NAMED else None
            self._recorder.record(events.read(client_id, user_id, ids=named, up_to=None, at=at))
            await self._tell_unread(client_id, [user_id])

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

    async def unread(self, principal: Principal) -> int:
        """Count what the caller has not read, up to 10,000."""
        await self.settle(users=[principal.user_id])
        return await self._unread(principal.user_id)

    async def page(self, principal: Principal, command: NotificationList) -> NotificationPage:
        await self.settle(users=[principal.user_id])
        found = await self._inbox.page(
            principal.user_id,
            before=command.cursor,
            unread_only=command.unread_only,
            limit=command.limit + 1,
        )
        found, has_more = found[: command.limit], len(found) > command.limit
        said = await self._inbox.said(
            principal.user_id, [it.message_id for it in found if it.message_id is not None]
        )
        items = [shown(each, said.get(each.message_id or each.id)) for each in found]
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


def shown(notification: InAppNotification, said: Any = None) -> NotificationOut:  # noqa: ANN401
    """Show one; `said`: what its message says now, if it is about one that may be read."""
    if notification.room_id is not None:
        if said is None:
            return _shown_messages(notification, worded(None, None, None, None)[0], None, None)
        title, body = worded(said.room_type, said.title, said.sender_name, said.content)
        return _shown_messages(notification, title, body, said.sender_id)
    return NotificationOut(
        id=notification.id,
        category=notification.category,
        title=notification.title,
        body=notification.body,
        data=notification.data,
        created_at=notification.created_at,
        read_at=notification.read_at,
    )


def _shown_messages(
    row: InAppNotification, title: str, body: str | None, sender_id: str | None
) -> NotificationOut:
    return NotificationOut(
        id=row.id,
        category=row.category,
        title=title,
        body=body,
        data={
            **row.data,
            "room_id": str(row.room_id),
            "message_id": str(row.message_id),
            "seq": row.upto_seq,
            "sender_id": sender_id,
        },
        created_at=row.created_at,
        read_at=row.read_at,
    )


def _of_messages(client_id: UUID, item: MessageItem, old: Any) -> InAppNotification:  # noqa: ANN401
    before = {} if old is None else old.data
    count = min(item.count + int(before.get("count", 0)), MOST_COUNTED)
    # A mention stays one, whatever is said after it.
    why = "mention" if "mention" in (item.why, before.get("why")) else item.why
    return InAppNotification(
        id=uuid7(),
        client_id=client_id,
        user_id=item.user_id,
        delivery_id=item.delivery_id if old is None else old.delivery_id,
        category=MESSAGE,
        title="",
        data={"count": count, "why": why},
        room_id=item.room_id,
        message_id=item.message_id,
        upto_seq=item.upto_seq,
    )
