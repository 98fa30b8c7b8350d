"""The PostgreSQL versions of this machine: what we promise to run on is not only the newest one."""

import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final, Self

from chatserver.dev.data_directory import socket_directory
from chatserver.dev.privileges import Privileges
from chatserver.dev.secrets import DevSecrets
from tests.support.servers import Database, run_sql

# Where Debian and Ubuntu keep them, each version beside the others.
_HOME: Final = Path("/usr/lib/postgresql")
_FLOOR: Final = 15
_START_S: Final = 20.0


def installed() -> list[Path]:
    """The programs of every version that is here, not too old, and has pgvector; oldest first."""
    versions = [path for path in _HOME.glob("[0-9]*") if _is_whole(path)]
    numbers = {int(path.name): path / "bin" for path in versions if path.name.isdigit()}
    return [numbers[number] for number in sorted(numbers) if number >= _FLOOR]


def _is_whole(home: Path) -> bool:
    vector = Path("/usr/share/postgresql", home.name, "extension", "vector.control")
    return (home / "bin" / "postgres").is_file() and vector.is_file()


class InstalledPostgres:
    """A cluster of one of them, on a private socket; use it as a context manager."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._privileges = Privileges.of_this_process()
        self._directory = Path(tempfile.mkdtemp(prefix="chatserver-tests-"))
        self._run_directory = socket_directory(self._directory)
        self._made = 0

    def __enter__(self) -> Self:
        uid = self._privileges.setup_uid
        data = self._directory / "data"
        for path in (self._directory, self._run_directory):
            path.mkdir(exist_ok=True)
            self._privileges.give(path, uid)
        initdb = f"-D {data} -U postgres -A trust -N -E UTF8 --locale C".split()
        subprocess.run(
            self._privileges.command([self._programs / "initdb", *initdb], uid=uid),
            check=True,
            capture_output=True,
            cwd="/",
        )
        self._server = subprocess.Popen(
            self._privileges.command(
                [
                    *(self._programs / "postgres", "-D", data, "-k", self._run_directory),
                    *("-c", "listen_addresses=", "-c", "fsync=off"),
                ],
                uid=uid,
            ),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        self._await()
        run_sql(self._url("postgres"), ["create role chatserver_migrator login createrole"])
        return self

    def __exit__(self, *_: object) -> None:
        self._server.send_signal(signal.SIGINT)
        self._server.wait(10)
        shutil.rmtree(self._directory, ignore_errors=True)
        shutil.rmtree(self._run_directory, ignore_errors=True)

    def empty_database(self) -> Database:
        self._made += 1
        name = f"test_{self._made}"
        run_sql(self._url("postgres"), [f"create database {name} owner chatserver_migrator"])
        return Database(
            name=name,
            admin_url=self._url("postgres", name),
            migrator_url=self._url("chatserver_migrator", name),
            app_url=self._url("chatserver_app", name),
            redis_url="unix:///nowhere",
            files_dir="/nowhere",
            secrets=DevSecrets.new(),
        )

    def drop(self, database: Database) -> None:
        run_sql(self._url("postgres"), [f"drop database if exists {database.name} with (force)"])

    def _url(self, role: str, database: str = "postgres") -> str:
        return f"postgresql://{role}:x@/{database}?host={self._run_directory}"

    def _await(self) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                run_sql(self._url("postgres"), ["select 1"])
            except (OSError, ConnectionError):
                if time.monotonic() > deadline or self._server.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return
