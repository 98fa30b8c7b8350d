"""One channel's deliveries in this process: claims what is due, sends it, writes down how it went.

Deliveries are no jobs: a row is its own task, and one process holds a thousand of them at once.
Each channel has a lane of its own; a target's deliveries wait for one another here, and are claimed
a few ahead, so that a slow target holds up nobody else.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import structlog

from chatserver.deliveries.models import Claim, Sent
from chatserver.deliveries.policies import Verdict, judge
from chatserver.deliveries.queue import LEASE_S, Ended
from chatserver.infra import tracing
from chatserver.infra.batching import Batcher
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.principal import NOBODY
from workers.condition import Condition
from workers.delivery_ports import Cut, Judge, Notes, Queue, Sender

POLL_S: Final = 1.0
# So long at least between two walks through the targets.
GAP_S: Final = 0.005
SWEEP_S: Final = 15.0
SLOTS: Final = 1000
CLAIMED: Final = 256
BATCH: Final = 64
# What a send, and writing down how it went, may still take when it is begun.
NEEDED_S: Final = 25.0
AGAIN_S: Final = 0.5
WINDOW_S: Final = 60.0
FLAPPING_AT: Final = 10
_WELL: Final = frozenset({"rejected", "bounced", "skipped", "unreachable", "waiting"})
_LOST: Final = frozenset({"failed", "expired", "bounced", "suppressed"})
NOTES: Final = 4
# We could not make the request: no fault of the target.
UNDELIVERABLE: Final = "undeliverable"
_UNREADABLE: Final = object()
GIVE_BACK_S: Final = 2.0

log = structlog.get_logger()


def again(_: Claim, __: object) -> Verdict:
    """Let what was cut off be tried again at once."""
    return Verdict("retry_wait", "interrupted")


@dataclass(frozen=True, slots=True)
class Rules:
    """What follows a try, and what follows one that had to be cut off."""

    judge: Judge
    cut: Cut


PLAIN: Final = Rules(judge, again)


@dataclass(slots=True)
class _Work:
    """A target's deliveries here."""

    running: int = 0
    waiting: deque[tuple[Claim, float]] = field(default_factory=deque)


@dataclass(slots=True)
class _Window:
    """How the last minute went, at a target that failed in it."""

    since: float
    tries: int = 0
    failures: int = 0


class Lane:
    """Looks when it is woken and once a second besides, so that no doorbell is ever needed."""

    def __init__(
        self,
        *,
        channel: str,
        queue: Queue,
        sender: Sender,
        notes: Notes,
        rules: Rules = PLAIN,
        slots: int = SLOTS,
        poll_s: float = POLL_S,
        sweep_s: float = SWEEP_S,
    ) -> None:
        self.channel = channel
        self._queue = queue
        self._sender = sender
        self._notes = notes
        self._judge = rules.judge
        self._cut = rules.cut
        self._slots = slots
        self._poll_s = poll_s
        self._sweep_s = sweep_s
        self._loads: Batcher[Claim, Any] = Batcher(sender.load, size=BATCH, in_flight=2)
        self._records: Batcher[Ended, bool] = Batcher(queue.record, size=BATCH, in_flight=2)
        self._condition = Condition(f"deliveries of {channel}")
        # Targets may fail by the hundred at once; each note is a transaction.
        self._noting = asyncio.Semaphore(NOTES)
        self._loop = asyncio.get_running_loop()
        self._look = asyncio.Event()
        self._stopping = asyncio.Event()
        self._work: dict[UUID, _Work] = {}
        self._windows: dict[UUID, _Window] = {}
        # Targets whose last failure was noted, and no success since.
        self._troubled: set[UUID] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: Counter[UUID] = Counter()
        self._after = NOBODY
        # By outcome, and by what became of the delivery, since the process began.
        self.outcomes: Counter[str] = Counter()
        self.states: Counter[str] = Counter()
        self.taken_back = 0
        # Told of each try how many seconds it took.
        self.measured: Callable[[str, float], None] = lambda _, __: None

    @property
    def held(self) -> int:
        """How many deliveries are here, sent or waiting for their turn."""
        return self._held.total()

    @property
    def running(self) -> int:
        """How many are being sent just now."""
        return sum(work.running for work in self._work.values())

    @property
    def batches(self) -> tuple[float, float]:
        """How many were loaded, and recorded, at once on average."""
        loads, records = self._loads, self._records
        return loads.things / max(1, loads.calls), records.things / max(1, records.calls)

    def wake(self) -> None:
        """Look now. Callable from any thread, and at any time."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._look.set)

    async def run(self) -> None:
        """Claim and send until `stop`."""
        sweeping = asyncio.create_task(self._sweep_often())
        try:
            while not self._stopping.is_set():
                self._look.clear()
                try:
                    await self._claim()
                    if await self._notes.pass_on():
                        self._look.set()
                    self._condition.works()
                except Exception as error:  # noqa: BLE001 - told once, with its trace; tried again
                    self._condition.fails(error)
                    await self._pause(AGAIN_S)
                await asyncio.sleep(GAP_S)
                await self._pause(self._poll_s * random.uniform(0.75, 1.25))  # noqa: S311 - no secret
        finally:
            sweeping.cancel()

    async def stop(self, *, grace_s: float) -> None:
        """Begin nothing more, let what runs end for `grace_s`, and cut off the rest."""
        self._stopping.set()
        self._look.set()
        waiting = [claim for work in self._work.values() for claim, _ in work.waiting]
        for work in self._work.values():
            work.waiting.clear()
        await self._give_back(waiting)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GIVE_BACK_S)

    async def sweep(self) -> None:
        """Queue again what dead workers held; end what has no time or no target any more."""
        lost = await self._queue.take_back()
        if lost:
            self.taken_back += lost
            log.warning("deliveries_taken_back", channel=self.channel, count=lost)
            self._look.set()
        settled = 1
        while settled and not self._stopping.is_set():
            settled = await self._queue.settle()

    async def _sweep_often(self) -> None:
        while True:
            try:
                await self.sweep()
            except Exception as error:  # noqa: BLE001 - told once, with its trace; tried again
                self._condition.fails(error)
            await asyncio.sleep(self._sweep_s * random.uniform(0.75, 1.25))  # noqa: S311 - no secret

    async def _claim(self) -> None:
        free = self._slots - self.held
        if free <= 0:
            return
        limit = min(free, CLAIMED)
        # Nobody takes more than half of the places, however many slow targets he has.
        full = [client for client, count in self._held.items() if count >= self._slots // 2]
        asked_at = time.monotonic()
        claims = await self._queue.claim(self.channel, limit=limit, after=self._after, full=full)
        for claim in claims:
            self._held[claim.client_id] += 1
            self._work.setdefault(claim.target_id, _Work()).waiting.append((claim, asked_at))
        for target_id in {claim.target_id for claim in claims}:
            self._fill(target_id)
        if len(claims) == limit:
            self._look.set()
            self._after = claims[-1].target_id
        else:
            self._after = NOBODY

    def _fill(self, target_id: UUID) -> None:
        """Begin as much as a target may have at once."""
        work = self._work[target_id]
        while work.waiting and not self._stopping.is_set():
            claim, asked_at = work.waiting[0]
            if work.running >= claim.concurrency:
                return
            work.waiting.popleft()
            work.running += 1
            task = asyncio.create_task(self._hold(claim, asked_at))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if not work.waiting:
            # There may be more than was claimed ahead.
            self._look.set()
            if not work.running:
                del self._work[target_id]

    async def _hold(self, claim: Claim, asked_at: float) -> None:
        ends_at = asked_at + LEASE_S
        try:
            if ends_at - time.monotonic() < NEEDED_S:
                await self._give_back([claim], counted=False)
                return
            with structlog.contextvars.bound_contextvars(delivery_id=str(claim.id)):
                loaded = await self._load(claim, ends_at)
                if loaded is None:
                    return
                # Now that it is read, it is known which trace it goes on with.
                with tracing.span(
                    f"deliver {self.channel}",
                    parent=tracing.remembered(claim.source_id),
                    kind="client",
                    attempt=claim.tries,
                ) as span:
                    await self._deliver(claim, loaded[0], ends_at, span)
        except Exception:
            log.exception("delivery_crashed", delivery_id=str(claim.id))
        finally:
            self._let_go(claim)
            self._work[claim.target_id].running -= 1
            self._fill(claim.target_id)

    async def _deliver(
        self,
        claim: Claim,
        loaded: Any,  # noqa: ANN401 - what `load` gave
        ends_at: float,
        span: tracing.Span,
    ) -> None:
        try:
            sent = await self._send(claim, loaded)
        except asyncio.CancelledError:
            sent = Sent(outcome="unknown", error="interrupted")
            cut = Ended(claim, sent, self._cut(claim, loaded))
            # Not through the batcher: this task has been told to end.
            async with asyncio.timeout(GIVE_BACK_S):
                await self._queue.record([cut])
            raise
        self.outcomes[sent.outcome] += 1
        self.measured(self.channel, sent.latency_ms / 1000)
        span.tell(outcome=sent.outcome)
        verdict = self._judge(claim, sent, spread=random.random())  # noqa: S311 - jitter
        if await self._record(Ended(claim, sent, verdict), ends_at):
            self.states[verdict.state] += 1
            try:
                if verdict.state in _LOST:
                    await self._notes.lost(claim, sent)
                await self._note(claim, sent)
            except UnavailableError:
                # The next failure says the same.
                log.warning("delivery_target_unnoted", target_id=str(claim.target_id))

    async def _send(self, claim: Claim, loaded: Any) -> Sent:  # noqa: ANN401 - what `load` gave
        if loaded is _UNREADABLE:
            return Sent(outcome="retryable", error=UNDELIVERABLE)
        return await self._sender.send(claim, loaded)

    async def _load(self, claim: Claim, ends_at: float) -> tuple[Any] | None:
        """Read what is to be sent. None: not in time, so another worker will."""
        while ends_at - time.monotonic() > NEEDED_S:
            try:
                return (await self._loads.ask(claim),)
            except UnavailableError:
                await asyncio.sleep(AGAIN_S)
            except Exception:
                # One bad row must not take its neighbours with it.
                log.exception("delivery_unreadable", delivery_id=str(claim.id))
                return (await _alone(self._sender.load, claim),)
        return None

    async def _record(self, ended: Ended, ends_at: float) -> bool:
        while time.monotonic() < ends_at:
            try:
                return await self._records.ask(ended)
            except UnavailableError:
                await asyncio.sleep(AGAIN_S)
            except Exception:
                # One bad row must not take its neighbours with it.
                log.exception("delivery_unrecorded", delivery_id=str(ended.claim.id))
                (is_written,) = await self._queue.record([ended])
                return is_written
        return False

    async def _note(self, claim: Claim, sent: Sent) -> None:
        if sent.outcome in _WELL or sent.error == UNDELIVERABLE:
            return  # whoever was asked is well; it did not want this one, or was not even asked
        is_failure = sent.outcome != "accepted"
        is_flapping = self._count(claim.target_id, is_failure=is_failure)
        if is_failure:
            self._troubled.add(claim.target_id)
            async with self._noting:
                is_stopped = await self._notes.failed(claim, sent, is_flapping=is_flapping)
            if is_stopped:
                work = self._work[claim.target_id]
                waiting = [each for each, _ in work.waiting]
                work.waiting.clear()
                await self._give_back(waiting)
                if waiting:
                    await self._notes.gave_back(claim.target_id)
        elif not claim.is_plain or claim.target_id in self._troubled:
            self._troubled.discard(claim.target_id)
            async with self._noting:
                await self._notes.succeeded(claim)

    def _count(self, target_id: UUID, *, is_failure: bool) -> bool:
        """Count a try of a target that failed lately; tell whether half of many do."""
        now = time.monotonic()
        window = self._windows.get(target_id)
        if window is not None and now - window.since > WINDOW_S:
            del self._windows[target_id]
            window = None
        if window is None:
            if not is_failure:
                return False
            window = self._windows[target_id] = _Window(now)
        window.tries += 1
        window.failures += is_failure
        return window.tries >= FLAPPING_AT and window.failures * 2 >= window.tries

    async def _give_back(self, claims: Sequence[Claim], *, counted: bool = True) -> None:
        """Let others have what was not begun."""
        if counted:
            for claim in claims:
                self._let_go(claim)
        if claims:
            try:
                await self._queue.give_back(claims)
            except UnavailableError:
                # They come back when their lease ends.
                log.warning("deliveries_kept_until_lease_ends", count=len(claims))

    def _let_go(self, claim: Claim) -> None:
        self._held[claim.client_id] -= 1
        if not self._held[claim.client_id]:
            del self._held[claim.client_id]

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._look.wait()
        except TimeoutError:
            return


async def _alone(load: Callable[[Sequence[Claim]], Awaitable[Sequence[Any]]], claim: Claim) -> Any:  # noqa: ANN401
    try:
        (loaded,) = await load([claim])
    except Exception:
        log.exception("delivery_undeliverable", delivery_id=str(claim.id))
        return _UNREADABLE
    return loaded
