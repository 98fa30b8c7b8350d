"""Is this process alive, ready, and does it reach its database? Open to everyone, cheap."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final, Protocol

import asyncpg
import orjson
import structlog
from aiohttp import web

from chatserver.infra.storage import Standing
from chatserver.kernel.tasks import end
from chatserver.realtime.engine import Realtime
from chatserver.transport.answers import QUIET, json_answer

CONNECT_S: Final = 3.0
QUERY_S: Final = 2.0
# The promise is 5 s; what is left over is for a busy loop.
CHECK_S: Final = 4.0
# A check that ended a moment ago still holds: a flood of probes costs one query at a time.
FRESH_S: Final = 0.5

log = structlog.get_logger()


class State(StrEnum):
    """What one part means for readiness: `degraded` = slower or less, but correct."""

    READY = "ready"
    DEGRADED = "degraded"
    UNREADY = "unready"


class Probe(Protocol):
    """One part that readiness depends on. `state` answers within seconds and never raises."""

    @property
    def name(self) -> str: ...

    async def state(self) -> State: ...


@dataclass(frozen=True, slots=True)
class Reached:
    """How a check of the database came out; `latency_ms` is None when it can't be reached."""

    latency_ms: float | None


class DatabaseProbe:
    """Asks PostgreSQL over a connection of its own, so that an exhausted pool is no outage."""

    name = "database"

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._running: asyncio.Task[Reached] | None = None
        self.last = Reached(None)
        self._checked_at = float("-inf")

    async def state(self) -> State:
        reached = await self.check()
        return State.UNREADY if reached.latency_ms is None else State.READY

    async def check(self) -> Reached:
        """Ask, within 4 s. Callers at the same time share one question."""
        if time.monotonic() - self._checked_at < FRESH_S:
            return self.last
        if self._running is None:
            self._running = asyncio.create_task(self._check())
        # Shielded: whoever hangs up must not end the question of the others.
        return await asyncio.shield(self._running)

    async def close(self) -> None:
        """Let go of the connection without a word."""
        await end(self._running)
        self._drop()

    async def _check(self) -> Reached:
        started = time.monotonic()
        try:
            async with asyncio.timeout(CHECK_S):
                await self._ask()
            self.last = Reached(round((time.monotonic() - started) * 1000, 2))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # Only the kind: the text of such an error names hosts and users.
            log.warning("database_unreachable", reason=type(error).__name__)
            self._drop()
            self.last = Reached(None)
        finally:
            self._running = None
        self._checked_at = time.monotonic()
        return self.last

    async def _ask(self) -> None:
        connection = self._connection
        if connection is None or connection.is_closed():
            connection = self._connection = await asyncpg.connect(
                self._url,
                timeout=CONNECT_S,
                command_timeout=QUERY_S,
                server_settings={"application_name": "chatserver health"},
            )
        await connection.execute("select 1")

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


class Health:
    """The three health paths. The database's probe counts for readiness like the others."""

    def __init__(self, database: DatabaseProbe, probes: Sequence[Probe] = ()) -> None:
        self._database = database
        self._probes: tuple[Probe, ...] = (database, *probes)
        # What was found last, by part; for metrics.
        self.last: dict[str, State] = {}

    def attach(self, app: web.Application) -> None:
        """Add the paths; the probe's connection ends with the application."""
        app.router.add_get("/health", self._live)
        app.router.add_get("/health/ready", self._ready)
        app.router.add_get("/health/db", self._reach)

        async def close(_: web.Application) -> None:
            await self._database.close()

        app.on_cleanup.append(close)

    async def _live(self, request: web.Request) -> web.Response:
        return _say(request, {"status": "ok"})

    async def look(self) -> list[State]:
        """Ask every part how it is."""
        states = await asyncio.gather(*(probe.state() for probe in self._probes))
        self._tell(states)
        return states

    async def _ready(self, request: web.Request) -> web.Response:
        states = await self.look()
        worse = {
            state: [
                probe.name
                for probe, found in zip(self._probes, states, strict=True)
                if found is state
            ]
            for state in (State.UNREADY, State.DEGRADED)
        }
        status = next((state for state, names in worse.items() if names), State.READY)
        said = {
            "status": status,
            "degraded": worse[State.DEGRADED],
            "unready": worse[State.UNREADY],
        }
        return _say(request, said, available=status is not State.UNREADY)

    @property
    def ping_s(self) -> float | None:
        """Tell how long the last check of PostgreSQL took; None: it failed, or there was none."""
        latency_ms = self._database.last.latency_ms
        return None if latency_ms is None else latency_ms / 1000

    def _tell(self, states: Sequence[State]) -> None:
        """Log what changed since somebody asked last."""
        for probe, state in zip(self._probes, states, strict=True):
            before = self.last.get(probe.name, State.READY)
            self.last[probe.name] = state
            if state is before:
                continue
            if state is State.READY:
                log.info("part_ready_again", part=probe.name)
            else:
                log.warning("part_not_ready", part=probe.name, state=state.value)

    async def _reach(self, request: web.Request) -> web.Response:
        reached = await self._database.check()
        available = reached.latency_ms is not None
        said = {
            "status": "ok" if available else "unavailable",
            "latency_ms": reached.latency_ms,
            "database": "connected" if available else "unreachable",
        }
        return _say(request, said, available=available)


def _say(
    request: web.Request, said: Mapping[str, object], *, available: bool = True
) -> web.Response:
    request[QUIET] = True
    response = json_answer(
        orjson.dumps(said), HTTPStatus.OK if available else HTTPStatus.SERVICE_UNAVAILABLE
    )
    response.headers["Cache-Control"] = "no-cache, no-store"
    return response


class BusProbe:
    """Redis away for everyone is `degraded`: the log repairs, only slower."""

    name = "bus"

    def __init__(self, realtime: Realtime) -> None:
        self._realtime = realtime

    async def state(self) -> State:
        return State.READY if self._realtime.bus.healthy else State.DEGRADED


class StorageProbe:
    """Without the store of files everything else goes on."""

    name = "storage"

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    async def state(self) -> State:
        return State.READY if await self._standing.look() else State.DEGRADED


class DrainProbe:
    """A node that is going takes nobody new."""

    name = "draining"

    def __init__(self, realtime: Realtime) -> None:
        self._realtime = realtime

    async def state(self) -> State:
        return State.UNREADY if self._realtime.server.draining else State.READY
