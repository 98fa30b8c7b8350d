"""Every query about devices for push."""

from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.notifications.devices.models import PushDevice


class DeviceRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def place_of(self, device: PushDevice) -> UUID:
        """Find out under which id a device is kept, or will be: its seal is bound to that."""
        found = await self._session.execute(
            select(col(PushDevice.id)).where(
                col(PushDevice.client_id) == device.client_id,
                col(PushDevice.kind) == device.kind,
                col(PushDevice.token_hash) == device.token_hash,
            )
        )
        return found.scalar_one_or_none() or device.id

    async def put(self, device: PushDevice) -> PushDevice | None:
        """Keep a device; one that is known is the caller's from now on.

        None: somebody put it in the same moment under another id.
        """
        kept = await self._session.execute(
            insert(PushDevice)
            .values(**device.model_dump(exclude={"created_at", "last_seen_at"}))
            .on_conflict_do_update(
                index_elements=["client_id", "kind", "token_hash"],
                set_={
                    "user_id": device.user_id,
                    "sealed": device.sealed,
                    "last_seen_at": func.clock_timestamp(),
                },
                where=col(PushDevice.id) == device.id,
            )
            .returning(PushDevice)
            .execution_options(populate_existing=True)
        )
        return kept.scalar_one_or_none()

    async def list(self, user_id: UUID) -> list[PushDevice]:
        found = await self._session.execute(
            select(PushDevice)
            .where(col(PushDevice.user_id) == user_id)
            .order_by(col(PushDevice.id))
        )
        return list(found.scalars())

    async def remove(self, user_id: UUID, kind: str, token_hash: bytes) -> bool:
        done = await self._session.execute(
            delete(PushDevice)
            .where(
                col(PushDevice.user_id) == user_id,
                col(PushDevice.kind) == kind,
                col(PushDevice.token_hash) == token_hash,
            )
            .returning(col(PushDevice.id))
        )
        return done.scalar_one_or_none() is not None
