"""Running programs as an ordinary user, whoever runs the tests."""

import os
import pwd
import signal
from collections.abc import Sequence
from pathlib import Path

from chatserver.dev.privileges import Privileges

ROOT = Path(__file__).parents[3]


def command(arguments: Sequence[str]) -> list[str]:
    """The command line; where Python or the project is closed to others, it may pass through."""
    privileges = Privileges.of_this_process()
    if os.geteuid() != 0:
        return privileges.command(arguments, death_signal=signal.SIGKILL)
    return privileges.command(
        arguments,
        reach=[Path(arguments[0]).resolve(), ROOT / "chatserver", ROOT / "tests"],
        death_signal=signal.SIGKILL,
        uid=uid(),
    )


def uid() -> int:
    return os.geteuid() or pwd.getpwnam("nobody").pw_uid


def give(path: Path) -> Path:
    if os.geteuid() == 0:
        os.chown(path, uid(), uid())
    return path
