"""The life of a web process: listen, say so, and end cleanly."""

import asyncio
import errno
import gc
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import structlog
import uvloop
from aiohttp import web

from chatserver.app import Server
from chatserver.cli import secrets
from chatserver.cli.schema import NotReachedError, schema_problem
from chatserver.kernel.errors import UnavailableError
from chatserver.observing import reporting
from chatserver.settings import Settings
from chatserver.transport.forwarding import UNIX
from chatserver.transport.server import Runner

log = structlog.get_logger()

SHUTDOWN_S: Final = 5.0
# A server's rubbish is freed by counting references. Looking for cycles among what thousands of
# connections keep takes some percent of a busy node's time, and all of it at once; so it is done
# seventy times less often than Python would.
GARBAGE: Final = (50_000, 20, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where a process listens beside the common port, and where other nodes find it."""

    reached_at: str | None = None
    siblings: tuple[str, ...] = ()
    unix: Path | None = None
    port: int | None = None


def run(
    settings: Settings, *, host: str, port: int, door: Door | None = None, parent: int | None = None
) -> int:
    """Serve until SIGTERM or SIGINT; gives the process's exit code.

    `door` is given to one of several processes on a port, with `parent`, a pipe that closes when
    whoever started them is gone.
    """
    with (
        reporting(settings, "web"),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        if door is not None:
            return runner.run(_serve(settings, host, port, door, parent))
        with side_doors(settings, 1) as (alone,):
            return runner.run(_serve(settings, host, port, alone, None))


@contextmanager
def side_doors(settings: Settings, processes: int) -> Iterator[list[Door]]:
    """Choose where other nodes reach each process of this machine.

    One process is reached at NODE_URL. Several share their port, so that each has one of its own:
    NODE_URL's port and those after it. Without NODE_URL the doors are sockets in a directory that
    only this user may enter, for nodes of this machine.
    """
    if settings.node_url is not None:
        if processes == 1:
            yield [Door(reached_at=settings.node_url)]
            return
        url = urlsplit(settings.node_url)
        first = url.port or (443 if url.scheme == "https" else 80)
        host = _bracketed(url.hostname or "")
        addresses = [f"{url.scheme}://{host}:{first + number}" for number in range(processes)]
        yield [
            Door(reached_at=address, siblings=_others(addresses, address), port=first + number)
            for number, address in enumerate(addresses)
        ]
        return
    with tempfile.TemporaryDirectory(prefix="chatserver-") as directory:
        paths = [Path(directory) / f"{number}.sock" for number in range(processes)]
        addresses = [f"{UNIX}{path}" for path in paths]
        yield [
            Door(reached_at=address, siblings=_others(addresses, address), unix=path)
            for address, path in zip(addresses, paths, strict=True)
        ]


def _others(addresses: list[str], mine: str) -> tuple[str, ...]:
    return tuple(address for address in addresses if address != mine)


async def _serve(settings: Settings, host: str, port: int, door: Door, parent: int | None) -> int:
    problem = await _problem(settings)
    if problem:
        print(problem, file=sys.stderr)
        return 1
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if parent is not None:
        loop.add_reader(parent, stopping.set)
    server = Server(settings, reached_at=door.reached_at, siblings=door.siblings)
    runner = Runner(server.app, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, reuse_port=parent is not None or None)
        try:
            await site.start()
            if door.unix is not None:
                await web.UnixSite(runner, door.unix).start()
            elif door.port is not None:
                await web.TCPSite(runner, host, door.port).start()
        except OSError as error:
            print(why_not(error, host, port), file=sys.stderr)
            return 1
        taken = runner.addresses[0][1]
        gc.collect()
        gc.freeze()  # modules and models stay for good
        gc.set_threshold(*GARBAGE)
        log.info("serving", url=f"http://{_shown(host)}:{taken}", node=settings.node_id)
        await stopping.wait()
        log.info("server_stopping")
        # Still listening: probes must hear that this node is not ready any more.
        await server.realtime.stop()
        await site.stop()
        return 0
    finally:
        if parent is not None:
            loop.remove_reader(parent)
        await runner.cleanup()


async def _problem(settings: Settings) -> str:
    """Refuse a database of another version; one that can't be reached is waited for instead."""
    try:
        return await schema_problem(settings) or await secrets.problem(settings)
    except NotReachedError as error:
        log.warning("database_unreachable", reason=str(error))
        return ""
    except UnavailableError:
        # It went away meanwhile; the keys are checked at the next start.
        return ""


def why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is taken. Stop what listens there, or choose another with --port."
    return f"Can't listen on {host}:{port}: {error.strerror}. Choose another --host or --port."


def _shown(host: str) -> str:
    return "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 - only shown


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
