"""Tells people who are not there of what was said to them: once a room, until they look."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

from chatserver.kernel.ids import uuid7
from chatserver.notifications.absences import policies
from chatserver.notifications.absences.models import Concerned, Taken
from chatserver.notifications.absences.repository import NoticeRepository
from chatserver.notifications.inbox.policies import MESSAGE, worded
from chatserver.notifications.inbox.service import InboxService, MessageItem

# The key of a person's metadata under which the application keeps an e-mail address.
EMAIL: Final = "email"


class Wanting(Protocol):
    """Who wants to be told."""

    async def __call__(self, user_ids: Sequence[UUID], category: str) -> set[UUID]:
        """Give those who want a category inside of the application."""
        ...


class Escalate(Protocol):
    """Sends on other channels, unless an in-app notification is read by then."""

    async def __call__(
        self,
        client_id: UUID,
        recipient: Mapping[str, str],
        *,
        channel: str,
        content: Mapping[str, Any],
        after_s: int,
        unless_read: UUID,
        message_id: UUID,
    ) -> None:
        """Promise a delivery. `unless_read`: the delivery that put it into the inbox."""
        ...


class AbsenceService:
    """Notices of one transaction."""

    def __init__(
        self,
        *,
        notices: NoticeRepository,
        inbox: InboxService,
        wanting: Wanting,
        escalate: Escalate,
    ) -> None:
        self._notices = notices
        self._inbox = inbox
        self._wanting = wanting
        self._escalate = escalate

    async def tell(
        self, taken: Sequence[Taken], concerned: Sequence[Concerned], present: Collection[UUID]
    ) -> int:
        """End notices and tell whoever is concerned and not present; how many were told.

        Whoever seems to be present and has not read it is looked for once more: the connection may
        be dead, and nobody knows yet.
        """
        unread_by_present = {it.notice_id for it in concerned if it.user_id in present}
        again = [it for it in taken if not it.is_second and it.id in unread_by_present]
        names = {it.id for it in again}
        held = await self._notices.look_again(again)
        held |= await self._notices.end([it for it in taken if it.id not in names])
        absent = [it for it in concerned if it.notice_id in held and it.user_id not in present]
        await self._inbox.settle(rooms=sorted({it.room_id for it in taken}))
        wanting = await self._wanting(list({it.user_id for it in absent}), MESSAGE)
        absent = [it for it in absent if it.user_id in wanting]
        for client_id in sorted({it.client_id for it in absent}):
            await self._tell(client_id, [it for it in absent if it.client_id == client_id])
        return len(absent)

    async def _tell(self, client_id: UUID, absent: Sequence[Concerned]) -> None:
        # A second look and a newer notice may concern the same person in the same room.
        newest = {(it.user_id, it.room_id): it for it in sorted(absent, key=_place)}
        kept = await self._inbox.put_messages(client_id, [_item(it) for it in newest.values()])
        for place, it in newest.items():
            delivery_id = kept.get(place)
            # What is unread already has had its turn.
            if delivery_id is not None and it.wish:
                await self._follow(it, delivery_id)

    async def _follow(self, it: Concerned, delivery_id: UUID) -> None:
        title, body = worded(it.room_type, it.title, it.sender_name, it.content)
        values = {
            "room": it.title or it.sender_name or "",
            "room_id": str(it.room_id),
            "sender": it.sender_name or "",
            "count": str(it.count),
        }
        for step in policies.escalations(it.wish, title=title, body=body, values=values):
            recipient = {"user_id": it.external_id}
            if step.channel == "email":
                address = it.details.get(EMAIL)
                if not isinstance(address, str):
                    continue
                recipient["email"] = address
            await self._escalate(
                it.client_id,
                recipient,
                channel=step.channel,
                content=step.content,
                after_s=step.after_s,
                unless_read=delivery_id,
                message_id=it.message_id,
            )


def _place(it: Concerned) -> int:
    return it.upto_seq


def _item(it: Concerned) -> MessageItem:
    title, body = worded(it.room_type, it.title, it.sender_name, it.content)
    return MessageItem(
        user_id=it.user_id,
        room_id=it.room_id,
        message_id=it.message_id,
        upto_seq=it.upto_seq,
        count=it.count,
        why=it.why,
        sender_id=it.sender_id,
        delivery_id=uuid7(),
        title=title,
        body=body,
    )
