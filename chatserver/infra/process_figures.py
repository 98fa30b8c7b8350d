"""What every process measures of itself: its build, its loop, its ways to PostgreSQL and Redis."""

import importlib.metadata
import logging
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric

from chatserver.infra.database import OUTAGES, Database
from chatserver.infra.figures import counters, gauge, gauges
from chatserver.infra.jobs import Doorbell
from chatserver.infra.watchdog import LoopWatch

_UNKNOWN: Final = "unknown"


class LineCounter(logging.Handler):
    """Counts what was worth a warning."""

    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.lines: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines[record.levelname.lower()] += 1


class ProcessFigures:
    """`redis` tells of each use whether it is there."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        part: str,
        loop: LoopWatch,
        database: Database,
        doorbell: Doorbell,
        redis: Mapping[str, Callable[[], bool]],
    ) -> None:
        self._part = part
        self._loop = loop
        self._database = database
        self._doorbell = doorbell
        self._redis = redis
        self._lines = LineCounter()
        ProcessCollector(registry=registry)
        registry.register(self)

    def start(self) -> None:
        """Watch the loop that this is called in, and the log."""
        self._loop.start()
        logging.getLogger().addHandler(self._lines)

    def stop(self) -> None:
        self._loop.stop()
        logging.getLogger().removeHandler(self._lines)

    def collect(self) -> Iterator[Metric]:
        yield gauges("build_info", {(self._part, version(), platform.python_version()): 1})
        yield from self._loop.collect()
        yield from self._pools()
        yield counters("database_unavailable", {(name,): n for name, n in OUTAGES.items()})
        uses: dict[str, Callable[[], bool]] = {
            **self._redis,
            "queue": lambda: self._doorbell.is_heard,
        }
        yield gauges("redis_healthy", {(use,): float(is_there()) for use, is_there in uses.items()})
        rings = {("rung",): self._doorbell.rung, ("unheard",): self._doorbell.unheard}
        yield counters("doorbells", rings)
        yield counters("log_events", {(level,): n for level, n in self._lines.lines.items()})

    def _pools(self) -> Iterator[Metric]:
        standing = self._database.standing()
        open_, limit, waiting = (
            gauge("database_connections"),
            gauge("database_connections_limit"),
            gauge("database_waiting"),
        )
        for name, pool in standing.items():
            open_.add_metric([name, "busy"], pool.busy)
            open_.add_metric([name, "idle"], pool.idle)
            limit.add_metric([name], pool.limit)
            waiting.add_metric([name], pool.waiting)
        yield from (open_, limit, waiting)


def version() -> str:
    """Give the version of this server, as it was installed."""
    try:
        return importlib.metadata.version("chatserver")
    except importlib.metadata.PackageNotFoundError:
        return _UNKNOWN
