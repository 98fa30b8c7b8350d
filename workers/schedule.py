"""What happens again and again, in one table, and when it is due."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chatserver.infra.job_kinds import (
    ASK_FOR_EVENTS,
    DEACTIVATE_ROOMS,
    RETAIN,
    SETTLE_DOCUMENTS,
    SWEEP_FILES,
    TRIM_DELIVERIES,
    TRIM_RECORDS,
    WATCH_DELIVERIES,
    JobKind,
)


@dataclass(frozen=True, slots=True)
class Periodic:
    """A job that is planned every so many seconds, unless the last one still waits or runs."""

    kind: JobKind
    every_s: float


PERIODIC: Final = (
    Periodic(DEACTIVATE_ROOMS, every_s=15),
    Periodic(TRIM_RECORDS, every_s=3600),
    Periodic(RETAIN, every_s=3600),
    Periodic(SWEEP_FILES, every_s=60),
    Periodic(TRIM_DELIVERIES, every_s=3600),
    Periodic(WATCH_DELIVERIES, every_s=60),
    Periodic(ASK_FOR_EVENTS, every_s=600),
    Periodic(SETTLE_DOCUMENTS, every_s=60),
)


class Timetable:
    """Tells what is due. All of it at first; then in step, and missed times are not made up for."""

    def __init__(self, every_s: Sequence[float], *, now: float) -> None:
        self._every_s = tuple(every_s)
        self._next = [now] * len(self._every_s)

    def due(self, now: float) -> list[int]:
        """Give the places of the entries that are due, and expect each one period later."""
        found = []
        for place, every_s in enumerate(self._every_s):
            if self._next[place] <= now:
                found.append(place)
                passed = math.floor((now - self._next[place]) / every_s)
                self._next[place] += every_s * (passed + 1)
        return found

    def wait_s(self, now: float) -> float:
        """Give the seconds until something is due."""
        return max(0.0, min(self._next) - now)
