"""Processes under measurement: which core they run on, what they use."""

import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

ROOT: Final = Path(__file__).parents[1]
SERVER_CORE: Final = 0
LOAD_CORE: Final = 1
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_START_S: Final = 30.0


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Let whatever is started meanwhile, with all its threads, run on one core only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} & before or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time of processes so far, in seconds, in ticks of 10 ms."""
    total = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        fields = stat.rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * _TICK_S


def resident_bytes(pids: Iterable[int]) -> int:
    """Proportional set size: what would be free if the processes were gone."""
    total = 0
    for pid in pids:
        found = re.search(
            r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE
        )
        total += int(found.group(1)) * 1024 if found else 0
    return total


def descendants(pid: int) -> list[int]:
    """The process and all that come from it, as PostgreSQL's backends do."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, new = [], [pid]
    while new:
        found += new
        new = [child for each in new for child in parents.get(each, ())]
    return found


class Server:
    """One process that says on which port it serves; use it as a context manager."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_file: Path,
        port_after: str = "port ",
    ) -> None:
        self._command = command
        self._environment = environment
        self._log_file = log_file
        self._port_after = re.compile(re.escape(port_after) + r"(\d+)")
        self.port = 0

    def __enter__(self) -> Self:
        with self._log_file.open("wb") as log, on_core(SERVER_CORE):
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self.port = self._wait_for_port()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            said = self._log_file.read_text(errors="replace")
            found = self._port_after.search(said)
            if found:
                return int(found.group(1))
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"{self._command} does not serve:\n{self._log_file.read_text()[-2000:]}")
