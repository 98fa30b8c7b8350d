"""`/metrics` and `/health` of a process that has no door: on a port of its own, if one is set."""

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from chatserver.infra.database import Database
from chatserver.infra.jobs import Doorbell
from chatserver.infra.process_figures import ProcessFigures
from chatserver.infra.watchdog import LoopWatch
from chatserver.settings import Settings
from chatserver.transport.health import DatabaseProbe, Health, Probe, State
from chatserver.transport.metrics import MetricsPage
from workers.claimer import Claimer

# Several processes of a machine are given the same port: each takes the next one that is free.
PORTS: Final = 32

log = structlog.get_logger()


class ClaimProbe:
    """A worker is ready once it has claimed for the first time."""

    name = "claims"

    def __init__(self, claimer: Claimer) -> None:
        self._claimer = claimer

    async def state(self) -> State:
        return State.READY if self._claimer.ready.is_set() else State.UNREADY


class PartObservation:
    """What a worker or a scheduler tells of itself."""

    def __init__(
        self,
        settings: Settings,
        *,
        part: str,
        database: Database,
        doorbell: Doorbell,
        redis: dict[str, Callable[[], bool]] | None = None,
    ) -> None:
        self._settings = settings
        self.figures = CollectorRegistry()
        self._own = ProcessFigures(
            self.figures,
            part=part,
            loop=LoopWatch(blocked_s=settings.loop_blocked_ms / 1000),
            database=database,
            doorbell=doorbell,
            redis=redis or {},
        )

    @asynccontextmanager
    async def serving(
        self, *, look: Callable[[], Awaitable[None]], probes: Sequence[Probe] = ()
    ) -> AsyncIterator[None]:
        """Watch the loop, and answer on METRICS_PORT; `look` is called before each answer."""
        self._own.start()
        runner = await self._listen(look, probes)
        try:
            yield
        finally:
            self._own.stop()
            if runner is not None:
                await runner.cleanup()

    async def _listen(
        self, look: Callable[[], Awaitable[None]], probes: Sequence[Probe]
    ) -> web.AppRunner | None:
        settings = self._settings
        if settings.metrics_port is None:
            return None
        app = web.Application()
        Health(DatabaseProbe(settings.database_url.get_secret_value()), probes).attach(app)
        MetricsPage(self.figures, node_id=settings.node_id, look=look).attach(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        port = settings.metrics_port
        for candidate in range(port, port + PORTS) if port else (0,):
            try:
                await web.TCPSite(runner, settings.metrics_host, candidate).start()
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    log.error("metrics_unserved", port=candidate, error=error.strerror)  # noqa: TRY400
                    break
                continue
            log.info("metrics_served", port=runner.addresses[0][1])
            return runner
        else:
            log.error("metrics_unserved", port=port, error="every port is taken")
        # The work matters more than its figures.
        await runner.cleanup()
        return None
