"""Several web processes on one port: started, watched, started again, and ended together."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import time
from contextlib import ExitStack
from multiprocessing.process import BaseProcess
from typing import Final

import structlog

from chatserver.cli import node
from chatserver.cli.node import Door
from chatserver.settings import Settings

log = structlog.get_logger()

# Longer than a process takes to drain; then it is killed.
STOP_S: Final = 27.0
# A process that ends sooner has a fault that a restart does not mend at once.
SETTLED_S: Final = 5.0
LONGEST_PAUSE_S: Final = 10.0
WAKE_S: Final = 0.5
NAME: Final = 28


def run(settings: Settings, *, host: str, port: int, processes: int) -> int:
    """Serve with several processes until SIGTERM or SIGINT; gives the exit code.

    They are forked before any loop or thread runs here. The kernel spreads connections over them;
    a session's further requests find its process by the session id.
    """
    try:
        reserved, taken = _reserve(host, port)
    except OSError as error:
        print(node.why_not(error, host, port), file=sys.stderr)
        return 1
    with ExitStack() as stack:
        stack.callback(reserved.close)
        doors = stack.enter_context(node.side_doors(settings, processes))
        return _Supervisor(settings, host, taken, doors).run()


class _Supervisor:
    def __init__(self, settings: Settings, host: str, port: int, doors: list[Door]) -> None:
        self._settings = settings
        self._host = host
        self._port = port
        self._doors = doors
        self._context = multiprocessing.get_context("fork")
        # Its end closes with this process, however that ends: then the others end, too.
        self._alive, self._held = os.pipe()
        self._running: dict[int, tuple[BaseProcess, float]] = {}
        self._failures = dict.fromkeys(range(len(doors)), 0)
        self._due = dict.fromkeys(range(len(doors)), 0.0)
        self._stopping = False

    def run(self) -> int:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._stop)
        while not self._stopping:
            for number, due in self._due.items():
                if number not in self._running and time.monotonic() >= due:
                    self._start(number)
            self._wait()
            if self._reap():
                self._stop()
                self._end()
                return 1
        self._end()
        return 0

    def _start(self, number: int) -> None:
        name = f"{self._settings.node_id[:NAME]}-{number}"
        process = self._context.Process(
            target=self._serve, args=(number, name), name=name, daemon=False
        )
        process.start()
        self._running[number] = (process, time.monotonic())

    def _serve(self, number: int, name: str) -> None:
        """Be one of the processes."""
        os.close(self._held)
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        settings = self._settings.model_copy(update={"node_id": name})
        sys.exit(
            node.run(
                settings,
                host=self._host,
                port=self._port,
                door=self._doors[number],
                parent=self._alive,
            )
        )

    def _wait(self) -> None:
        multiprocessing.connection.wait(
            [process.sentinel for process, _ in self._running.values()], timeout=WAKE_S
        )

    def _reap(self) -> bool:
        """Plan the restart of what ended; True when none of them could even start."""
        for number, (process, began) in list(self._running.items()):
            if process.exitcode is None:
                continue
            del self._running[number]
            lived = time.monotonic() - began
            log.error("process_ended", process=process.name, code=process.exitcode)
            if lived < SETTLED_S:
                self._failures[number] += 1
                if process.exitcode == 1 and not self._running:
                    return True  # wrong settings, or a schema that isn't there: it said so
            else:
                self._failures[number] = 0
            pause = min(0.1 * 2 ** self._failures[number], LONGEST_PAUSE_S)
            self._due[number] = time.monotonic() + pause
        return False

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _end(self) -> None:
        """Let all drain at once; kill what takes too long."""
        for process, _ in self._running.values():
            process.terminate()
        deadline = time.monotonic() + STOP_S
        for process, _ in self._running.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                log.error("process_killed", process=process.name)
                process.kill()
                process.join()


def _reserve(host: str, port: int) -> tuple[socket.socket, int]:
    """Hold the port without listening, so that nobody else takes it and 0 becomes a number.

    Raises:
        OSError: it can't be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Without SO_REUSEPORT: a stranger's listener must be found, not joined.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        taken: int = probe.getsockname()[1]
    reserved = socket.socket(family, socket.SOCK_STREAM)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind((host, taken))
    return reserved, taken
