"""What providers tell of mails that they took: Mailgun's events, signed, each counted once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from chatserver.deliveries.models import DeliveryEvent
from chatserver.infra.mailgun_events import MailEvent, is_signed, read_event
from chatserver.kernel.clock import Clock
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.ids import uuid7
from chatserver.notifications.callbacks.errors import CallbackHopelessError, CallbackRefusedError
from chatserver.notifications.callbacks.policies import NEWEST_S, OLDEST_S, effect_of
from chatserver.notifications.callbacks.repository import CallbackRepository
from chatserver.providers.models import Provider

MAILGUN: Final = "mailgun"
AGAIN_MS: Final = 60_000
# What has no category of its own.
GENERAL: Final = "general"


@dataclass(frozen=True, slots=True)
class Told:
    """`duplicate`: it was known. `delivery_id` None: it tells nothing of a delivery of ours."""

    delivery_id: UUID | None = None
    duplicate: bool = False
    is_lost: bool = False


class Configs(Protocol):
    """Opens a provider's configuration."""

    def __call__(self, provider: Provider) -> dict[str, Any]: ...


class Suppressing(Protocol):
    """Who is told that an address gets nothing more, in this unit of work."""

    async def __call__(
        self, client_id: UUID, address: str, *, scope: str, reason: str, delivery_id: UUID
    ) -> None: ...


class CallbackService:
    """Events of one transaction."""

    def __init__(
        self,
        *,
        callbacks: CallbackRepository,
        config_of: Configs,
        suppress: Suppressing,
        clock: Clock,
    ) -> None:
        self._callbacks = callbacks
        self._config_of = config_of
        self._suppress = suppress
        self._clock = clock

    async def take(self, provider_id: UUID, body: Any) -> Told:  # noqa: ANN401 - a stranger's JSON
        """Take one event; what it means for the delivery and the address is done with it.

        Raises:
            CallbackRefusedError: the provider is unknown or tells nothing, or it is not signed.
            CallbackHopelessError: the same, of a provider that was understood before.
            UnavailableError: the mail is being handed over just now.
        """
        provider = await self._callbacks.provider(provider_id)
        if provider is None or provider.kind != MAILGUN:
            raise CallbackRefusedError
        signature: Any = body.get("signature") if isinstance(body, dict) else None
        key = self._config_of(provider).get("signing_key")
        if key is None or not is_signed(signature, key) or not self._is_recent(signature):
            if key is not None and await self._callbacks.has_heard(provider.id):
                raise CallbackHopelessError
            raise CallbackRefusedError
        event = read_event(body.get("event-data"))
        delivery_id = None if event is None else _id_of(event.delivery_id)
        if event is None or delivery_id is None:
            return Told()
        return await self._kept(provider, event, delivery_id, token=signature["token"][:128])

    async def asked(self) -> list[tuple[UUID, dict[str, Any]]]:
        """Give the providers that can be asked for their events, of all clients, opened."""
        found = await self._callbacks.providers(MAILGUN)
        return [(provider.id, self._config_of(provider)) for provider in found]

    async def unheard(self, provider_id: UUID, events: Sequence[MailEvent]) -> list[MailEvent]:
        """Leave out what is known already."""
        known = await self._callbacks.known(provider_id, [event.id for event in events])
        return [event for event in events if event.id not in known]

    async def hear(self, provider_id: UUID, event: MailEvent) -> Told:
        """Take an event that we were not told of, and asked for.

        Raises:
            UnavailableError: the mail is being handed over just now.
        """
        provider = await self._callbacks.provider(provider_id)
        delivery_id = _id_of(event.delivery_id)
        if provider is None or delivery_id is None:
            return Told()
        return await self._kept(provider, event, delivery_id, token=None)

    async def _kept(
        self, provider: Provider, event: MailEvent, delivery_id: UUID, *, token: str | None
    ) -> Told:
        client_id = provider.client_id
        row = await self._callbacks.delivery(client_id, delivery_id)
        if row is None:
            return Told()
        if row.state == "sending":
            # What we write down of this try must not overwrite what is known already.
            raise UnavailableError(retry_after_ms=AGAIN_MS)
        is_new = await self._callbacks.keep(
            DeliveryEvent(
                id=uuid7(),
                client_id=client_id,
                delivery_id=delivery_id,
                provider_id=provider.id,
                provider_event_id=event.id,
                token=token,
                kind=event.kind,
                code=event.code,
                occurred_at=event.at,
            )
        )
        if not is_new:
            if await self._callbacks.is_known(provider.id, event.id):
                return Told(delivery_id, duplicate=True)
            # Only the token is signed: with one that was overheard anybody could tell us anything.
            raise CallbackHopelessError
        effect = effect_of(event)
        if effect.state is not None:
            await self._callbacks.apply(
                delivery_id, state=effect.state, reason=effect.reason, over=effect.over
            )
        if effect.suppress is not None:
            is_category = effect.suppress == "unsubscribe"
            await self._suppress(
                client_id,
                event.recipient,
                scope=f"category:{row.category or GENERAL}" if is_category else "all",
                reason=effect.suppress,
                delivery_id=delivery_id,
            )
        return Told(delivery_id, is_lost=effect.state == "bounced")

    def _is_recent(self, signature: dict[str, Any]) -> bool:
        stamp = signature["timestamp"]
        if not stamp.isascii() or not stamp.isdigit() or len(stamp) > 12:  # noqa: PLR2004 - of seconds
            return False
        age_s = self._clock().timestamp() - int(stamp)
        return -NEWEST_S <= age_s <= OLDEST_S


def _id_of(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text)
    except ValueError:
        return None
