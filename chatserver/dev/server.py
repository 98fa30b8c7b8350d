"""What the embedded servers have in common: one process each, started and ended by us."""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from chatserver.dev.errors import ServerStartError
from chatserver.dev.privileges import Privileges

POLL_SECONDS: Final = 0.02
LOG_KEPT_BYTES: Final = 10_000_000


class EmbeddedServer(ABC):
    """One server process. Not safe for use from several threads at once.

    The server ends when the thread that called `spawn` (or `start`) ends: call it from the main
    thread. `prepare` and `wait_ready` may block for seconds and may run anywhere.
    """

    name: str
    # What the server takes as "end now, but in good order".
    stop_signal: signal.Signals

    def __init__(self, *, log_file: Path, privileges: Privileges) -> None:
        self.log_file = log_file
        self.privileges = privileges
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Bring everything on disk into the state that the server needs; repeatable."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it answers."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    def start(self, *, timeout_seconds: float = 30.0) -> Self:
        """Prepare, spawn and wait. Raises ServerStartError when it does not come up."""
        self.prepare()
        self.spawn()
        try:
            self.wait_ready(timeout_seconds=timeout_seconds)
        except BaseException:
            self.kill()
            raise
        return self

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def return_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def spawn(self) -> None:
        if self.is_running:
            raise ServerStartError(f"{self.name} is running already.")
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_KEPT_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        # We open the log, so the server needs no right to the directory of logs.
        log = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                # Ctrl-C in a terminal goes to the supervisor alone, which ends things in order.
                process_group=0,
            )
        finally:
            os.close(log)

    def wait_ready(self, *, timeout_seconds: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not self.is_ready():
            if not self.is_running:
                raise ServerStartError(
                    f"{self.name} ended while starting (code {self.return_code}); "
                    f"its log {self.log_file} ends with: {self.last_log_lines(3)}"
                )
            if time.monotonic() > deadline:
                raise ServerStartError(
                    f"{self.name} was not ready after {timeout_seconds:g} s; "
                    f"its log {self.log_file} ends with: {self.last_log_lines(3)}"
                )
            time.sleep(POLL_SECONDS)

    def stop(self, *, timeout_seconds: float = 10.0) -> None:
        """End it in good order, or after `timeout_seconds` by force."""
        self.signal(self.stop_signal)
        self.signal(signal.SIGCONT)
        if not self.wait(timeout_seconds):
            self.kill()

    def kill(self) -> None:
        """End it as a power failure would."""
        self.signal(signal.SIGKILL)
        self.wait(10.0)

    def signal(self, number: signal.Signals) -> None:
        if self.is_running and self._process is not None:
            self._process.send_signal(number)

    def wait(self, timeout_seconds: float) -> bool:
        """Whether it has ended within the time."""
        if self._process is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_seconds)
        return not self.is_running

    def last_log_lines(self, count: int) -> str:
        if not self.log_file.exists():
            return "(empty)"
        with self.log_file.open("rb") as log:
            log.seek(max(0, self.log_file.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return " | ".join(lines[-count:]) or "(empty)"
