"""How members who are absent are told of messages: built for workers."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import structlog

from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.principal import Caller, Principal
from chatserver.notifications.absences.repository import NoticeLookup, NoticeRepository
from chatserver.notifications.absences.service import AbsenceService
from chatserver.notifications.consent.policies import wants
from chatserver.notifications.consent.repository import ConsentRepository
from chatserver.notifications.inbox.policies import MESSAGE
from chatserver.notifications.requests.schemas import SendNotification
from chatserver.realtime.errors import QuotaExceededError
from chatserver.realtime.presence import ONLINE, Presence
from chatserver.realtime.store import Store
from chatserver.users.errors import UserNotFoundError
from chatserver.wiring.core import Core
from chatserver.wiring.notifications import Notifications
from chatserver.wiring.sending import Sending

log = structlog.get_logger()


class Absences:
    def __init__(self, core: Core, *, notifications: Notifications, sending: Sending) -> None:
        self._notifications = notifications
        self._sending = sending
        self._store = Store(core.bus.url, prefix=core.bus.prefix)
        self._presence = Presence(self._store)
        self.lookup = NoticeLookup(core.database)
        self.open_absences = core.open(self._absences)

    async def present(self, users: Sequence[UUID]) -> set[UUID]:
        """Tell who looks at a device just now. Without Redis nobody knows: then nobody is there."""
        try:
            found = await self._presence.read(users)
        except ConnectionError:
            return set()
        return {user_id for user_id, each in found.items() if each.status == ONLINE}

    async def stop(self) -> None:
        """Let the connections go."""
        await self._store.close()

    def _absences(self, work: UnitOfWork) -> AbsenceService:
        async def wanting(user_ids: Sequence[UUID], category: str) -> set[UUID]:
            chosen = await ConsentRepository(work.session).preferences_of(user_ids)
            return {
                user_id
                for user_id in user_ids
                if wants(chosen.get(user_id, {}), category=category, channel="socket")
            }

        return AbsenceService(
            notices=NoticeRepository(work.session),
            inbox=self._notifications.inbox(work),
            wanting=wanting,
            escalate=_Escalation(self._sending, work),
        )


class _Escalation:
    """Sends what follows an unread notification, within somebody's unit of work."""

    def __init__(self, sending: Sending, work: UnitOfWork) -> None:
        self._sending = sending
        self._work = work

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
        requests = self._sending.requests(self._work)
        try:
            command = SendNotification.model_validate(
                {
                    "recipients": [dict(recipient)],
                    "channels": {channel: dict(content)},
                    "category": MESSAGE,
                    "scheduled_at": await requests.after(after_s),
                    # A message's trace finds it by this, and what is deleted is not told any more.
                    "metadata": {"message_id": str(message_id)},
                }
            )
            await requests.send(
                Principal(caller=Caller.MASTER, client_id=client_id),
                command,
                unless_read=unless_read,
            )
        except (ValueError, QuotaExceededError, UserNotFoundError) as error:
            # Texts of the client's own that make no mail, an address that is none: it stays inside.
            log.warning(
                "message_not_followed",
                client_id=str(client_id),
                channel=channel,
                error=type(error).__name__,
            )
