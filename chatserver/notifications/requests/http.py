"""REST for notifications."""

from typing import Final

from chatserver.files.errors import ATTACHED
from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal
from chatserver.notifications.requests.errors import NotificationNotFoundError
from chatserver.notifications.requests.schemas import (
    Cancelled,
    ListNotificationDeliveries,
    ListNotifications,
    NotificationDeliveries,
    NotificationOut,
    NotificationRef,
    SendNotification,
    SentNotification,
)
from chatserver.notifications.requests.service import NotificationService
from chatserver.realtime.errors import QuotaExceededError
from chatserver.transport.registry import MASTER, Route, operation
from chatserver.users.errors import UserNotFoundError


class NotificationsHttp:
    def __init__(self, notifications: Open[NotificationService]) -> None:
        self._notifications = notifications

    @operation(
        "notification.send",
        SendNotification,
        SentNotification,
        callers=MASTER,
        errors=(UserNotFoundError, QuotaExceededError, *ATTACHED),
    )
    async def send(self, principal: Principal, request: SendNotification) -> SentNotification:
        """Tell something to up to 1,000 recipients, over one or more channels.

        The content is ready to be sent. The answer comes after one commit, with every delivery and
        its state; each reaches one final state before `expires_at`, whatever dies meanwhile. A
        recipient without an address for a channel is no error: that delivery is `suppressed`.
        """
        async with self._notifications() as notifications:
            return await notifications.send(principal, request)

    @operation("notification.list_sent", ListNotifications, Page[NotificationOut], callers=MASTER)
    async def list(self, principal: Principal, request: ListNotifications) -> Page[NotificationOut]:
        """List what was sent, the newest first."""
        async with self._notifications() as notifications:
            return await notifications.list(principal, request)

    @operation(
        "notification.get",
        NotificationRef,
        NotificationOut,
        callers=MASTER,
        errors=(NotificationNotFoundError,),
    )
    async def get(self, principal: Principal, request: NotificationRef) -> NotificationOut:
        """Show a notification and how many of its deliveries stand how."""
        async with self._notifications() as notifications:
            return await notifications.get(principal, request)

    @operation(
        "notification.deliveries",
        ListNotificationDeliveries,
        NotificationDeliveries,
        callers=MASTER,
        errors=(NotificationNotFoundError,),
    )
    async def deliveries(
        self, principal: Principal, request: ListNotificationDeliveries
    ) -> NotificationDeliveries:
        """List a notification's deliveries, in the order of its recipients."""
        async with self._notifications() as notifications:
            return await notifications.deliveries(principal, request)

    @operation(
        "notification.cancel",
        NotificationRef,
        Cancelled,
        callers=MASTER,
        errors=(NotificationNotFoundError,),
    )
    async def cancel(self, principal: Principal, request: NotificationRef) -> Cancelled:
        """Cancel what was not sent yet; doing it again changes nothing."""
        async with self._notifications() as notifications:
            return await notifications.cancel(principal, request)


_ONE = "/notifications/{id}"
ROUTES: Final = (
    Route(method="POST", path="/notifications", operation="notification.send", status=202),
    Route(method="GET", path="/notifications", operation="notification.list_sent"),
    Route(method="GET", path=_ONE, operation="notification.get"),
    Route(method="GET", path=_ONE + "/deliveries", operation="notification.deliveries"),
    Route(method="POST", path=_ONE + "/cancel", operation="notification.cancel"),
)
