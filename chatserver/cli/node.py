"""The life of a web process: listen, say so, and end cleanly."""

import asyncio
import errno
import signal
import sys
from typing import Final

import asyncpg
import structlog
import uvloop
from aiohttp import web

from chatserver.app import Server
from chatserver.cli import secrets
from chatserver.infra import migrations
from chatserver.kernel.errors import UnavailableError
from chatserver.settings import Settings
from chatserver.transport.server import Runner

log = structlog.get_logger()

SHUTDOWN_S: Final = 8.0


def run(settings: Settings, *, host: str, port: int) -> int:
    """Serve until SIGTERM or SIGINT; gives the process's exit code."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, host, port))


async def _serve(settings: Settings, host: str, port: int) -> int:
    problem = await _schema_problem(settings) or await _secrets_problem(settings)
    if problem:
        print(problem, file=sys.stderr)
        return 1
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = Server(settings)
    runner = Runner(server.app, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            print(_why(error, host, port), file=sys.stderr)
            return 1
        taken = runner.addresses[0][1]
        log.info("serving", url=f"http://{_shown(host)}:{taken}", node=settings.node_id)
        await stopping.wait()
        log.info("server_stopping")
        await site.stop()
        await server.realtime.stop()
        return 0
    finally:
        await runner.cleanup()


async def _schema_problem(settings: Settings) -> str:
    """Refuse a database of another version; one that can't be reached is waited for instead."""
    try:
        connection = await asyncpg.connect(settings.database_url.get_secret_value(), timeout=5)
    except asyncpg.InvalidPasswordError:
        return "PostgreSQL refused the role of DATABASE_URL. Run `chatserver migrate`: it makes it."
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        log.warning("database_unreachable", reason=type(error).__name__)
        return ""
    try:
        revision = await connection.fetchval("select version_num from alembic_version")
    except asyncpg.UndefinedTableError:
        revision = None
    except asyncpg.PostgresError as error:
        return f"PostgreSQL refused: {error}. Run `chatserver migrate`."
    finally:
        await connection.close()
    head = migrations.head()
    if revision == head:
        return ""
    found = "has no schema" if revision is None else f"is at revision {revision}"
    return f"The database {found}; this version needs {head}. Run `chatserver migrate`."


async def _secrets_problem(settings: Settings) -> str:
    try:
        return await secrets.problem(settings)
    except UnavailableError:
        # The node waits for its database; the keys are checked at the next start.
        return ""


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is taken. Stop what listens there, or choose another with --port."
    return f"Can't listen on {host}:{port}: {error.strerror}. Choose another --host or --port."


def _shown(host: str) -> str:
    return "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - only shown
