"""One room on one node: its facts in `seq` order, each once, none skipped."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Protocol
from uuid import UUID

from chatserver.kernel.events import Committed, Effect

if TYPE_CHECKING:
    from chatserver.realtime.hub import Connection, Listener

HOLD_S: Final = 0.1
MAX_HELD: Final = 1000
MAX_HELD_BYTES: Final = 4 << 20
PAGE: Final = 300
RETRIES: Final = 3
MOST_ENDED: Final = 16


class Keeper(Protocol):
    """What a stream asks of the node it is part of."""

    def deliver(self, stream: "RoomStream", fact: Committed) -> Iterator[None]:
        """Show a fact in its order, with its effects; each step ends where others may run."""
        ...

    async def read(self, room_id: UUID, after_seq: int, limit: int) -> list[Committed] | None:
        """Read from the log; None when it can't be read now."""
        ...

    def caught_up(self, stream: "RoomStream") -> None:
        """Hear that a stream has nothing left to show for now."""
        ...

    def give_up(self, stream: "RoomStream", code: str, reason: str) -> None:
        """Close everyone who listens: a hole that can't be filled is never skipped."""
        ...


class RoomStream:
    """The cursor of a room. Only the next fact is delivered; a later one waits for its turn.

    A hole gets 100 ms, then it is read from the log. `patience_s`: how long the log may be away.
    """

    __slots__ = (
        "_busy", "_held", "_held_bytes", "_hold_s", "_keeper", "_mending", "_patience_s",
        "_reached", "_steps", "_stopped", "audience", "duplicates", "ended", "expected", "head",
        "listeners", "moved_at", "room_id", "tip", "watchers",
    )  # fmt: skip

    def __init__(
        self,
        room_id: UUID,
        head: int,
        keeper: Keeper,
        *,
        patience_s: float = 30,
        hold_s: float = HOLD_S,
    ) -> None:
        self.room_id = room_id
        self.head = head
        self.tip = head
        self.listeners: set[Listener] = set()
        self.watchers: set[Connection] = set()
        # Who hears it in each namespace, until one of them changes; see `recovery.in_room`.
        self.audience: dict[str, list[Connection]] | None = None
        self.duplicates = 0
        self.moved_at = -1_000_000  # in ticks of whoever tells clients where logs end
        self.ended: tuple[int, ...] = ()  # the latest answers that ended, by where they began
        self.expected = 0  # who is about to be let in, and keeps it from being dropped
        self._keeper = keeper
        self._patience_s = patience_s
        self._hold_s = hold_s
        self._held: dict[int, Committed] = {}
        self._held_bytes = 0
        self._busy = False
        self._stopped = False
        self._mending: asyncio.Task[None] | None = None
        self._steps: asyncio.Task[None] | None = None
        self._reached: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def is_busy(self) -> bool:
        """Whether the fact at `head` has yet to reach some of the listeners."""
        return self._busy

    def is_time_for(self, fact: Committed) -> bool:
        """Tell whether an unsequenced fact may be shown: after what it follows, before its end."""
        follows = fact.effect.follows
        if follows is None:
            return True
        is_begun = self.head > follows or (self.head == follows and not self._busy)
        return is_begun and follows not in self.ended

    def note_answer(self, effect: Effect) -> None:
        """Remember that an answer has ended, or goes on."""
        if effect.ends is not None:
            self.ended = (*self.ended[1 - MOST_ENDED :], effect.ends)
        if effect.resumes is not None:
            self.ended = tuple(each for each in self.ended if each != effect.resumes)

    def offer(self, fact: Committed) -> bool:
        """Take a fact from wherever it came; False when it is an old one."""
        seq = fact.seq
        if seq is None or seq <= self.head or seq in self._held:
            self.duplicates += 1
            return False
        self.tip = max(self.tip, seq)
        if seq == self.head + 1 or (
            len(self._held) < MAX_HELD and self._held_bytes + len(fact.body) <= MAX_HELD_BYTES
        ):  # else `tip` remembers it: the log has it when the hole is filled
            self._hold(seq, fact)
        self._drain()
        if self.head < self.tip and not self._busy:
            self._mend(self._hold_s)
        return True

    def learn(self, seq: int, *, at_once: bool = False) -> None:
        """Hear that the log goes as far as `seq`."""
        self.tip = max(self.tip, seq)
        if self.head < self.tip:
            self._mend(0 if at_once else self._hold_s)

    async def reach(self, seq: int) -> None:
        """Wait until everything up to `seq` was delivered, or the stream has ended."""
        if self.head >= seq or self._stopped:
            return
        future = asyncio.get_running_loop().create_future()
        self._reached.append((seq, future))
        await future

    async def pause(self) -> bool:
        """Hold everything back until `resume`; False when the stream has ended."""
        while self._busy and not self._stopped:
            if self._steps is not None:
                await asyncio.wait({self._steps})
            else:
                await asyncio.sleep(0.005)
        if self._stopped:
            return False
        self._busy = True
        return True

    def resume(self) -> None:
        self._busy = False
        self._drain()
        if self.head < self.tip:
            self._mend(self._hold_s)

    def stop(self) -> None:
        self._stopped = True
        self._held.clear()
        for task in (self._mending, self._steps):
            # The stream may end by a fact that one of its own tasks delivers.
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self._wake()

    def _hold(self, seq: int, fact: Committed) -> None:
        self._held[seq] = fact
        self._held_bytes += len(fact.body)

    def _drain(self) -> None:
        while not self._busy and not self._stopped:
            fact = self._held.pop(self.head + 1, None)
            if fact is None:
                break
            self._held_bytes -= len(fact.body)
            self.head += 1
            steps = self._keeper.deliver(self, fact)
            for _ in steps:
                # A long list of sockets goes on in a task; what comes meanwhile waits its turn.
                self._busy = True
                self._steps = asyncio.create_task(self._finish(steps))
                return
        if self.head >= self.tip and not self._busy and not self._stopped:
            self._keeper.caught_up(self)
        self._wake()

    async def _finish(self, steps: Iterator[None]) -> None:
        await asyncio.sleep(0)
        for _ in steps:
            await asyncio.sleep(0)
        self._steps = None
        if not self._stopped:
            self.resume()

    def _wake(self) -> None:
        if not self._reached:
            return
        waiting, self._reached = self._reached, []
        for seq, future in waiting:
            if future.done():
                continue
            if self.head < seq and not self._stopped:
                self._reached.append((seq, future))
            else:
                future.set_result(None)

    def _mend(self, hold_s: float) -> None:
        if self._mending is None and not self._stopped:
            self._mending = asyncio.create_task(self._fill(hold_s))

    async def _fill(self, hold_s: float) -> None:
        try:
            await asyncio.sleep(hold_s)
            await self._read_up()
        finally:
            self._mending = None

    async def _read_up(self) -> None:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._patience_s
        missing = 0
        pause = 0.1
        while self.head < self.tip and not self._stopped:
            if self._busy:
                await asyncio.sleep(0.005)
                continue
            after = self.head
            facts = await self._keeper.read(self.room_id, after, PAGE)
            if facts is None:
                if loop.time() >= give_up_at:
                    self._keeper.give_up(self, "unavailable", "The event log can't be read.")
                    return
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
                continue
            give_up_at = loop.time() + self._patience_s
            if self._take(facts):
                missing, pause = 0, 0.1
            elif self.head == after:
                missing += 1
                if missing > RETRIES:
                    # Whoever is ahead of the log must reload: the log was rewound or cut.
                    self._keeper.give_up(self, "epoch.mismatch", "The event log was rewound.")
                    return
                await asyncio.sleep(pause)

    def _take(self, facts: list[Committed]) -> bool:
        """Deliver what was read; whether the first of it joined on to what was delivered."""
        joined = False
        for fact in facts:
            seq = fact.seq
            if seq is None or seq <= self.head or self._stopped:
                continue
            if not joined and seq != self.head + 1:
                break
            joined = True
            self.tip = max(self.tip, seq)
            if seq not in self._held:
                self._hold(seq, fact)
        self._drain()
        return joined
