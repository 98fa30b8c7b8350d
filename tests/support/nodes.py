"""Real `serve`, `worker` and `scheduler` processes on a database of one's own."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
import orjson

from tests.support.servers import Database

ROOT = Path(__file__).parents[2]
START_S = 60.0
# The server's own drain and shutdown, and some air for a busy machine.
STOP_S = 20.0
SHOWN_LINES = 30


class Process:
    """One of our programs. Its log is kept in a file, so that nobody has to read a pipe."""

    def __init__(
        self, name: str, arguments: list[str], environment: Mapping[str, str], directory: Path
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.environment = {**environment, "LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1"}
        self.log_file = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut does."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    async def terminate(self) -> int:
        """Ask it to end, and give its exit code."""
        self.signal(signal.SIGTERM)
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, STOP_S)

    def reap(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def said(self, event: str, since: int = 0) -> list[dict[str, Any]]:
        """Give the log lines of one event, from a byte offset on."""
        if not self.log_file.exists():
            return []
        with self.log_file.open("rb") as log:
            log.seek(since)
            text = log.read()
        entries = [orjson.loads(line) for line in text.splitlines() if line.startswith(b"{")]
        return [entry for entry in entries if entry.get("event") == event]

    def last_words(self) -> str:
        """Give the end of the log, for whoever reads why a test failed."""
        if not self.log_file.exists():
            return ""
        lines = self.log_file.read_text(errors="replace").splitlines()
        told = [line for line in lines if '"event": "http_request"' not in line]
        return "\n".join(told[-SHOWN_LINES:])


class Node(Process):
    """One web process. A restart takes the same port again."""

    def __init__(self, name: str, environment: Mapping[str, str], directory: Path) -> None:
        super().__init__(name, [], {**environment, "NODE_ID": name}, directory)
        self.port = 0
        self.program = "chatserver"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> Self:
        """Start it and wait until it is ready."""
        since = self.log_file.stat().st_size if self.log_file.exists() else 0
        self.arguments = [
            *(self.program, "serve", "--host", "127.0.0.1", "--port", str(self.port)),
        ]
        self.spawn()
        await eventually(lambda: self._serving(since), within_s=START_S, why=f"{self.name} serves")
        await eventually(self.is_ready, within_s=START_S, why=f"{self.name} is ready")
        return self

    def _serving(self, since: int) -> bool:
        assert self.is_running, f"{self.name} ended:\n{self.last_words()}"
        for entry in self.said("serving", since):
            self.port = int(entry["url"].rpartition(":")[2])
        return bool(self.port) and bool(self.said("serving", since))

    async def health(self) -> tuple[int, dict[str, Any]]:
        """Give the status and the body of `/health/ready`; 0 when nobody answers."""
        try:
            timeout = aiohttp.ClientTimeout(total=10)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{self.url}/health/ready") as answer,
            ):
                return answer.status, await answer.json()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, {}

    async def is_ready(self) -> bool:
        status, body = await self.health()
        return status == 200 and body["status"] == "ready"


class Cluster:
    """Some nodes, a worker and a scheduler on one database; made by a fixture, which closes it."""

    def __init__(self, database: Database, **environment: str) -> None:
        self.database = database
        self.environment = {
            **os.environ,
            **database.settings(),
            # Load is not what these tests are about, unless they say so.
            "LIMITS_FACTOR": "1000",
            **environment,
        }
        self.directory = Path(tempfile.mkdtemp(prefix="chatserver-nodes-"))
        self.processes: list[Process] = []

    def node(self, name: str, **environment: str) -> Node:
        """Make a node that is yet to be started."""
        made = Node(name, {**self.environment, **environment}, self.directory)
        self.processes.append(made)
        return made

    async def nodes(self, *names: str) -> list[Node]:
        """Make nodes and start them, all at once."""
        return list(await asyncio.gather(*(self.node(name).start() for name in names)))

    async def workers(self) -> None:
        """Start a worker and a scheduler."""
        for name in ("worker", "scheduler"):
            part = Process(name, ["chatserver", name], self.environment, self.directory)
            self.processes.append(part)
            part.spawn()
        for part in self.processes[-2:]:
            await eventually(
                lambda part=part: part.said(f"{part.name}_ready"),  # type: ignore[misc]
                within_s=START_S,
                why=f"{part.name} works",
            )

    def close(self) -> None:
        """End all of them; their logs go, too."""
        for process in self.processes:
            process.reap()
        shutil.rmtree(self.directory, ignore_errors=True)

    def last_words(self) -> list[tuple[str, str]]:
        return [(process.name, process.last_words()) for process in self.processes]


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]], *, within_s: float = 30.0, why: str = ""
) -> Any:
    """Ask again and again until the answer is true; the limit is generous on purpose."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        answer = condition()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return answer
        assert loop.time() < deadline, f"it did not happen within {within_s} s: {why}"
        await asyncio.sleep(0.02)
