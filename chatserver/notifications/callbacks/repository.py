"""Every query about providers' events."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.deliveries.models import DeliveryEvent
from chatserver.providers.models import Provider

_DELIVERY: Final = text("""
select d.state, n.category from delivery d
join notification_delivery nd on nd.delivery_id = d.id
join notification n on n.id = nd.notification_id
where d.id = :id and d.client_id = :client and d.channel = 'email' for update of d
""")
# Nothing ranks above a complaint.
_APPLY: Final = text("""
update delivery set state = :state, reason = :reason,
  settled_at = coalesce(settled_at, clock_timestamp())
where id = :id and state = any (cast(:over as text[]))
  and reason is distinct from 'complained' returning id
""")


class CallbackRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def provider(self, provider_id: UUID) -> Provider | None:
        """Find a provider of whichever client: whoever writes to it knows nobody's name."""
        found: Provider | None = await self._session.scalar(
            select(Provider).where(col(Provider.id) == provider_id)
        )
        return found

    async def providers(self, kind: str) -> list[Provider]:
        """Read what every client has of a kind."""
        found = await self._session.scalars(
            select(Provider)
            .where(col(Provider.kind) == kind, col(Provider.enabled))
            .order_by(col(Provider.id))
        )
        return list(found)

    async def known(self, provider_id: UUID, events: Sequence[str]) -> set[str]:
        """Tell which of a provider's events are there."""
        found = await self._session.scalars(
            select(col(DeliveryEvent.provider_event_id)).where(
                col(DeliveryEvent.provider_id) == provider_id,
                col(DeliveryEvent.provider_event_id).in_(events),
            )
        )
        return set(found)

    async def has_heard(self, provider_id: UUID) -> bool:
        """Tell whether events of a provider were ever understood."""
        found = await self._session.execute(
            select(col(DeliveryEvent.id))
            .where(col(DeliveryEvent.provider_id) == provider_id)
            .limit(1)
        )
        return found.first() is not None

    async def keep(self, event: DeliveryEvent) -> bool:
        """Write an event down. False: it is there, or its token was used for another."""
        kept = await self._session.execute(
            insert(DeliveryEvent)
            .values(**event.model_dump(exclude={"received_at"}))
            .on_conflict_do_nothing()
            .returning(col(DeliveryEvent.id))
        )
        return kept.first() is not None

    async def is_known(self, provider_id: UUID, provider_event_id: str) -> bool:
        found = await self._session.execute(
            select(col(DeliveryEvent.id)).where(
                col(DeliveryEvent.provider_id) == provider_id,
                col(DeliveryEvent.provider_event_id) == provider_event_id,
            )
        )
        return found.first() is not None

    async def delivery(self, client_id: UUID, delivery_id: UUID) -> Any:  # noqa: ANN401 - a row, or None
        """Lock a mail's delivery: its state, and the category of its notification."""
        found = await self._session.execute(_DELIVERY, {"id": delivery_id, "client": client_id})
        return found.first()

    async def apply(
        self, delivery_id: UUID, *, state: str, reason: str | None, over: Sequence[str]
    ) -> bool:
        """Give a delivery what an event says of it, if it is in one of `over`."""
        done = await self._session.execute(
            _APPLY, {"id": delivery_id, "state": state, "reason": reason, "over": list(over)}
        )
        return done.first() is not None
