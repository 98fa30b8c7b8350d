"""How far everyone has read: pointers that only move forward, told at once or a little later."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from chatserver.chat.errors import EpochMismatchError
from chatserver.chat.pointers import PointerRepository, Seen
from chatserver.chat.policies import SHARED_BY, SHARED_TYPES
from chatserver.chat.schemas import MarkRead, ReadState, ReadSummary, RoomRequest
from chatserver.kernel.clock import Clock
from chatserver.kernel.events import Actor, Committed, encode
from chatserver.kernel.ids import uuid7
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal
from chatserver.kernel.tasks import end
from chatserver.rooms.errors import NotARoomMemberError
from chatserver.rooms.service import RoomService

READ_UPDATED: Final = "read.updated"
EVERY_S: Final = 2.0
MOST_WAITING: Final = 10_000


class ReadNotices:
    """Tells a room how far its people have read, each at most every 2 s. One per process."""

    def __init__(
        self, publish: Callable[[Sequence[Committed]], None], clock: Clock, every_s: float = EVERY_S
    ) -> None:
        self._publish = publish
        self._clock = clock
        self._every_s = every_s
        self._waiting: dict[tuple[UUID, UUID], Committed] = {}
        self._telling: asyncio.Task[None] | None = None

    def moved(self, principal: Principal, seen: Seen) -> None:
        """Note a pointer; who moves it again before it is told replaces it."""
        if seen.type not in SHARED_TYPES or seen.members_count > SHARED_BY:
            return
        place = (seen.room_id, principal.user_id)
        if place not in self._waiting and len(self._waiting) >= MOST_WAITING:
            return  # the next one tells, and `sync` does
        data = {"user_id": principal.external_id, "read_seq": seen.read_seq}
        self._waiting[place] = read_updated(principal, seen.room_id, data, self._clock)
        if self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def stop(self) -> None:
        await end(self._telling)

    async def _tell(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(self._every_s)
                waiting, self._waiting = self._waiting, {}
                self._publish(list(waiting.values()))
        finally:
            self._telling = None


class ReadService:
    """Single statements on raw connections: a reader holds no transaction and no room's lock."""

    def __init__(
        self,
        *,
        pointers: PointerRepository,
        rooms: Open[RoomService],
        publish: Callable[[Sequence[Committed]], None],
        notices: ReadNotices,
        generation: Callable[[], int],
        clock: Clock,
    ) -> None:
        self._pointers = pointers
        self._rooms = rooms
        self._publish = publish
        self._notices = notices
        self._generation = generation
        self._clock = clock
        # Told who has read something, for what hangs on that; must not wait.
        self.has_read: Callable[[UUID], None] = _nobody

    async def mark(self, principal: Principal, command: MarkRead) -> ReadState:
        """Move the caller's pointer forward to a seq, and take the mark of `read.unmark` away.

        Raises:
            RoomNotFoundError, NotARoomMemberError
            EpochMismatchError: the log does not reach so far.
        """
        seen = await self._pointers.mark_read(
            principal.client_id, command.room_id, principal.user_id, command.seq
        )
        if seen is None:
            raise await self._stranger(principal, command.room_id)
        if command.seq is not None and command.seq > seen.last_seq:
            raise EpochMismatchError(
                epoch=f"{self._generation()}.{seen.epoch}", last_seq=seen.last_seq
            )
        state = await self._state(principal, seen)
        if seen.has_moved:
            self._tell_own(principal, state)
            self._notices.moved(principal, seen)
            self.has_read(principal.user_id)
        return state

    async def unmark(self, principal: Principal, command: RoomRequest) -> ReadState:
        """Mark a room as unread, for oneself alone. The pointer stays where it is.

        Raises:
            RoomNotFoundError, NotARoomMemberError
        """
        seen = await self._pointers.mark_unread(
            principal.client_id, command.room_id, principal.user_id
        )
        if seen is None:
            raise await self._stranger(principal, command.room_id)
        state = await self._state(principal, seen)
        if seen.has_moved:
            self._tell_own(principal, state)
        return state

    async def summary(self, principal: Principal) -> ReadSummary:
        """Count what the caller has not read, over all rooms."""
        return ReadSummary(**await self._pointers.totals(principal.user_id))

    async def _state(self, principal: Principal, seen: Seen) -> ReadState:
        return ReadState(
            room_id=seen.room_id,
            user_id=principal.external_id,
            read_seq=seen.read_seq,
            unread=seen.unread,
            mentions=seen.mentions,
            marked_unread=seen.marked_unread,
            total_unread=await self._pointers.unread(principal.user_id),
        )

    def _tell_own(self, principal: Principal, state: ReadState) -> None:
        data = state.model_dump(mode="json", exclude={"room_id"})
        fact = read_updated(
            principal, state.room_id, data, self._clock, audience=(principal.user_id,)
        )
        self._publish([fact])

    async def _stranger(self, principal: Principal, room_id: UUID) -> Exception:
        """Give the refusal for whoever has no pointer in a room."""
        async with self._rooms() as rooms:
            await rooms.visible(principal, room_id)
        return NotARoomMemberError()


def _nobody(_: UUID) -> None:
    """Nothing hangs on it."""


def read_updated(
    principal: Principal,
    room_id: UUID,
    data: dict[str, Any],
    clock: Clock,
    *,
    audience: tuple[UUID, ...] = (),
) -> Committed:
    """Write a pointer as it is told: to the room, or to `audience` alone."""
    body = encode(
        type=READ_UPDATED,
        id=uuid7(),
        room_id=room_id,
        epoch=None,
        seq=None,
        ts=clock(),
        actor=Actor("user", principal.external_id),
        data=data,
    )
    return Committed(
        client_id=principal.client_id,
        room_id=room_id,
        seq=None,
        type=READ_UPDATED,
        body=body,
        audience=audience,
    )
