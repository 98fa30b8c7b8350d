"""Health: honest, quick and discreet, whatever state the database is in."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import asyncpg
import pytest
from sqlalchemy import make_url
from structlog.testing import capture_logs

from chatserver.transport.health import DatabaseProbe, Health, State
from tests.support.rest import Door, running
from tests.support.servers import Database, free_port

SECRET = "hunter2secret"


@dataclass
class Part:
    name: str
    now: State

    async def state(self) -> State:
        return self.now


@asynccontextmanager
async def serving(url: str, *parts: Part) -> AsyncIterator[Door]:
    async with running(attach=Health(DatabaseProbe(url), parts).attach) as door:
        yield door


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[int]:
    """A server on a free port; every connection is closed at the end."""
    writers: list[asyncio.StreamWriter] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await answer(reader, writer)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def blackhole() -> AsyncIterator[str]:
    """A server that takes connections and never says a word."""

    async def swallow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass

    async with listening(swallow) as port:
        yield f"postgresql://somebody:{SECRET}@127.0.0.1:{port}/somewhere"


@asynccontextmanager
async def relay(url: str, silent: asyncio.Event) -> AsyncIterator[str]:
    """The same database by way of a port that swallows everything while `silent` is set."""
    parts = make_url(url)
    directory = str(parts.query.get("host", parts.host))
    target = f"{directory}/.s.PGSQL.{parts.query.get('port', parts.port or 5432)}"

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not silent.is_set():
                writer.write(data)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near, far = await asyncio.open_unix_connection(target)
        back = asyncio.create_task(pipe(near, writer))
        try:
            await pipe(reader, far)
        finally:
            back.cancel()
            far.close()
            await far.wait_closed()

    async with listening(forward) as port:
        moved = parts.set(host="127.0.0.1", port=port, query={})
        yield moved.render_as_string(hide_password=False)


async def test_alive_needs_nothing_and_nobody() -> None:
    async with serving(f"postgresql://x:y@127.0.0.1:{free_port()}/z") as door:
        started = time.monotonic()
        status, body, response = await door.ask("GET", "/health", None)
        assert time.monotonic() - started < 1
        assert (status, body) == (200, {"status": "ok"})
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert (await door.ask("HEAD", "/health", None))[:2] == (200, None)


async def test_a_database_that_answers(database: Database) -> None:
    async with serving(database.app_url) as door:
        status, body, response = await door.ask("GET", "/health/db", None)
        assert status == 200
        assert (body["status"], body["database"]) == ("ok", "connected")
        assert 0 < body["latency_ms"] < 4000
        assert "no-cache" in response.headers["Cache-Control"]
        assert (await door.ask("HEAD", "/health/db", None))[0] == 200
        assert (await door.ask("GET", "/health/ready", None))[:2] == (
            200,
            {"status": "ready", "degraded": [], "unready": []},
        )


async def test_a_closed_port_is_told_within_five_seconds_and_names_nothing() -> None:
    port = free_port()
    with capture_logs() as lines:
        async with serving(f"postgresql://somebody:{SECRET}@127.0.0.1:{port}/somewhere") as door:
            started = time.monotonic()
            status, body, response = await door.ask("GET", "/health/db", None)
            assert time.monotonic() - started < 5
            assert (status, body["status"], body["latency_ms"]) == (503, "unavailable", None)
            assert body["database"] == "unreachable"
            assert "no-cache" in response.headers["Cache-Control"]
            assert (await door.ask("HEAD", "/health/db", None))[0] == 503
            ready = await door.ask("GET", "/health/ready", None)
            assert ready[:2] == (
                503,
                {"status": "unready", "degraded": [], "unready": ["database"]},
            )
    for told in (json.dumps(body), repr(lines)):
        for discreet in (SECRET, "somebody", "somewhere", "127.0.0.1", str(port)):
            assert discreet not in told


@pytest.mark.timeout(30)
async def test_a_blackhole_is_told_within_five_seconds_to_all_who_ask() -> None:
    async with blackhole() as url, serving(url) as door:
        started = time.monotonic()
        answers = await asyncio.gather(
            *(door.ask("GET", path, None) for path in ("/health/db", "/health/ready") * 10)
        )
        assert time.monotonic() - started < 5
        assert {status for status, *_ in answers} == {503}


@pytest.mark.timeout(30)
async def test_a_connection_that_falls_silent_is_given_up_and_made_anew(
    database: Database,
) -> None:
    """The database is there at first, then its packets are lost, then it is back."""
    silent = asyncio.Event()
    async with relay(database.app_url, silent) as url, serving(url) as door:
        assert (await door.ask("GET", "/health/db", None))[0] == 200
        await asyncio.sleep(0.6)  # the last answer has to go stale first
        silent.set()
        started = time.monotonic()
        assert (await door.ask("GET", "/health/db", None))[0] == 503
        assert time.monotonic() - started < 5
        silent.clear()
        await asyncio.sleep(0.6)
        assert (await door.ask("GET", "/health/db", None))[0] == 200


async def test_many_who_ask_at_once_cost_one_connection(database: Database) -> None:
    async with serving(database.app_url) as door:
        answers = await asyncio.gather(*(door.ask("GET", "/health/db", None) for _ in range(50)))
        assert {status for status, *_ in answers} == {200}
        admin = await asyncpg.connect(database.admin_url)
        try:
            connections = await admin.fetchval(
                "select count(*) from pg_stat_activity where datname = current_database()"
                " and application_name = 'chatserver health'"
            )
        finally:
            await admin.close()
        assert connections == 1


class TestReadiness:
    async def test_a_degraded_part_is_named_and_the_node_still_serves(
        self, database: Database
    ) -> None:
        bus, drain = Part("bus", State.DEGRADED), Part("draining", State.READY)
        async with serving(database.app_url, bus, drain) as door:
            status, body, _ = await door.ask("GET", "/health/ready", None)
            assert (status, body) == (
                200,
                {"status": "degraded", "degraded": ["bus"], "unready": []},
            )
            bus.now = State.READY
            assert (await door.ask("GET", "/health/ready", None))[1]["status"] == "ready"

    async def test_one_unready_part_takes_the_node_out(self, database: Database) -> None:
        bus, drain = Part("bus", State.DEGRADED), Part("draining", State.UNREADY)
        async with serving(database.app_url, bus, drain) as door:
            status, body, _ = await door.ask("GET", "/health/ready", None)
            assert status == 503
            assert body == {"status": "unready", "degraded": ["bus"], "unready": ["draining"]}
