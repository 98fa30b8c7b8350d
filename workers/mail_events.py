"""Asks providers what became of mails: callbacks get lost, and some clients set none up."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import structlog

from chatserver.infra.job_kinds import ASK_FOR_EVENTS
from chatserver.infra.jobs import Claim
from chatserver.infra.mailgun import MailgunConfig
from chatserver.infra.mailgun_events import MailEvent
from chatserver.kernel.clock import Clock
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.opening import Open
from chatserver.notifications.callbacks.service import Told
from chatserver.wiring.providers import mailgun_config
from workers.holding import Handling

# Six times what lies between two looks: Mailgun's own index is late at times, and so are we.
WINDOW: Final = timedelta(hours=1)

log = structlog.get_logger()


class Callbacks(Protocol):
    async def asked(self) -> list[tuple[UUID, dict[str, Any]]]: ...

    async def unheard(self, provider_id: UUID, events: Sequence[MailEvent]) -> list[MailEvent]: ...

    async def hear(self, provider_id: UUID, event: MailEvent) -> Told: ...


class Asks(Protocol):
    def events_since(
        self, config: MailgunConfig, since: datetime
    ) -> AsyncIterator[list[MailEvent]]: ...


class MailEventJobs:
    """`lost` is told of a delivery that turned out not to have arrived."""

    def __init__(
        self,
        open_callbacks: Open[Callbacks],
        *,
        mailgun: Asks,
        lost: Callable[[UUID], Awaitable[object]],
        clock: Clock,
    ) -> None:
        self._open_callbacks = open_callbacks
        self._mailgun = mailgun
        self._lost = lost
        self._clock = clock

    def handlings(self) -> tuple[Handling, ...]:
        return (Handling(ASK_FOR_EVENTS, self.ask),)

    async def ask(self, _: Claim) -> None:
        await self.ask_all()

    async def ask_all(self) -> int:
        """Ask every provider for the events of the last hour; how many were news."""
        since = self._clock() - WINDOW
        async with self._open_callbacks() as callbacks:
            asked = await callbacks.asked()
        heard = 0
        for provider_id, config in asked:
            async for events in self._mailgun.events_since(mailgun_config(config), since):
                async with self._open_callbacks() as callbacks:
                    unheard = await callbacks.unheard(provider_id, events)
                for event in unheard:
                    heard += await self._hear(provider_id, event)
        return heard

    async def _hear(self, provider_id: UUID, event: MailEvent) -> bool:
        try:
            async with self._open_callbacks() as callbacks:
                told = await callbacks.hear(provider_id, event)
        except UnavailableError:
            # It is being handed over just now: the next look finds the event again.
            log.info("mail_event_later", provider_id=str(provider_id))
            return False
        if told.is_lost and told.delivery_id is not None:
            await self._lost(told.delivery_id)
        return told.delivery_id is not None and not told.duplicate
