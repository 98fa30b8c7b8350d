"""Shuts the reading process in: so much memory and time, no network, no files, no children.

It reads what strangers have written, with large libraries. What breaks out of one of those finds a
process without secrets, without anything open and without the means to open anything: Python's own
hook says so to Python everywhere, the kernel's walls (`walls.py`) to native code on Linux.
"""

import ctypes
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from chatserver.assistant.reading.walls import filter_calls, show_only

FILES: Final = 64
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_FORBIDDEN: Final = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link",
    "os.symlink", "os.kill", "shutil.", "ftplib.", "smtplib.", "urllib.",
)  # fmt: skip
_WRITING: Final = frozenset("wax+")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one reading may take. `wall_s` is kept by whoever started it."""

    memory: int = 512 * 2**20
    cpu_s: int = 20
    wall_s: float = 30.0


def confine(bounds: Bounds) -> None:
    """Shut this process in; there is no way back. Libraries must be imported before."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # Its own parent's memory and environment are as far away as any other file.
        show_only(places())
        filter_calls()
    _limit(resource.RLIMIT_AS, bounds.memory)
    _limit(resource.RLIMIT_CPU, bounds.cpu_s)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, FILES)
    sys.addaudithook(_refuse)


def places() -> list[str]:
    """Name where programs, libraries and what belongs to them lie: some load more as they run."""
    return [
        *(sys.prefix, sys.base_prefix, str(Path(__file__).parents[2])),
        *("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/usr/share/zoneinfo"),
        *("/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom"),
    ]


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(_FORBIDDEN) or (
        event == "open" and isinstance(arguments[1], str) and _WRITING & set(arguments[1])
    ):
        raise PermissionError(event)
