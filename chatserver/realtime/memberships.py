"""A user's rooms, read when the first socket connects and again when they may have changed."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from functools import partial
from typing import Final, Protocol
from uuid import UUID

import structlog

from chatserver.realtime.errors import QuotaExceededError
from chatserver.realtime.hub import MAX_WATCHED, Connection, Listener
from chatserver.realtime.ports import Seat
from chatserver.realtime.recovery import Recovery
from chatserver.realtime.stream import PAGE, RoomStream

log = structlog.get_logger(__name__)

SETTLE_S: Final = 30.0
# For so long rooms are gathered whose channels have just been asked for.
TOGETHER_S: Final = 0.01


class Confirmations(Protocol):
    """What the bus tells about its subscriptions. Neither waits long when Redis is away."""

    async def confirm_user(self, user_id: UUID) -> bool:
        """Wait until this user's messages reach the node; False when they can't now."""
        ...

    async def confirm_rooms(self, room_ids: Iterable[UUID]) -> bool:
        """The same for rooms."""
        ...

    def is_confirmed(self, room_id: UUID) -> bool: ...


class Memberships:
    """Subscribes listeners to the rooms that PostgreSQL says they are in."""

    def __init__(self, recovery: Recovery, bus: Confirmations) -> None:
        self._recovery = recovery
        self._hub = recovery.hub
        self._log = recovery.truth
        self._bus = bus
        self._unconfirmed: dict[UUID, None] = {}
        recovery.follow = self._confirm

    async def settle(self, listener: Listener) -> None:
        """Subscribe a new listener to his rooms; return at once for one who is.

        Subscribing comes before reading: what is committed in between is either read or arrives.

        Raises:
            Exception: whatever the log raises when it is away.
        """
        if listener.version is None:
            await asyncio.shield(listener.loading or self._start(listener))

    async def refresh(self, listener: Listener) -> None:
        """Read a listener's rooms again, and follow what changed.

        Raises:
            Exception: whatever the log raises when it is away.
        """
        while listener.loading is not None:
            await asyncio.wait({listener.loading})
        await asyncio.shield(self._start(listener))

    def _start(self, listener: Listener) -> asyncio.Task[None]:
        listener.loading = asyncio.create_task(self._load(listener))
        listener.loading.add_done_callback(_retrieve)
        return listener.loading

    async def _load(self, listener: Listener) -> None:
        self._recovery.loads += 1
        noted = listener.noted = {}
        try:
            await self._bus.confirm_user(listener.user_id)
            found = await self._log.subscriptions(listener.user_id)
            if self._hub.listeners.get(listener.user_id) is not listener:
                return
            late = self._seat_all(listener, found.rooms)
            vanished = [
                room_id
                for room_id in listener.rooms
                if room_id not in found.rooms and room_id not in noted
            ]
            first, listener.version = listener.version is None, found.version
            self._confirm_soon(room for room in found.rooms if not self._bus.is_confirmed(room))
            if first and late:
                self._recovery.suspect(listener.user_id)  # a connect waits for none of this
                return
            for room_id, seat in late:
                await self._admit(listener, room_id, seat)
            await self._let_go(listener, vanished)
        finally:
            self._recovery.loaded()
            listener.noted = None
            listener.loading = None

    def _seat_all(self, listener: Listener, seats: Mapping[UUID, Seat]) -> list[tuple[UUID, Seat]]:
        """Subscribe a listener to rooms that were read; give those that take more than that."""
        is_plain = listener.version is None and not listener.noted
        streams, late = self._hub.streams, []
        for room_id, seat in seats.items():
            stream = streams.get(room_id)
            if (
                is_plain
                and stream is not None
                and seat.joined_seq - 1 <= stream.head
                and seat.last_seq <= stream.head
            ):
                # Somebody here follows it already, and nothing is new: that is nearly all of them.
                self._hub.enter(listener, stream)
            elif not self._seat(listener, room_id, seat):
                late.append((room_id, seat))
        return late

    def _seat(self, listener: Listener, room_id: UUID, seat: Seat) -> bool:
        """Subscribe a listener to a room that was read; False when that takes more than that."""
        first = listener.version is None
        note = listener.noted.get(room_id) if listener.noted is not None else None
        stream = self._hub.streams.get(room_id)
        if note is not None and not note.entered:
            if note.seq is None:
                self._recovery.suspect(listener.user_id)  # which was first? Read again
                return True
            if note.seq > seat.last_seq:
                return True  # he left after this was read
        if room_id not in listener.rooms:
            if stream is None:
                if not first and self._hub.past_head(room_id) >= seat.joined_seq:
                    return False
                stream = self._recovery.open_stream(
                    room_id,
                    seat.last_seq if first else seat.joined_seq - 1,
                    partial(self._hub.enter, listener),
                )
            elif first and stream.head >= seat.joined_seq - 1:
                self._hub.enter(listener, stream)
            else:
                return False  # what was before his time is still to be shown, or he missed some
        if stream is not None:
            stream.learn(seat.last_seq)
        return True

    async def watch(self, connection: Connection, room_id: UUID) -> int:
        """Subscribe one connection to a room; return the seq that it is shown facts after.

        Raises:
            QuotaExceededError: it watches 100 rooms already.
            Exception: whatever the log raises when it is away.
        """
        if room_id not in connection.watched and len(connection.watched) >= MAX_WATCHED:
            raise QuotaExceededError(f"At most {MAX_WATCHED} rooms can be watched at once.")
        self._recovery.loads += 1
        try:
            heads = await self._log.heads([room_id])
            stream = self._hub.streams.get(room_id)
            if stream is None:
                stream = self._recovery.open_stream(
                    room_id, heads.get(room_id, 0), partial(self._hub.watch, connection)
                )
                self._recovery.in_background(self._confirm([room_id]))
            else:
                self._hub.watch(connection, stream)
            return stream.head
        finally:
            self._recovery.loaded()

    def unwatch(self, connection: Connection, room_id: UUID) -> None:
        self._hub.unwatch(connection, room_id)

    def _confirm_soon(self, room_ids: Iterable[UUID]) -> None:
        """Confirm rooms with all others that wait for it: a crowd shares one look at the log."""
        is_first = not self._unconfirmed
        self._unconfirmed.update(dict.fromkeys(room_ids))
        if is_first and self._unconfirmed:
            self._recovery.in_background(self._confirm_together())

    async def _confirm_together(self) -> None:
        await asyncio.sleep(TOGETHER_S)
        room_ids, self._unconfirmed = list(self._unconfirmed), {}
        await self._confirm(room_ids)

    async def _confirm(self, room_ids: list[UUID]) -> None:
        """Ask again where rooms end, once the node is sure to hear of what comes after."""
        if not await self._bus.confirm_rooms(room_ids):
            return  # the bus is away: repair asks for everything until it is back
        try:
            heads = await self._log.heads(room_ids)
        except Exception as error:  # noqa: BLE001 - whatever it is, the change list will tell
            log.warning("heads_unreadable", error=repr(error))
            return
        for room_id, head in heads.items():
            stream = self._hub.streams.get(room_id)
            if stream is not None:
                stream.learn(head, at_once=True)

    async def _admit(self, listener: Listener, room_id: UUID, seat: Seat) -> None:
        """Let a user in late into a room that others here follow, with all since he was invited."""
        stream = self._hub.streams.get(room_id) or self._recovery.open_stream(room_id, 0)
        stream.expected += 1
        try:
            stream.learn(seat.last_seq)
            await _within(SETTLE_S, stream.reach(seat.last_seq))
            if not self._changed(listener, room_id) and await stream.pause():
                await self._catch_up(listener, stream, seat.joined_seq - 1)
        finally:
            stream.expected -= 1
            self._hub.drop_if_unheard(stream)

    async def _catch_up(self, listener: Listener, stream: RoomStream, after: int) -> None:
        """Show one user what the paused stream is past, and let him in."""
        room_id = stream.room_id
        try:
            while after < stream.head:
                facts = await self._recovery.read(room_id, after, min(PAGE, stream.head - after))
                if not facts:
                    break
                for fact in facts:
                    after = fact.seq or after
                    if after <= stream.head:
                        self._recovery.show_alone(fact, listener)
            if not self._changed(listener, room_id):
                self._hub.enter(listener, stream)
            if room_id not in listener.rooms:
                self._recovery.suspect(listener.user_id)
        finally:
            stream.resume()

    async def _let_go(self, listener: Listener, room_ids: list[UUID]) -> None:
        """Unsubscribe from rooms that are no longer his, after the fact that says so."""
        heads = await self._log.heads(room_ids) if room_ids else {}
        for room_id in room_ids:
            stream = self._hub.streams.get(room_id)
            if stream is not None and room_id in heads:
                stream.learn(heads[room_id])
                await _within(SETTLE_S, stream.reach(heads[room_id]))
            if room_id in listener.rooms and not self._changed(listener, room_id):
                self._hub.leave(listener, room_id)

    def _changed(self, listener: Listener, room_id: UUID) -> bool:
        """Whether a fact has decided about this room since the rooms were read."""
        return listener.noted is not None and room_id in listener.noted


async def _within(seconds: float, waiting: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(seconds):
            await waiting
    except TimeoutError:
        return


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
