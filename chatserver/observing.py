"""What a process tells of itself: figures, health, traces, errors, and a loop that stands still."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from chatserver.bootstrap import Container
from chatserver.infra import error_reports, tracing
from chatserver.infra.process_figures import ProcessFigures, version
from chatserver.infra.watchdog import LoopWatch
from chatserver.kernel.clock import utc_now
from chatserver.realtime.engine import Realtime
from chatserver.realtime.metrics import RealtimeMetrics
from chatserver.settings import Settings
from chatserver.transport.forwarding import Forwarded
from chatserver.transport.health import BusProbe, DatabaseProbe, DrainProbe, Health, StorageProbe
from chatserver.transport.metrics import CommandMetrics, MetricsPage, NodeMetrics
from chatserver.transport.sockets import SocketDoor

log = structlog.get_logger(__name__)


class Observation:
    """Looks at the parts of one node. Nothing here costs anything until somebody asks."""

    def __init__(
        self,
        container: Container,
        *,
        realtime: Realtime,
        door: SocketDoor,
        forwarded: Forwarded,
    ) -> None:
        settings = container.settings
        self._node_id = settings.node_id
        self.figures = CollectorRegistry()
        # What else has to be brought up to date before the figures are shown.
        self.looks: list[Callable[[], Awaitable[None]]] = []
        self.health = Health(
            DatabaseProbe(settings.database_url.get_secret_value()),
            [
                BusProbe(realtime),
                DrainProbe(realtime),
                StorageProbe(container.files.standing),
            ],
        )
        self.commands = CommandMetrics(self.figures)
        self._realtime = RealtimeMetrics(realtime, self.figures, utc_now)
        door.answered = self.commands.answered
        container.writer.measured = self.commands.committed
        NodeMetrics(
            self.figures,
            forwarded=forwarded,
            storage=container.files.standing,
            health=self.health,
        )
        self._own = ProcessFigures(
            self.figures,
            part="web",
            loop=LoopWatch(blocked_s=settings.loop_blocked_ms / 1000),
            database=container.database,
            doorbell=container.doorbell,
            redis={"bus": lambda: realtime.bus.healthy, **redis_uses(container)},
        )

    def attach(self, app: web.Application, *, siblings: Sequence[str]) -> None:
        """Add the paths. `siblings`: where the other processes are that share the port."""
        self.health.attach(app)
        MetricsPage(self.figures, node_id=self._node_id, look=self._look, siblings=siblings).attach(
            app
        )

    def start(self) -> None:
        self._own.start()

    def stop(self) -> None:
        self._own.stop()

    async def _look(self) -> None:
        """Have the figures be of now."""
        await asyncio.gather(
            self._realtime.look(), self.health.look(), *(look() for look in self.looks)
        )


@contextmanager
def reporting(settings: Settings, part: str) -> Iterator[None]:
    """Send this process's traces and errors to where the settings say, if they do."""
    dsn = settings.sentry_dsn
    tracing.configure(
        settings.otel_exporter_otlp_endpoint,
        part=part,
        node_id=settings.node_id,
        ratio=settings.otel_sample_ratio,
    )
    error_reports.configure(
        None if dsn is None else dsn.get_secret_value(),
        part=part,
        node_id=settings.node_id,
        environment=settings.environment,
        release=f"chatserver@{version()}",
    )
    try:
        yield
    except Exception:
        # Told while there is somebody to tell; what ends the process is logged once more.
        log.exception("process_fails")
        raise
    finally:
        tracing.stop()
        error_reports.stop()


def redis_uses(container: Container) -> Mapping[str, Callable[[], bool]]:
    """Give, by its use, whether Redis is there."""
    return {
        "limits": lambda: container.limiter.redis.is_there,
        "answers": lambda: container.assistant.has_redis,
    }
