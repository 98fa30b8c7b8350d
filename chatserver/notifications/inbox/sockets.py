"""The namespace `/notifications`: a person's own notifications. REST has the same at `/me`."""

from typing import Final

from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal, Scope
from chatserver.notifications.inbox.events import CreatedData, ReadData, UnreadData
from chatserver.notifications.inbox.schemas import (
    Acked,
    NotificationIds,
    NotificationList,
    NotificationPage,
    Read,
    ReadAll,
)
from chatserver.notifications.inbox.service import InboxService
from chatserver.transport.registry import USER, FactSpec, Route, command

NAMESPACE: Final = "/notifications"
FACTS: Final = (
    FactSpec(
        "notification.created",
        (NAMESPACE,),
        CreatedData,
        sequenced=False,
        summary="There is a notification: answer with `notification.ack` that it is here.",
    ),
    FactSpec(
        "notification.read",
        (NAMESPACE,),
        ReadData,
        sequenced=False,
        summary="Notifications were read, on this device or another.",
    ),
    FactSpec(
        "notification.unread",
        (NAMESPACE,),
        UnreadData,
        sequenced=False,
        summary="How many notifications are unread now.",
    ),
)


class InboxCommands:
    def __init__(self, inbox: Open[InboxService]) -> None:
        self._inbox = inbox

    @command(
        "notification.list",
        NotificationList,
        NotificationPage,
        callers=USER,
        scope=Scope.NOTIFICATIONS_READ,
    )
    async def list(self, principal: Principal, command: NotificationList) -> NotificationPage:
        """List the own notifications, the newest first; kept for 90 days."""
        async with self._inbox() as inbox:
            return await inbox.page(principal, command)

    @command(
        "notification.ack", NotificationIds, Acked, callers=USER, scope=Scope.NOTIFICATIONS_READ
    )
    async def ack(self, principal: Principal, command: NotificationIds) -> Acked:
        """Say that this device has received notifications."""
        async with self._inbox() as inbox:
            return await inbox.ack(principal, command)

    @command(
        "notification.read", NotificationIds, Read, callers=USER, scope=Scope.NOTIFICATIONS_READ
    )
    async def read(self, principal: Principal, command: NotificationIds) -> Read:
        """Mark notifications as read, on every device of the caller."""
        async with self._inbox() as inbox:
            return await inbox.read(principal, command)

    @command("notification.read_all", ReadAll, Read, callers=USER, scope=Scope.NOTIFICATIONS_READ)
    async def read_all(self, principal: Principal, command: ReadAll) -> Read:
        """Mark all notifications as read, or all until `up_to`."""
        async with self._inbox() as inbox:
            return await inbox.read_all(principal, command)


ROUTES: Final = (
    Route(method="GET", path="/me/notifications", operation="notification.list"),
    Route(method="POST", path="/me/notifications/ack", operation="notification.ack"),
    Route(method="POST", path="/me/notifications/read", operation="notification.read"),
    Route(method="POST", path="/me/notifications/read_all", operation="notification.read_all"),
)
