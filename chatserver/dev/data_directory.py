"""The directory in which `chatserver dev` keeps everything: its layout, its owner, its lock."""

import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from chatserver.dev.errors import DataDirectoryError, DirectoryInUseError

MARKER: Final = ".chatserver-data"
# What a freshly formatted volume brings along does not make a directory somebody else's.
HARMLESS: Final = frozenset({"lost+found"})

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
LONGEST_SOCKET_PATH: Final = 103
LONGEST_SOCKET_NAME: Final = ".s.PGSQL.5432"

PLAIN: Final = re.compile(r"[A-Za-z0-9/._@+-]+")

LEAVING_SECONDS: Final = 8.0


class DataDirectory:
    """Open it before use and close it at the end: in between nobody else can open it."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock: int | None = None

    @property
    def postgres(self) -> Path:
        return self.path / "postgres"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def files(self) -> Path:
        return self.path / "files"

    @property
    def secrets_file(self) -> Path:
        return self.path / "secrets.json"

    @property
    def demo_file(self) -> Path:
        return self.path / "demo.json"

    @property
    def environment_file(self) -> Path:
        return self.path / "env"

    def open(self, *, reset: bool = False) -> Self:
        """Make the directory if need be, lock it, and with `reset` empty it.

        Raises DirectoryInUseError while another process has it open, and DataDirectoryError when
        it cannot be written or holds something that is not ours.
        """
        with _explaining_refusals(self.path):
            self._make()
            self._refuse_strangers()
            self._take_lock()
            try:
                if reset:
                    self._empty()
                (self.path / MARKER).write_text("Kept by `chatserver dev`; `--reset` empties it.\n")
                self.logs.mkdir(mode=0o700, exist_ok=True)
            except BaseException:
                self.close()
                raise
        return self

    @property
    def lock(self) -> int | None:
        """The descriptor that holds the lock: whoever inherits it holds it, too."""
        return self._lock

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self) -> None:
        if not self.path.is_dir():
            # Others may pass through, because the database may have a user of its own; they
            # cannot list it, and everything inside is closed to them.
            self.path.mkdir(mode=0o700, parents=True)
            self.path.chmod(0o711)

    def _refuse_strangers(self) -> None:
        content = {entry.name for entry in self.path.iterdir()} - HARMLESS
        if not content:
            return
        if MARKER not in content:
            raise DataDirectoryError(
                f"{self.path} holds files that chatserver did not make, so it is left alone: "
                "choose an empty or a new directory with --data-dir."
            )
        owner = (self.path / MARKER).stat().st_uid
        if owner != os.geteuid():
            raise DataDirectoryError(
                f"{self.path} was made by another user (uid {owner}): run this as that user, "
                "or choose another directory with --data-dir."
            )

    def _take_lock(self) -> None:
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LEAVING_SECONDS
        while not _locked(lock):
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
            # A supervisor that was killed has left a watchdog, which is just tidying up.
            if _is_alive(holder) or time.monotonic() > deadline:
                os.close(lock)
                raise DirectoryInUseError(
                    f"Another chatserver dev (process {holder or 'unknown'}) is using "
                    f"{self.path}: stop it, or choose another directory with --data-dir."
                )
            time.sleep(0.05)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def _empty(self) -> None:
        for entry in self.path.iterdir():
            # An interrupted reset must leave a directory that is still known to be ours.
            if entry.name in {MARKER, "lock", *HARMLESS}:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: str) -> bool:
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _explaining_refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataDirectoryError(
            f"{path} cannot be written ({error.strerror}): make it writable for this user, "
            "or choose another directory with --data-dir."
        ) from error


def socket_directory(data: Path) -> Path:
    """Where the servers' sockets go: below `data`, or else in the temporary directory.

    The path must be short, and plain: a comma in it, for one, separates hosts in an address.

    The name is the same at every start, so that addresses stay and nothing piles up.
    Raises DataDirectoryError when neither will do.
    """
    name = f"chatserver-{os.geteuid()}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"
    candidates = [data / "run", Path(tempfile.gettempdir()) / name, Path("/tmp") / name]  # noqa: S108 - closed to others and checked below
    for candidate in candidates:
        short = len(os.fsencode(candidate / LONGEST_SOCKET_NAME)) <= LONGEST_SOCKET_PATH
        if short and PLAIN.fullmatch(str(candidate)):
            return candidate
    raise DataDirectoryError(
        f"No socket can be made below {data} nor in the temporary directory, because their paths "
        "are too long or hold unusual characters: choose another directory with --data-dir."
    )


def make_private(directory: Path, owners: set[int]) -> None:
    """Make a directory closed to everyone else, or make sure that the one there is.

    Raises DataDirectoryError when something that another user made stands in its place: in the
    temporary directory anybody may have been there first.
    """
    with _explaining_refusals(directory):
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in owners:
            raise DataDirectoryError(
                f"{directory} is not ours (uid {status.st_uid} made it): remove it, "
                "or choose another directory with --data-dir."
            )
        directory.chmod(0o700)
