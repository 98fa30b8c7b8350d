"""What one can do with notifications: send, look, cancel. One commit promises every delivery."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson

from chatserver.deliveries.service import DeliveryService
from chatserver.infra import tracing
from chatserver.infra.idempotency import made_before
from chatserver.infra.secrets import SecretBox
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.notifications.requests import policies
from chatserver.notifications.requests.errors import NotificationNotFoundError
from chatserver.notifications.requests.models import (
    Item,
    Notification,
    NotificationContent,
    NotificationFile,
    place_of_address,
    place_of_content,
)
from chatserver.notifications.requests.policies import Draft, sent_of
from chatserver.notifications.requests.ports import Limits, Within
from chatserver.notifications.requests.repository import NotificationRepository
from chatserver.notifications.requests.schemas import (
    MOST_RECIPIENTS,
    Cancelled,
    ListNotificationDeliveries,
    ListNotifications,
    NotificationDeliveries,
    NotificationDeliveryOut,
    NotificationOut,
    NotificationRef,
    SendNotification,
    SentNotification,
)

# Every recipient on every channel.
MOST_DELIVERIES: Final = 5 * MOST_RECIPIENTS
NAMES = {number: name for name, number in policies.PRIORITIES.items()}


def purged_at(expires_at: datetime) -> datetime:
    """Give when what was said is deleted: a day after it may last be sent."""
    return expires_at + timedelta(days=1)


class NotificationService:
    """Notifications of one transaction."""

    def __init__(
        self,
        *,
        notifications: NotificationRepository,
        deliveries: DeliveryService,
        within: Within,
        limits: Limits,
        box: SecretBox,
        recorder: Recorder,
        wake: Callable[[], None],
    ) -> None:
        self._notifications = notifications
        self._deliveries = deliveries
        self._within = within
        self._limits = limits
        self._box = box
        self._recorder = recorder
        self._wake = wake

    async def send(
        self,
        principal: Principal,
        command: SendNotification,
        *,
        unless_read: UUID | None = None,
    ) -> SentNotification:
        """Promise a notification's deliveries; what can't be is told with the answer.

        `unless_read`: a delivery into an inbox; who has read it by then needs nothing more.

        Raises:
            PayloadInvalidError: the times don't fit, or more is attached than a mail may carry.
            FileNotFoundInStoreError, FileNotReadyError: a file can't be attached.
            UserNotFoundError: a recipient of the inbox is unknown; nothing is kept.
            QuotaExceededError: the client has used up what it may send.
        """
        client_id = principal.client_id
        if (made := made_before()) is not None:
            return await self._as_sent(await self._must(principal, made))
        now = await self._notifications.now()
        expires_at = policies.deadline_of(command, now)
        attached = await self._attached(command, client_id, purged_at(expires_at))
        drafts = policies.plan(
            command,
            client_id=client_id,
            now=now,
            routes=await self._notifications.routes(
                client_id, may_probe=command.priority != "critical"
            ),
            devices=await self._devices_of(command, client_id),
        )
        await self._bar(command, client_id, drafts)
        if unless_read is not None:
            policies.let_wait(drafts, unless_read)
        notification = Notification(
            id=uuid7(),
            client_id=client_id,
            category=command.category,
            priority=policies.PRIORITIES[command.priority],
            details=command.metadata,
            scheduled_at=command.scheduled_at,
            expires_at=expires_at,
            traceparent=tracing.current(),
        )
        if command.dry_run:
            limits = await self._limits(client_id, 0)
            return sent_of(notification.id, drafts, limits, expires_at=expires_at, dry_run=True)
        limits = await self._limits(client_id, len(drafts))
        said = {name: content.model_dump() for name, content in command.channels.said().items()}
        at_once = [
            draft
            for draft in drafts
            if draft.channel == policies.SOCKET and draft.state == "queued"
        ]
        await self._within.keep(
            [
                Item(
                    client_id=client_id,
                    external_id=draft.person or "",
                    delivery_id=draft.id,
                    notification_id=notification.id,
                    category=command.category,
                    content=said["socket"],
                )
                for draft in at_once
            ]
        )
        for draft in at_once:
            draft.state, draft.reason = "accepted", None
        await self._keep(notification, drafts, said, attached)
        self._recorder.after_commit(self._wake)
        return sent_of(notification.id, drafts, limits, expires_at=expires_at)

    async def after(self, seconds: float) -> datetime:
        """Tell PostgreSQL's time in so many seconds."""
        return await self._notifications.now() + timedelta(seconds=seconds)

    async def get(self, principal: Principal, command: NotificationRef) -> NotificationOut:
        """Show a notification and how many of its deliveries stand how.

        Raises:
            NotificationNotFoundError
        """
        found = await self._must(principal, command.id)
        return await self._shown(found)

    async def list(self, principal: Principal, command: ListNotifications) -> Page[NotificationOut]:
        rows, counted = await self._notifications.page(
            principal.client_id,
            category=command.category,
            offset=command.offset,
            limit=command.size,
        )
        items = [await self._shown(row) for row in rows]
        return Page[NotificationOut].of(items, command, counted)

    async def deliveries(
        self, principal: Principal, command: ListNotificationDeliveries
    ) -> NotificationDeliveries:
        """Show a notification's deliveries, in the order of its recipients.

        Raises:
            NotificationNotFoundError
        """
        found = await self._must(principal, command.id)
        rows = await self._notifications.deliveries(
            found.id, state=command.state, after=command.cursor, limit=command.limit + 1
        )
        items = [self._delivery_out(found, row) for row in rows[: command.limit]]
        has_more = len(rows) > command.limit
        return NotificationDeliveries(
            items=items, next_cursor=str(items[-1].id) if has_more else None
        )

    async def cancel(self, principal: Principal, command: NotificationRef) -> Cancelled:
        """Cancel what was not sent. What is being sent just now is not stopped.

        Raises:
            NotificationNotFoundError
        """
        found = await self._must(principal, command.id)
        count = await self._notifications.cancel(found.id)
        self._recorder.audit(
            found.client_id,
            principal,
            "notification.cancel",
            f"notification:{found.id}",
            cancelled=count,
        )
        return Cancelled(id=found.id, cancelled=count)

    async def _attached(
        self, command: SendNotification, client_id: UUID, until: datetime
    ) -> Sequence[UUID]:
        """Check what the mails are to carry, and keep it for as long as one may be sent."""
        asked = [] if command.channels.email is None else command.channels.email.attachments
        ids = sorted({each.file_id for each in asked})
        if ids:
            if not command.dry_run:
                # Held first: what is found after that stays until this is committed.
                await self._within.hold_files(client_id, ids, until=until)
            found = await self._within.files(client_id, ids, reader=None)
            policies.check_attachments(asked, found)
        return ids

    async def _devices_of(
        self, command: SendNotification, client_id: UUID
    ) -> Mapping[str, set[str]]:
        if command.channels.push is None:
            return {}
        people = {it.user_id for it in command.recipients if it.user_id is not None}
        return await self._within.devices(client_id, sorted(people))

    async def _bar(
        self, command: SendNotification, client_id: UUID, drafts: Sequence[Draft]
    ) -> None:
        open_drafts = [draft for draft in drafts if not draft.is_settled]
        reasons = await self._within.barred(
            client_id,
            [
                (
                    policies.SHOWN.get(draft.channel, draft.channel),
                    draft.person,
                    None if draft.channel in policies.BY_NAME else draft.address,
                )
                for draft in open_drafts
            ],
            category=command.category,
            priority=command.priority,
        )
        for draft, reason in zip(open_drafts, reasons, strict=True):
            if reason is not None:
                draft.state, draft.reason = "suppressed", reason

    async def _keep(
        self,
        notification: Notification,
        drafts: Sequence[Draft],
        said: Mapping[str, Mapping[str, Any]],
        attached: Sequence[UUID],
    ) -> None:
        client_id = notification.client_id
        purge_at = purged_at(notification.expires_at)
        contents = [
            NotificationContent(
                notification_id=notification.id,
                channel=policies.FORWARD if name == "webhook" else name,
                client_id=client_id,
                sealed=self._box.seal(
                    orjson.dumps(content), bound_to=place_of_content(client_id, notification.id)
                ),
                purge_at=purge_at,
            )
            for name, content in said.items()
        ]
        own = {
            draft.target_id: (
                draft.target_id,
                client_id,
                draft.channel,
                policies.AT_ONCE[draft.channel],
            )
            for draft in drafts
            if draft.channel in policies.AT_ONCE and not draft.route and not draft.is_settled
        }
        await self._notifications.targets(list(own.values()))
        await self._deliveries.keep(
            [
                {
                    "id": draft.id,
                    "client_id": client_id,
                    "channel": draft.channel,
                    "target_id": draft.target_id,
                    "source_id": notification.id,
                    "priority": notification.priority,
                    "state": draft.state,
                    "reason": draft.reason,
                    "next_at": draft.next_at,
                    "expires_at": notification.expires_at,
                    "is_settled": draft.is_settled,
                }
                for draft in drafts
            ]
        )
        await self._notifications.add(
            notification,
            contents,
            [self._row(notification, draft) for draft in drafts],
            [
                NotificationFile(
                    file_id=file_id,
                    notification_id=notification.id,
                    client_id=client_id,
                    purge_at=purge_at,
                )
                for file_id in attached
            ],
        )

    def _row(self, notification: Notification, draft: Draft) -> dict[str, Any]:
        client_id = notification.client_id
        return {
            "delivery_id": draft.id,
            "notification_id": notification.id,
            "client_id": client_id,
            "position": draft.position,
            "channel": draft.channel,
            "person": draft.person,
            "address_hash": None
            if draft.address is None
            else self._within.name_address(
                client_id, policies.SHOWN.get(draft.channel, draft.channel), draft.address
            ),
            "address": None
            if draft.address is None
            else self._box.seal(
                orjson.dumps({"address": draft.address, "name": draft.recipient.name}),
                bound_to=place_of_address(client_id, draft.id),
            ),
            "route": draft.route,
            "unless": draft.unless,
            "instead_of": draft.instead_of,
        }

    async def _as_sent(self, notification: Notification) -> SentNotification:
        """Answer a request that was committed and never answered, with how it stands by now."""
        rows = await self._notifications.deliveries(
            notification.id, state=None, after=None, limit=MOST_DELIVERIES
        )
        shown = [self._delivery_out(notification, row) for row in rows]
        return SentNotification(
            id=notification.id,
            deliveries=[policies.planned(each) for each in shown],
            limits=await self._limits(notification.client_id, 0),
            expires_at=notification.expires_at,
        )

    async def _must(self, principal: Principal, notification_id: UUID) -> Notification:
        found = await self._notifications.find(principal.client_id, notification_id)
        if found is None:
            raise NotificationNotFoundError
        return found

    async def _shown(self, row: Notification) -> NotificationOut:
        return NotificationOut(
            id=row.id,
            category=row.category,
            priority=NAMES[row.priority],
            metadata=row.details,
            scheduled_at=row.scheduled_at,
            expires_at=row.expires_at,
            cancelled_at=row.cancelled_at,
            created_at=row.created_at,
            states=await self._notifications.states(row.id),
        )

    def _delivery_out(self, notification: Notification, row: Any) -> NotificationDeliveryOut:  # noqa: ANN401
        recipient: dict[str, str] = {} if row.person is None else {"user_id": row.person}
        if row.address is not None and row.channel not in policies.BY_NAME:
            opened = orjson.loads(
                self._box.open(
                    row.address, bound_to=place_of_address(notification.client_id, row.id)
                )
            )
            recipient[policies.ADDRESSES.get(row.channel, "address")] = opened["address"]
        return NotificationDeliveryOut(
            id=row.id,
            channel=policies.SHOWN.get(row.channel, row.channel),
            recipient=recipient,
            state=row.state,
            reason=row.reason,
            generation=row.generation,
            tries=row.tries,
            next_at=row.next_at if row.state in ("scheduled", "queued", "retry_wait") else None,
            expires_at=row.expires_at,
            created_at=row.created_at,
            settled_at=row.settled_at,
            replayed_by=row.replayed_by,
        )
