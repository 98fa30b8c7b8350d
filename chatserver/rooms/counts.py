"""How many are in a room whose joins are not in its log: told to its members, at most every 5 s."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

import structlog

from chatserver.kernel.errors import DomainError
from chatserver.kernel.tasks import end

log = structlog.get_logger()

EVERY_S: Final = 5.0


class CountNotices:
    """Joins what happens to a room within 5 s into one notice. One per process."""

    def __init__(self, tell: Callable[[UUID, UUID], Awaitable[None]]) -> None:
        self._tell = tell
        self._waiting: dict[UUID, asyncio.Task[None]] = {}

    def changed(self, client_id: UUID, room_id: UUID) -> None:
        """Note that someone came or left."""
        if room_id not in self._waiting:
            task = asyncio.get_running_loop().create_task(self._later(client_id, room_id))
            self._waiting[room_id] = task

    async def _later(self, client_id: UUID, room_id: UUID) -> None:
        await asyncio.sleep(EVERY_S)
        del self._waiting[room_id]
        try:
            await self._tell(client_id, room_id)
        except DomainError as error:
            # Whoever comes next brings the number again.
            log.info("count_not_told", room_id=str(room_id), code=error.code)

    async def stop(self) -> None:
        await end(*self._waiting.values())
