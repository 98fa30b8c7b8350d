"""Notices an event loop that stands still, and says where: a thread looks at its pulse.

A pulse is set by the loop four times a second. While it is missing for longer than it may be, the
thread logs the stack of the loop's thread: what it hangs in, by file and line, no values.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Final

import structlog
from prometheus_client.metrics_core import Metric

from chatserver.infra.figures import counter, gauge

PULSE_S: Final = 0.25
# At most one stack in so many seconds: a loop that hangs again and again must not fill the disk.
TELL_EVERY_S: Final = 10.0
DEEPEST: Final = 40

log = structlog.get_logger(__name__)


class LoopWatch:
    """Watches the loop that `start` is called in."""

    def __init__(self, *, blocked_s: float, tell_every_s: float = TELL_EVERY_S) -> None:
        self._blocked_s = blocked_s
        self._tell_every_s = tell_every_s
        self._look_s = min(PULSE_S, blocked_s / 4)
        self._beat_at = 0.0
        self._loop_thread = 0
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._told_at = float("-inf")
        self._untold = 0
        self._slowest_s = 0.0
        self._cpu_s = 0.0
        self._thread_late_s = 0.0
        self._asleep_at = 0.0
        self.blocked = 0
        self.blocked_for_s = 0.0

    def start(self) -> None:
        self._loop_thread = threading.get_ident()
        self._beat_at, self._cpu_s = time.monotonic(), time.process_time()
        self._asleep_at = self._beat_at
        self._next()
        self._thread = threading.Thread(target=self._watch, name="loop watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        if self._timer is not None:
            self._timer.cancel()

    def collect(self) -> Iterator[Metric]:
        slowest, self._slowest_s = self._slowest_s, 0.0
        yield gauge("loop_lag_seconds", slowest)
        yield counter("loop_blocked", self.blocked)
        yield counter("loop_blocked_seconds", self.blocked_for_s)

    def _next(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._look_s, self._beat)

    def _beat(self) -> None:
        now, cpu_s = time.monotonic(), time.process_time()
        late_s = max(0.0, now - self._beat_at - self._look_s)
        # The thread may be the later one of the two to wake up.
        thread_late_s = max(self._thread_late_s, now - self._asleep_at - self._look_s)
        # Nothing of this process ran: it was stopped, or the machine had no time for it. Whatever
        # holds the interpreter keeps the thread waiting, too, but takes time of the processor.
        was_held_up = thread_late_s * 2 >= late_s > (cpu_s - self._cpu_s) * 4
        self._slowest_s = max(self._slowest_s, late_s)
        if late_s >= self._blocked_s and not was_held_up:
            self.blocked += 1
            self.blocked_for_s += late_s
            log.warning("loop_was_blocked", seconds=round(late_s, 3))
        self._beat_at, self._cpu_s, self._thread_late_s = now, cpu_s, 0.0
        self._next()

    def _watch(self) -> None:
        seen_at = 0.0  # the pulse whose absence was told of
        while not self._ending.wait(self._look_s):
            late_s = time.monotonic() - self._asleep_at - self._look_s
            self._asleep_at = time.monotonic()
            self._thread_late_s = max(self._thread_late_s, late_s)
            if late_s >= self._blocked_s / 2:
                continue  # this thread was held up itself: the loop gets its turn first
            beat_at = self._beat_at
            missing_s = time.monotonic() - beat_at - self._look_s
            if missing_s < self._blocked_s or beat_at == seen_at:
                continue
            seen_at = beat_at
            if time.monotonic() - self._told_at < self._tell_every_s:
                self._untold += 1
                continue
            self._told_at = time.monotonic()
            untold, self._untold = self._untold, 0
            log.warning(
                "loop_blocked",
                seconds=round(missing_s, 3),
                not_told=untold,
                stack=stack_of(sys._current_frames().get(self._loop_thread)),  # noqa: SLF001 - there is no other way
            )


def stack_of(frame: FrameType | None) -> str:
    """Write where a thread is: files, lines and functions, the innermost last."""
    found = traceback.StackSummary.extract(
        traceback.walk_stack(frame), limit=DEEPEST, lookup_lines=False
    )
    return "\n".join(f"{each.filename}:{each.lineno} {each.name}" for each in reversed(found))
