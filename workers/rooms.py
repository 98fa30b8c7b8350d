"""Jobs about rooms."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol
from uuid import UUID

from chatserver.infra.job_kinds import DEACTIVATE_ROOMS, PURGE_ROOM, RECHECK_ROOMS
from chatserver.infra.jobs import Claim
from chatserver.kernel.opening import Open
from workers.holding import Handling

SLICE: Final = 100
PURGE_SLICE: Final = 1000
RECHECK_SLICE: Final = 1000


class Rooms(Protocol):
    """What these jobs need of the rooms' service."""

    async def deactivate_due(self, *, limit: int) -> int:
        """Deactivate rooms that are due; how many rows were looked at, 0 when none is left."""
        ...

    async def recheck(self, client_id: UUID, *, limit: int) -> int:
        """Have a client's rooms looked at soon; how many, 0 when none is left."""
        ...

    async def purge(self, client_id: UUID, room_id: UUID, *, limit: int) -> bool:
        """Remove a slice of a deleted room's rows; True while there are more."""
        ...


class RoomJobs:
    """`is_held` tells (client, room) whether a room must be kept though it was deleted."""

    def __init__(
        self, *, open_rooms: Open[Rooms], is_held: Callable[[UUID, UUID], Awaitable[bool]]
    ) -> None:
        self._open_rooms = open_rooms
        self._is_held = is_held

    def handlings(self) -> tuple[Handling, ...]:
        return (
            Handling(DEACTIVATE_ROOMS, self.deactivate),
            Handling(RECHECK_ROOMS, self.recheck),
            Handling(PURGE_ROOM, self.purge, concurrency=2),
        )

    async def deactivate(self, _: Claim) -> None:
        count = 1
        while count:
            async with self._open_rooms() as rooms:
                count = await rooms.deactivate_due(limit=SLICE)

    async def recheck(self, claim: Claim) -> None:
        if claim.client_id is None:
            raise ValueError("rooms are looked at for a client")
        count = 1
        while count:
            async with self._open_rooms() as rooms:
                count = await rooms.recheck(claim.client_id, limit=RECHECK_SLICE)

    async def purge(self, claim: Claim) -> None:
        if claim.client_id is None:
            raise ValueError("a room is purged for a client")
        room_id = UUID(claim.payload["room_id"])
        # Whoever releases the hold plans this again.
        is_more = not await self._is_held(claim.client_id, room_id)
        while is_more:
            async with self._open_rooms() as rooms:
                is_more = await rooms.purge(claim.client_id, room_id, limit=PURGE_SLICE)
