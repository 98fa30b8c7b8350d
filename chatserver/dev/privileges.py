"""How the embedded servers run: unprivileged, and never longer than the process that started them.

PostgreSQL refuses to run as root. When we are root it gets a user id of its own that has no
account, so nothing else on the machine runs under it and no account has to be made.
"""

import os
import platform
import pwd
import shutil
import signal
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chatserver.dev.errors import ServerStartError

# systemd keeps 61184-65519 for services without an account; we look for a free place in it.
FIRST_SERVICE_UID: Final = 61517
LAST_SERVICE_UID: Final = 61617

CAP_DAC_OVERRIDE: Final = 1
CAP_DAC_READ_SEARCH: Final = 2
CAP_SETPCAP: Final = 8
# Entering and reading is all that is missing; containers often hold only the stronger one.
SEARCH_CAPABILITIES: Final = (
    (CAP_DAC_READ_SEARCH, "dac_read_search"),
    (CAP_DAC_OVERRIDE, "dac_override"),
)


@dataclass(frozen=True)
class Privileges:
    """Whose processes we start. `service_uid` is None when we are an ordinary user already."""

    setpriv: str | None
    service_uid: int | None
    # initdb wants an account for the user it runs as, so the files are made by this one
    # in a directory that only it may enter, and then given to `service_uid`.
    setup_uid: int | None

    @classmethod
    def of_this_process(cls, owned: Path | None = None) -> "Privileges":
        """Find out who we are; `owned` (if it exists) tells which service id was used before.

        Raises ServerStartError when we are root and cannot become anybody else.
        """
        setpriv = shutil.which("setpriv") if platform.system() == "Linux" else None
        if os.geteuid() != 0:
            return cls(setpriv=setpriv, service_uid=None, setup_uid=None)
        if setpriv is None:
            raise ServerStartError(
                "PostgreSQL cannot run as root and there is no setpriv here to change the user: "
                "install util-linux, or run this as an ordinary user."
            )
        return cls(
            setpriv=setpriv,
            service_uid=_service_uid(owned),
            setup_uid=pwd.getpwnam("nobody").pw_uid,
        )

    @property
    def ends_with_parent(self) -> bool:
        return self.setpriv is not None

    def command(
        self,
        arguments: Sequence[str | Path],
        *,
        reach: Iterable[Path] = (),
        death_signal: signal.Signals = signal.SIGTERM,
        uid: int | None = None,
    ) -> list[str]:
        """The command line that runs `arguments` as user `uid` (None: as ourselves).

        The process gets `death_signal` when the thread that started it ends, so start it from one
        that lives as long as it should. `reach` are paths it must get at. Raises ServerStartError
        when it cannot.
        """
        command = [str(argument) for argument in arguments]
        if self.setpriv is None:
            return command
        wrapper = [self.setpriv, "--pdeathsig", death_signal.name]
        if uid is not None:
            wrapper += ["--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
            wrapper += ["--no-new-privs", *_search_options(uid, [Path(command[0]), *reach])]
        return [*wrapper, "--", *command]

    def give(self, path: Path, uid: int | None) -> None:
        """Hand a file or a whole directory over; nothing happens for an ordinary user."""
        if uid is None:
            return
        os.chown(path, uid, uid, follow_symlinks=False)
        for parent, directories, files in os.walk(path):
            for name in (*directories, *files):
                os.chown(Path(parent) / name, uid, uid, follow_symlinks=False)


def _service_uid(owned: Path | None) -> int:
    if owned is not None and owned.exists():
        owner = owned.stat().st_uid
        if owner != 0:
            return owner
    taken = {account.pw_uid for account in pwd.getpwall()}
    for uid in range(FIRST_SERVICE_UID, LAST_SERVICE_UID + 1):
        if uid not in taken:
            return uid
    raise ServerStartError(
        f"Every user id from {FIRST_SERVICE_UID} to {LAST_SERVICE_UID} belongs to an account, "
        "so none is free for the database: run this as an ordinary user."
    )


def unreachable(path: Path, uid: int) -> Path | None:
    """The first directory above `path` that user `uid` (in no group) may not enter."""
    for parent in reversed(path.resolve().parents):
        status = parent.stat()
        needed = stat.S_IXUSR if status.st_uid == uid else stat.S_IXOTH
        if not status.st_mode & needed:
            return parent
    return None


def _search_options(uid: int, paths: Iterable[Path]) -> list[str]:
    """Let the process through directories closed to others, instead of opening them to everyone."""
    closed = next((found for path in paths if (found := unreachable(path, uid))), None)
    if closed is None:
        return []
    ours = _capabilities()
    for number, name in SEARCH_CAPABILITIES:
        if {number, CAP_SETPCAP} <= ours:
            return [
                # access(2) ignores the capabilities of a non-root user without this bit.
                "--securebits=+no_setuid_fixup",
                f"--inh-caps=-all,+{name}",
                f"--ambient-caps=-all,+{name}",
            ]
    raise ServerStartError(
        f"The database may not run as root, and its own user cannot enter {closed}: move the "
        f"project and --data-dir out of it, allow it (chmod o+x {closed}), "
        "or run this as an ordinary user."
    )


def _capabilities() -> set[int]:
    """The capabilities that we have and may pass on."""
    sets = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in {"CapPrm", "CapBnd"}:
            sets[name] = int(value, 16)
    usable = sets["CapPrm"] & sets["CapBnd"]
    return {number for number in range(usable.bit_length()) if usable >> number & 1}
