"""From facts to sockets: each room's order, membership at its place, holes read from the log."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final, Protocol
from uuid import UUID

import structlog

from chatserver.kernel.events import Committed
from chatserver.realtime.fanout import Fanout
from chatserver.realtime.hub import Connection, Hub, Listener, Noted, Views
from chatserver.realtime.ports import Log
from chatserver.realtime.stream import HOLD_S, RoomStream

log = structlog.get_logger(__name__)

READERS: Final = 8
STRAYS: Final = 4096
STRAY_S: Final = 10.0


class Ending(Protocol):
    """How sockets are closed, with a reason told first."""

    def __call__(
        self, connections: Iterable[Connection], code: str, reason: str, reconnect: str
    ) -> None: ...


class Recovery:
    """Decides what reaches this node's sockets, and when. It never awaits on a fact's way in."""

    def __init__(
        self,
        *,
        hub: Hub,
        truth: Log,
        fanout: Fanout,
        views: Views,
        end: Ending,
        patience_s: float = 30,
        hold_s: float = HOLD_S,
    ) -> None:
        self.hub = hub
        self.truth = truth
        self.fanout = fanout
        self.views = views
        self.repaired = 0
        self.stale: set[UUID] = set()
        self.stale_found = asyncio.Event()
        self.loads = 0
        self.tick = 0
        self.shown: Callable[[Committed], None] = lambda _: None
        self.spoke: Callable[[Committed], None] = lambda _: None
        self.delivered: Callable[[Committed, int], None] = lambda _, __: None
        # Makes sure that the node hears of a room from now on, and of what it missed until then.
        self.follow: Callable[[list[UUID]], Coroutine[Any, Any, None]] | None = None
        self._end = end
        self._patience_s = patience_s
        self._hold_s = hold_s
        self._reading = asyncio.Semaphore(READERS)
        self._stray_tips: dict[UUID, int] = {}
        self._strays: deque[tuple[float, Committed]] = deque(maxlen=STRAYS)
        self._tasks: set[asyncio.Task[None]] = set()

    def show(self, fact: Committed, only: UUID | None = None) -> None:
        """Take a fact from this node, the bus or the log. `only`: the user it was sent for."""
        room_id = fact.room_id
        if room_id is None or (fact.seq is None and fact.audience):
            if self._is_time_for(fact):
                self._show_people(fact, (only,) if only is not None else fact.audience)
            if room_id is not None:
                self._apply_unordered(fact, room_id)
        elif fact.seq is None:
            self._show_now(fact, room_id)
            self._apply_unordered(fact, room_id)
        else:
            self._show_ordered(fact, room_id, fact.seq)

    def show_alone(self, fact: Committed, listener: Listener) -> None:
        """Show a fact of the past to one user, without its effects."""
        self._drive(self.fanout.show(fact, self.views.of(fact), listener.in_namespace))

    def refer(self, room_id: UUID, seq: int, only: UUID | None = None) -> None:
        """Hear of a fact that was too large to send: the log has it."""
        stream = self.hub.streams.get(room_id)
        if stream is not None:
            stream.learn(seq, at_once=True)
        elif only is not None and only in self.hub.listeners:
            self.suspect(only)
        elif self.loads and len(self._stray_tips) < STRAYS:
            self._stray_tips[room_id] = max(seq, self._stray_tips.get(room_id, 0))

    def suspect(self, user_id: UUID) -> None:
        """Have a user's rooms read again, soon."""
        self.stale.add(user_id)
        self.stale_found.set()

    def open_stream(
        self, room_id: UUID, head: int, seat: Callable[[RoomStream], None] | None = None
    ) -> RoomStream:
        """Follow a room from `head` on, with what came for it while its readers were being read.

        `seat` lets the first one in, before anything is delivered.
        """
        head = max(head, self.hub.past_head(room_id))
        stream = RoomStream(room_id, head, self, patience_s=self._patience_s, hold_s=self._hold_s)
        self.hub.add_stream(stream)
        if seat is not None:
            seat(stream)
        for _, fact in list(self._strays):
            if fact.room_id == room_id and self.hub.streams.get(room_id) is stream:
                stream.offer(fact)
        stream.learn(self._stray_tips.pop(room_id, 0))
        return stream

    def deliver(self, stream: RoomStream, fact: Committed) -> Iterator[None]:
        stream.moved_at = self.tick
        effect = fact.effect
        for listener in self._local(effect.entered):
            self._note(listener, stream.room_id, fact.seq, entered=True)
            self.hub.enter(listener, stream)
        written = 0

        def recipients(namespace: str) -> list[Connection]:
            nonlocal written
            found = in_room(stream, namespace)
            written += len(found)
            return found

        stream.note_answer(effect)
        yield from self.fanout.show(fact, self.views.of(fact), recipients)
        self.shown(fact)
        self.spoke(fact)
        self.delivered(fact, written)
        for listener in self._local(effect.left):
            self._note(listener, stream.room_id, fact.seq, entered=False)
            self.hub.leave(listener, stream.room_id)
        if effect.closed:
            self.hub.drop(stream)

    async def read(self, room_id: UUID, after_seq: int, limit: int) -> list[Committed] | None:
        try:
            async with self._reading:
                facts = await self.truth.read(room_id, after_seq=after_seq, limit=limit)
        except Exception as error:  # noqa: BLE001 - whatever it is, the log is away
            log.warning("log_unreadable", room_id=str(room_id), error=repr(error))
            return None
        self.repaired += len(facts)
        return facts

    def caught_up(self, stream: RoomStream) -> None:
        self.hub.drop_if_unheard(stream)

    def give_up(self, stream: RoomStream, code: str, reason: str) -> None:
        log.error("hole_unfillable", room_id=str(stream.room_id), head=stream.head, tip=stream.tip)
        connections = [
            connection for listener in stream.listeners for connection in listener.connections
        ]
        for listener in stream.listeners:
            listener.version = None  # whoever connects next reads his rooms again
        connections += stream.watchers
        self.hub.drop(stream)
        self.hub.forget(stream.room_id)
        self._end(connections, code, reason, "now" if code == "epoch.mismatch" else "backoff")

    def loaded(self) -> None:
        """Hear that one reading of rooms has ended."""
        self.loads -= 1
        if not self.loads:
            self._strays.clear()
            self._stray_tips.clear()

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def reset(self) -> None:
        """Forget all heads: the log they were read from is not the one that is there now."""
        for listener in self.hub.listeners.values():
            listener.version = None
        for stream in list(self.hub.streams.values()):
            self.hub.drop(stream)
        self.hub.forget_all()
        self._strays.clear()
        self._stray_tips.clear()

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for stream in list(self.hub.streams.values()):
            self.hub.drop(stream)

    def _show_people(self, fact: Committed, users: Iterable[UUID]) -> None:
        people = self._local(users)
        if people:
            self._drive(
                self.fanout.show(
                    fact,
                    self.views.of(fact),
                    lambda namespace: [
                        connection for each in people for connection in each.in_namespace(namespace)
                    ],
                )
            )

    def _show_now(self, fact: Committed, room_id: UUID) -> None:
        stream = self.hub.streams.get(room_id)
        if stream is not None and stream.is_time_for(fact):
            self._drive(
                self.fanout.show(
                    fact, self.views.of(fact), lambda namespace: in_room(stream, namespace)
                )
            )

    def _is_time_for(self, fact: Committed) -> bool:
        if fact.effect.follows is None or fact.room_id is None:
            return True
        stream = self.hub.streams.get(fact.room_id)
        return stream is not None and stream.is_time_for(fact)

    def _show_ordered(self, fact: Committed, room_id: UUID, seq: int) -> None:
        stream = self.hub.streams.get(room_id)
        if stream is None:
            entered = self._local(fact.effect.entered)
            if entered and self.hub.past_head(room_id) >= seq:
                for listener in entered:
                    self.suspect(listener.user_id)
            elif entered:
                self.open_stream(room_id, seq - 1).offer(fact)
                if self.follow is not None:
                    self.in_background(self.follow([room_id]))
            elif self.loads:
                self._keep_stray(fact)
            return
        if not stream.offer(fact):
            # Its place is past, and with it the moment to let someone in: the log has it.
            for listener in self._local(fact.effect.entered):
                if listener not in stream.listeners and seq <= stream.head:
                    self.suspect(listener.user_id)

    def _apply_unordered(self, fact: Committed, room_id: UUID) -> None:
        effect = fact.effect
        for listener in self._local(effect.entered):
            self.suspect(listener.user_id)
        for listener in self._local(effect.left):
            self._note(listener, room_id, None, entered=False)
            self.hub.leave(listener, room_id)
        stream = self.hub.streams.get(room_id)
        if effect.closed and stream is not None:
            self.hub.drop(stream)

    def _keep_stray(self, fact: Committed) -> None:
        now = asyncio.get_running_loop().time()
        while self._strays and self._strays[0][0] < now - STRAY_S:
            self._strays.popleft()
        self._strays.append((now, fact))

    def _local(self, users: Iterable[UUID]) -> list[Listener]:
        listeners = self.hub.listeners
        return [listeners[user_id] for user_id in users if user_id in listeners]

    def _note(self, listener: Listener, room_id: UUID, seq: int | None, *, entered: bool) -> None:
        if listener.noted is not None:
            listener.noted[room_id] = Noted(seq, entered)

    def _drive(self, steps: Iterator[None]) -> None:
        for _ in steps:
            self.in_background(_finish(steps))
            return

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("realtime_task_failed", exc_info=error)


def in_room(stream: RoomStream, namespace: str) -> list[Connection]:
    """Give who listens to a room in a namespace, members and watchers, each once.

    The list is kept for the next fact, and never changed: whoever goes through it in slices goes
    on with who was there when he began.
    """
    if stream.audience is None:
        stream.audience = {}
    elif namespace in stream.audience:
        return stream.audience[namespace]
    found = [
        connection
        for listener in stream.listeners
        for connection in listener.connections
        if connection.namespace == namespace
    ]
    if stream.watchers:
        members = set(found)
        found += [
            connection
            for connection in stream.watchers
            if connection.namespace == namespace and connection not in members
        ]
    stream.audience[namespace] = found
    return found


async def _finish(steps: Iterator[None]) -> None:
    await asyncio.sleep(0)
    for _ in steps:
        await asyncio.sleep(0)
