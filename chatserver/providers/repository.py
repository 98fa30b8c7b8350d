"""Every query about providers."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.providers.models import Provider


class ProviderRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def lock_client(self, client_id: UUID) -> None:
        """Serialise whoever makes providers of a client until the transaction ends."""
        await self._session.execute(
            text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"),
            {"name": f"providers:{client_id}"},
        )

    async def add(self, provider: Provider) -> None:
        self._session.add(provider)
        await self.flush(provider)

    async def flush(self, provider: Provider) -> None:
        await self._session.flush()
        await self._session.refresh(provider)

    async def touch(self, provider: Provider) -> None:
        """Write what changed, and when."""
        provider.updated_at = await self._session.scalar(select(func.clock_timestamp()))  # type: ignore[assignment]  # never null
        await self.flush(provider)

    async def find(self, client_id: UUID, provider_id: UUID) -> Provider | None:
        found: Provider | None = await self._session.scalar(
            select(Provider)
            .where(col(Provider.client_id) == client_id, col(Provider.id) == provider_id)
            .with_for_update()
        )
        return found

    async def page(
        self, client_id: UUID, *, channel: str | None, offset: int, limit: int
    ) -> Sequence[Provider]:
        """Read providers in the order in which they are asked."""
        where = [col(Provider.client_id) == client_id]
        if channel is not None:
            where.append(col(Provider.channel) == channel)
        rows = await self._session.scalars(
            select(Provider)
            .where(*where)
            .order_by(col(Provider.channel), col(Provider.position), col(Provider.id))
            .offset(offset)
            .limit(limit)
        )
        return rows.all()

    async def count(self, client_id: UUID, channel: str | None = None) -> int:
        where = [col(Provider.client_id) == client_id]
        if channel is not None:
            where.append(col(Provider.channel) == channel)
        counted = await self._session.scalar(select(func.count()).where(*where))
        return int(counted or 0)

    async def delete(self, provider: Provider) -> None:
        await self._session.execute(
            delete(Provider).where(
                col(Provider.client_id) == provider.client_id, col(Provider.id) == provider.id
            )
        )

    async def verified(self, provider: Provider, said: dict[str, object]) -> None:
        provider.verified = said
        await self.flush(provider)
