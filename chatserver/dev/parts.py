"""The parts of a development installation, seen by the supervisor as all alike."""

import asyncio
import signal
from typing import Final, Protocol

from chatserver.dev.child import Child
from chatserver.dev.errors import ServerStartError
from chatserver.dev.server import EmbeddedServer

POLL_SECONDS: Final = 0.05


class Part(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def pid(self) -> int | None: ...

    @property
    def return_code(self) -> int | None: ...

    async def start(self) -> None:
        """Raises DevError when it does not come up."""

    def ask_to_stop(self) -> None: ...

    def kill(self) -> None: ...

    def collect(self) -> None:
        """Tidy up after its end."""

    def last_words(self) -> str: ...


class ServerPart:
    """PostgreSQL or Valkey. Whatever may take long runs in a thread."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server

    @property
    def name(self) -> str:
        return self._server.name

    @property
    def pid(self) -> int | None:
        return self._server.pid

    @property
    def return_code(self) -> int | None:
        return self._server.return_code

    async def start(self) -> None:
        await asyncio.to_thread(self._server.prepare)
        # In this thread: the server ends with the thread that started it.
        self._server.spawn()
        try:
            await asyncio.to_thread(self._server.wait_ready)
        except ServerStartError:
            self._server.kill()
            raise

    def ask_to_stop(self) -> None:
        self._server.signal(self._server.stop_signal)
        self._server.signal(signal.SIGCONT)

    def kill(self) -> None:
        self._server.signal(signal.SIGKILL)

    def collect(self) -> None:
        """Its processes notice by themselves that the first one is gone."""

    def last_words(self) -> str:
        return self._server.last_log_lines(3)


class ChildPart:
    def __init__(self, child: Child) -> None:
        self._child = child

    @property
    def name(self) -> str:
        return self._child.name

    @property
    def pid(self) -> int | None:
        return self._child.pid

    @property
    def return_code(self) -> int | None:
        return self._child.return_code

    async def start(self) -> None:
        self._child.spawn()

    def ask_to_stop(self) -> None:
        self._child.signal(signal.SIGTERM)
        self._child.signal(signal.SIGCONT)

    def kill(self) -> None:
        self._child.kill()

    def collect(self) -> None:
        self._child.collect()

    def last_words(self) -> str:
        return " | ".join(self._child.last_lines(3)) or "(it wrote nothing)"


async def ended(part: Part) -> int:
    """Wait until the part has ended; its return code."""
    # A process has no event that could be awaited.
    while (code := part.return_code) is None:  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)
    part.collect()
    return code


def describe(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
