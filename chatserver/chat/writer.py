"""The group commit: sends that arrive while others are being stored share the next batch.

One call of `chat_store` is one transaction and one round trip. A room is never in two batches at
once; a room that somebody else holds is skipped and queued again, and after three rounds waits in a
lane of its own, so that it delays nobody else. Whoever waits here holds no connection.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

import asyncpg
import structlog

from chatserver.chat.events import Draft, Outcome
from chatserver.infra import tracing
from chatserver.infra.database import is_passing
from chatserver.kernel.errors import DrainingError, UnavailableError

log = structlog.get_logger()

BATCH: Final = 64
IN_FLIGHT: Final = 2
# A second batch begins only when so many wait: two small ones cost both of us twice of what one
# costs that is a commit later (and on few cores took longer, too; measured).
SECOND: Final = BATCH // 4
BUSY_ROUNDS: Final = 3
BUSY_PAUSE_S: Final = 0.005
# Held rooms that are waited for at once: each of them keeps a connection.
LANES: Final = 2
CLOSE_S: Final = 5.0
TELL_EVERY_S: Final = 1.0
# A client takes at most a quarter of a batch while others wait.
SHARE: Final = BATCH // 4
# A row's own fault: bad data, a broken constraint, an error raised on purpose.
_OWN_FAULTS: Final = ("22", "23", "P0001")


class Store(Protocol):
    """The one database function."""

    async def store(self, drafts: Sequence[Draft], *, wait: bool) -> list[Outcome]:
        """Store drafts in one transaction; `wait` blocks on held rooms instead of skipping them."""
        ...


@dataclass(slots=True, eq=False)
class _Waiting:
    draft: Draft
    done: "asyncio.Future[Outcome]"
    rounds: int = 0
    # The trace that it is part of, where anything is traced.
    trace: str | None = field(default_factory=tracing.current)
    repeats: "list[_Waiting]" = field(default_factory=list)

    @property
    def is_abandoned(self) -> bool:
        return self.done.done() and all(repeat.done.done() for repeat in self.repeats)


class MessageWriter:
    """Queues drafts and stores them in batches; one per process."""

    def __init__(self, store: Store, announce: Callable[[Draft, Outcome], None]) -> None:
        self._store = store
        # Called for every stored draft, in order, also when whoever sent it no longer waits.
        self._announce = announce
        self._queue: deque[_Waiting] = deque()
        self._known: dict[tuple[UUID, str, str], _Waiting] = {}
        self._held: set[UUID] = set()
        self._batches: set[asyncio.Task[None]] = set()
        self._lanes: dict[UUID, deque[_Waiting]] = {}
        self._lane_places = asyncio.Semaphore(LANES)
        self._lane_tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._is_starting = False
        self._failed = 0
        self._told_at = float("-inf")
        # For metrics and tests: how many batches, drafts and busy rounds there were.
        self.batches = 0
        self.stored = 0
        self.busy = 0
        # Called in the task of a sender whose draft has its place behind all earlier ones.
        self.placed: Callable[[], None] = lambda: None
        # Given the traces of facts whose outbox rows the database function wrote.
        self.carry: Callable[[Mapping[UUID, str]], None] = lambda _: None
        # Told of each batch: how many drafts, and how many seconds the commit took.
        self.measured: Callable[[int, float], None] = lambda _, __: None

    async def write(self, draft: Draft) -> Outcome:
        """Store a draft and give what became of it; the row is committed when this returns.

        Raises:
            UnavailableError: PostgreSQL can't be reached; nothing is known to be stored.
            DrainingError: the process is shutting down.
            asyncpg.PostgresError: no database can store this draft: a bug of whoever made it.
        """
        if self._closed:
            raise DrainingError
        waiting = _Waiting(draft, asyncio.get_running_loop().create_future())
        first = self._known.get(draft.identity)
        if first is not None:
            # The same send twice at once: it joins the first one's future instead of racing it.
            first.repeats.append(waiting)
        else:
            self._known[draft.identity] = waiting
            self._queue.append(waiting)
            # Of a held room nothing can be taken, and whoever holds it starts again afterwards.
            if draft.room_id not in self._held:
                self._start_soon()
        self.placed()
        return await waiting.done

    async def close(self) -> None:
        """Store what waits, for up to `CLOSE_S`; then fail the rest."""
        self._closed = True
        try:
            async with asyncio.timeout(CLOSE_S):
                while self._known:
                    self._start()
                    await asyncio.sleep(BUSY_PAUSE_S)
        except TimeoutError:
            self._fail(list(self._known.values()), DrainingError())
        for task in self._batches | self._lane_tasks:
            task.cancel()

    def _start_soon(self) -> None:
        """Start when this turn of the loop is over: what else it brings goes along."""
        if not self._is_starting:
            self._is_starting = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._is_starting = False
        while len(self._batches) < IN_FLIGHT:
            if self._batches and len(self._queue) < SECOND:
                return
            batch = self._take()
            if not batch:
                return
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._batches.add(task)

    def _take(self) -> list[_Waiting]:
        """Choose a batch in order: no room of another batch, no client beyond its share."""
        chosen: list[_Waiting] = []
        left: deque[_Waiting] = deque()
        clients: Counter[UUID] = Counter()
        contended = len({waiting.draft.client_id for waiting in self._queue}) > 1
        passed: set[UUID] = set()
        while self._queue and len(chosen) < BATCH:
            waiting = self._queue.popleft()
            if waiting.is_abandoned:
                # Nobody waits any more: not storing it is as true as storing it, and cheaper.
                self._known.pop(waiting.draft.identity, None)
                continue
            room, client = waiting.draft.room_id, waiting.draft.client_id
            lane = self._lanes.get(room)
            if lane is not None:
                lane.append(waiting)
            elif room in self._held or room in passed or (contended and clients[client] >= SHARE):
                # Once one draft of a room is passed over, so are the later ones: order holds.
                passed.add(room)
                left.append(waiting)
            else:
                clients[client] += 1
                chosen.append(waiting)
        left.extend(self._queue)
        self._queue = left
        self._held.update(waiting.draft.room_id for waiting in chosen)
        return chosen

    async def _run(self, batch: list[_Waiting]) -> None:
        rooms = {waiting.draft.room_id for waiting in batch}
        busy: list[_Waiting] = []
        try:
            busy = await self._attempt(batch, wait=False)
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._batches.discard(task)
            self._held -= rooms
            self._requeue(busy)
            self._start()

    async def _attempt(self, batch: list[_Waiting], *, wait: bool) -> list[_Waiting]:
        """Store a batch and settle its futures; gives back what found its room held."""
        drafts = [waiting.draft for waiting in batch]
        self.batches += 1
        began = time.perf_counter()
        traced_from = tracing.moment()
        try:
            outcomes = await self._store.store(drafts, wait=wait)
            self.measured(len(drafts), time.perf_counter() - began)
            if tracing.is_on():
                self._trace(batch, outcomes, traced_from)
            settled = list(zip(batch, outcomes, strict=True))
        except asyncpg.PostgresError as error:
            if not is_passing(error) and (error.sqlstate or "").startswith(_OWN_FAULTS):
                return await self._split(batch, error, wait=wait)
            self._fail(batch, error)
            return []
        except Exception as error:  # noqa: BLE001 - whatever it was, nobody may wait for ever
            self._fail(batch, error)
            return []
        except asyncio.CancelledError:
            self._fail(batch, UnavailableError())
            raise
        busy: list[_Waiting] = []
        for waiting, outcome in settled:
            if outcome.outcome == "busy":
                busy.append(waiting)
            else:
                self._settle(waiting, outcome)
        return busy

    def _trace(self, batch: list[_Waiting], outcomes: Sequence[Outcome], traced_from: int) -> None:
        later: dict[UUID, str] = {}
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.trace is None:
                continue
            tracing.passed("commit", traced_from, parent=waiting.trace, batch=len(batch))
            if outcome.later:
                later[waiting.draft.event_id] = waiting.trace
        if later:
            self.carry(later)

    async def _split(
        self, batch: list[_Waiting], error: asyncpg.PostgresError, *, wait: bool
    ) -> list[_Waiting]:
        """Halve a batch that one row spoiled: it must not take its neighbours with it."""
        if len(batch) == 1:
            log.error("draft_refused", sqlstate=error.sqlstate, error=str(error))
            # Not `unavailable`: a retry would fail in the same way, again and again.
            self._reject(batch[0], lambda: error)
            return []
        middle = len(batch) // 2
        first = await self._attempt(batch[:middle], wait=wait)
        return first + await self._attempt(batch[middle:], wait=wait)

    def _requeue(self, busy: list[_Waiting]) -> None:
        if not busy:
            return
        self.busy += len(busy)
        for waiting in busy:
            waiting.rounds += 1
        self._queue.extendleft(reversed(busy))
        rooms = {waiting.draft.room_id for waiting in busy}
        stuck = {waiting.draft.room_id for waiting in busy if waiting.rounds >= BUSY_ROUNDS}
        for room in stuck:
            self._open_lane(room)
        if rooms > stuck:
            # A held row is not free again at once: without a pause this would spin.
            self._held |= rooms - stuck
            asyncio.get_running_loop().call_later(BUSY_PAUSE_S, self._release, rooms - stuck)

    def _release(self, rooms: set[UUID]) -> None:
        self._held -= rooms
        self._start()

    def _open_lane(self, room: UUID) -> None:
        lane = deque(waiting for waiting in self._queue if waiting.draft.room_id == room)
        self._lanes[room] = lane
        self._queue = deque(w for w in self._queue if w.draft.room_id != room)
        task = asyncio.get_running_loop().create_task(self._walk(room, lane))
        self._lane_tasks.add(task)
        task.add_done_callback(self._lane_tasks.discard)

    async def _walk(self, room: UUID, lane: "deque[_Waiting]") -> None:
        """Store a held room's drafts with a lock that waits, until none is left."""
        try:
            while lane:
                async with self._lane_places:
                    batch = [lane.popleft() for _ in range(min(BATCH, len(lane)))]
                    lane.extendleft(reversed(await self._attempt(batch, wait=True)))
        finally:
            del self._lanes[room]
            self._start()

    def _settle(self, waiting: _Waiting, outcome: Outcome) -> None:
        self._known.pop(waiting.draft.identity, None)
        if outcome.outcome == "stored":
            self.stored += 1
            self._show(waiting.draft, outcome, waiting.trace)
        if not waiting.done.done():
            waiting.done.set_result(outcome)
        for repeat in waiting.repeats:
            if not repeat.done.done():
                repeat.done.set_result(_as_repeat(waiting.draft, repeat.draft, outcome))

    def _show(self, draft: Draft, outcome: Outcome, trace: str | None) -> None:
        try:
            with tracing.span("fan-out", parent=trace):
                self._announce(draft, outcome)
        except Exception:
            # It is committed, so whoever sent it is told so; the log repairs the push.
            log.exception("push_failed", room_id=str(draft.room_id), seq=outcome.seq)

    def _fail(self, batch: list[_Waiting], error: BaseException) -> None:
        self._failed += len(batch)
        now = asyncio.get_running_loop().time()
        if now >= self._told_at + TELL_EVERY_S:
            # During an outage every retry fails: one line a second says as much as a hundred.
            log.warning(
                "sends_failed", count=self._failed, error=type(error).__name__, text=str(error)
            )
            self._told_at, self._failed = now, 0

        def refusal() -> Exception:
            made = UnavailableError()
            made.__cause__ = error
            return made

        for waiting in batch:
            self._reject(waiting, refusal)

    def _reject(self, waiting: _Waiting, refusal: Callable[[], Exception]) -> None:
        self._known.pop(waiting.draft.identity, None)
        for each in (waiting, *waiting.repeats):
            if not each.done.done():
                each.done.set_exception(refusal())


def _as_repeat(first: Draft, repeat: Draft, outcome: Outcome) -> Outcome:
    """Say of a repeat in the same batch what the database would say of a later one."""
    if outcome.outcome not in {"stored", "duplicate"}:
        return outcome
    same = first.body_hash == repeat.body_hash
    return Outcome(
        "duplicate" if same else "idempotency.conflict",
        first.message_id if outcome.outcome == "stored" else outcome.message_id,
        outcome.seq,
        outcome.msg_no,
        outcome.ts,
        outcome.epoch,
        None,
    )
