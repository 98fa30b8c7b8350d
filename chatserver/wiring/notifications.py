"""Notifications inside of the application, devices for push, preferences and suppressions."""

import asyncio
import hashlib
import hmac
from typing import Final
from uuid import UUID

import structlog

from chatserver.infra.cursors import CursorSeal
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.clock import utc_now
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.opening import Open
from chatserver.kernel.tasks import end
from chatserver.notifications.consent.repository import ConsentRepository
from chatserver.notifications.consent.service import ConsentService, unsubscribe_token
from chatserver.notifications.devices.repository import DeviceRepository
from chatserver.notifications.devices.service import DeviceService
from chatserver.notifications.inbox.repository import InboxRepository
from chatserver.notifications.inbox.service import InboxService, Told
from chatserver.notifications.push.repository import PushStore
from chatserver.notifications.push.service import PushKeys
from chatserver.settings import Settings
from chatserver.wiring.core import Core

log = structlog.get_logger()

SETTLE_EVERY_S: Final = 1.0
MOST_WAITING: Final = 10_000
_KEY: Final = b"chatserver addresses v1|"


class Settler:
    """Marks notifications as read that were read in their rooms, all people of a second at once.

    What is lost with a process is done when the person lists them, or the room is spoken in again.
    """

    def __init__(self, open_inbox: Open[InboxService], every_s: float = SETTLE_EVERY_S) -> None:
        self._open_inbox = open_inbox
        self._every_s = every_s
        self._waiting: set[UUID] = set()
        self._settling: asyncio.Task[None] | None = None

    def has_read(self, user_id: UUID) -> None:
        if len(self._waiting) < MOST_WAITING:
            self._waiting.add(user_id)
        if self._settling is None:
            self._settling = asyncio.get_running_loop().create_task(self._settle())

    async def stop(self) -> None:
        await end(self._settling)

    async def _settle(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(self._every_s)
                waiting, self._waiting = sorted(self._waiting), set()
                try:
                    async with self._open_inbox() as inbox:
                        await inbox.settle(users=waiting)
                except UnavailableError:
                    log.warning("notifications_unsettled", count=len(waiting))
        finally:
            self._settling = None


class Notifications:
    def __init__(self, core: Core) -> None:
        self._core = core
        # Of the oldest pepper: addresses must be found again after a new one was put before it.
        oldest = core.settings.key_peppers[-1].get_secret_value()
        self._key = hashlib.sha256(_KEY + oldest.encode()).digest()
        self._seal = CursorSeal(core.box)
        # Told, in the same transaction, which deliveries a device has received.
        self.acked: Told | None = None
        self.push_store = PushStore(core.database)
        self.push_keys = PushKeys(
            self.push_store, core.box, contact=_contact(core.settings), clock=utc_now
        )
        self.open_inbox = core.open(self.inbox)
        self.settler = Settler(self.open_inbox)
        self.open_devices = core.open(self._devices)
        self.open_consent = core.open(self.consent)

    def inbox(self, work: UnitOfWork) -> InboxService:
        """Build the service within somebody's unit of work."""
        return InboxService(inbox=InboxRepository(work.session), recorder=work, acked=self.acked)

    def consent(self, work: UnitOfWork) -> ConsentService:
        """Build the service within somebody's unit of work."""
        return ConsentService(
            consent=ConsentRepository(work.session),
            recorder=work,
            mac=self._mac,
            seal=self._seal,
        )

    def unsubscribe_token(self, client_id: UUID, address: str, category: str) -> str:
        """Make the token of an unsubscribe link."""
        return unsubscribe_token(self._seal, client_id, address=address, category=category)

    def _devices(self, work: UnitOfWork) -> DeviceService:
        return DeviceService(
            devices=DeviceRepository(work.session),
            box=self._core.box,
            mac=self._mac,
            check_url=self._core.outside.check,
        )

    def _mac(self, client_id: UUID, text: str) -> bytes:
        return hmac.digest(self._key, f"{client_id}|{text}".encode(), hashlib.sha256)


def _contact(settings: Settings) -> str:
    """Say whom push services find behind this server; some refuse requests that name nobody."""
    if settings.push_contact is not None:
        return settings.push_contact
    public = settings.public_url or ""
    return public if public.startswith("https://") else "https://chatserver.invalid"
