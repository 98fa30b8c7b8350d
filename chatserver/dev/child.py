"""Programs of our own that the supervisor runs: their processes, their output, their end."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Final, Self

from chatserver.dev import watchdog
from chatserver.dev.privileges import Privileges

TAIL_LINES: Final = 20
LONGEST_LINE: Final = 16_384


class Child:
    """One program in a process group of its own, whose output is handed on line by line."""

    stop_signal: Final = signal.SIGTERM

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        privileges: Privileges,
        write: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self._arguments = arguments
        self._environment = environment
        self._privileges = privileges
        self._write = write
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def return_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        self._tail.clear()
        self._process = subprocess.Popen(
            self._privileges.command(self._arguments, death_signal=signal.SIGTERM),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(self._environment),
            process_group=0,
        )
        if self._process.stdout is not None:
            self._pump = threading.Thread(
                target=self._read, args=(self._process.stdout,), name=f"{self.name}-output"
            )
            self._pump.daemon = True
            self._pump.start()

    def signal(self, number: signal.Signals) -> None:
        if self.is_running and self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it and whatever it started, by force."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def collect(self) -> None:
        """After its end: end what it left behind, and take the last lines of its output."""
        self.kill()
        if self._pump is not None:
            self._pump.join(timeout=1.0)

    def last_lines(self, count: int = 5) -> list[str]:
        return list(self._tail)[-count:]

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            while line := stream.readline(LONGEST_LINE):
                text = line.decode(errors="replace").rstrip()
                self._tail.append(text)
                self._write(self.name, text)


class Watchdog:
    """A process that ends ours should we be killed; see `watchdog.py`.

    It inherits the descriptor `lock`, so that nobody else begins before it is done.
    """

    def __init__(self, privileges: Privileges, *, lock: int | None = None) -> None:
        asking = [] if privileges.ends_with_parent else ["--ask"]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__, *asking],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            pass_fds=() if lock is None else (lock,),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def guard(self, pid: int | None) -> None:
        self._tell("+", pid)

    def release(self, pid: int | None) -> None:
        self._tell("-", pid)

    def close(self) -> None:
        """Only after every child has ended: it ends those that were not released."""
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(watchdog.PATIENCE_SECONDS + 1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell(self, sign: str, pid: int | None) -> None:
        if pid is not None and self._process.stdin is not None:
            # It is the second line of defence; without it the first one still holds.
            with suppress(OSError):
                self._process.stdin.write(f"{sign}{pid}\n".encode())
                self._process.stdin.flush()
