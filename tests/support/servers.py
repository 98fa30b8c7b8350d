"""Real PostgreSQL and Valkey for the tests, and the ways to hurt them.

Everything here is synchronous and may be called inside a running loop, too.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncpg

from chatserver.dev.data_directory import socket_directory
from chatserver.dev.postgres import DatabasePasswords, EmbeddedPostgres
from chatserver.dev.privileges import Privileges
from chatserver.dev.secrets import DevSecrets
from chatserver.dev.valkey import EmbeddedValkey

T = TypeVar("T")
Migrate = Callable[[Mapping[str, str]], None]

TEMPLATE = "chatserver_template"


@dataclass(frozen=True)
class Database:
    """A migrated database of one's own."""

    name: str
    admin_url: str
    migrator_url: str
    app_url: str
    redis_url: str
    secrets: DevSecrets
    # Where files go; empty: wherever the settings say.
    files_dir: str = ""

    def settings(self) -> dict[str, str]:
        """The environment variables with which a process works on this database."""
        return {
            "ENVIRONMENT": "development",
            "DATABASE_URL": self.app_url,
            "MIGRATOR_DATABASE_URL": self.migrator_url,
            "REDIS_URL": self.redis_url,
            "QUEUE_REDIS_URL": self.redis_url,
            "OPERATOR_KEY": self.secrets.operator_key,
            "KEY_PEPPER": self.secrets.key_pepper,
            "SECRET_KEYS": self.secrets.secret_keys,
            # Tests of refusals don't want to wait for them.
            "CONNECT_REFUSAL_S": "0",
            **({"FILES_DIR": self.files_dir} if self.files_dir else {}),
        }

    def environment(self) -> dict[str, str]:
        """The same on top of our own environment, for a subprocess."""
        return {**os.environ, **self.settings()}


class TestPostgres(EmbeddedPostgres):
    """An EmbeddedPostgres that can also be frozen, all of its processes at once."""

    __test__ = False

    def pause(self) -> None:
        signal_all(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        signal_all(self.pid, signal.SIGCONT)


class TestValkey(EmbeddedValkey):
    __test__ = False

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def restart(self) -> None:
        """As after a crash: it comes back empty."""
        self.kill()
        self.start()


class Servers:
    """One PostgreSQL and one Valkey for a test session; use it as a context manager.

    Start it in the main thread. `tcp=True` gives Valkey a loopback port instead of a socket, for
    proxies in between; `durable=False` leaves out every fsync, which is fine unless the machine
    itself crashes (kill -9 of the server loses nothing).
    """

    def __init__(self, *, tcp: bool = False, durable: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="chatserver-tests-"))
        self.secrets = DevSecrets.new()
        self._run_directory = socket_directory(self.directory)
        privileges = Privileges.of_this_process()
        self.postgres = TestPostgres(
            self.directory / "postgres",
            DatabasePasswords(
                superuser=self.secrets.postgres_password,
                migrator=self.secrets.migrator_password,
                application=self.secrets.app_password,
            ),
            run_directory=self._run_directory,
            log_file=self.directory / "postgres.log",
            privileges=privileges,
            durable=durable,
        )
        self.valkey = TestValkey(
            self._run_directory,
            log_file=self.directory / "valkey.log",
            privileges=privileges,
            port=free_port() if tcp else None,
        )
        self._made = 0
        self._template: str | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        try:
            self.postgres.start()
            self.valkey.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for server in (self.valkey, self.postgres):
            server.stop(timeout_seconds=5.0)
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self._run_directory, ignore_errors=True)

    def database(self, name: str) -> Database:
        """The addresses of a database, whether it exists or not."""
        return Database(
            name=name,
            admin_url=self.postgres.admin_url(name),
            migrator_url=self.postgres.migrator_url(name),
            app_url=self.postgres.application_url(name),
            redis_url=self.valkey.url,
            files_dir=str(self.directory / "files" / name),
            secrets=self.secrets,
        )

    def empty_database(self) -> Database:
        """A database with nothing but the extension in it, for tests of the migrations."""
        # The cluster's own database stays untouched, so that it can be the first template.
        return self._copy_of("chatserver")

    def fresh_database(self, migrate: Migrate | None = None) -> Database:
        """A copy of a database that was migrated once for the whole session."""
        if self._template is None:
            template = self._copy_of("chatserver", TEMPLATE)
            (migrate or run_migrate)(template.environment())
            self._template = template.name
        return self._copy_of(self._template)

    def drop(self, database: Database) -> None:
        self.sql(f'drop database if exists "{database.name}" with (force)')

    def sql(self, *statements: str, database: str = "postgres") -> None:
        """Run statements as the superuser, each in a transaction of its own."""
        run_sql(self.postgres.admin_url(database), statements)

    def _copy_of(self, template: str, name: str | None = None) -> Database:
        if name is None:
            self._made += 1
            name = f"test_{self._made}"
        self.sql(
            # Without fsync, copying files is cheaper than writing every page to the log.
            f'create database "{name}" template "{template}" strategy file_copy'
            " owner chatserver_migrator"
        )
        run(self._copy_settings(template, name))
        return self.database(name)

    async def _copy_settings(self, template: str, name: str) -> None:
        """What belongs to a database from outside (grants, settings of roles) is not copied."""
        connection = await asyncpg.connect(self.postgres.admin_url())
        try:
            settings = await connection.fetch(
                "select setrole::regrole::text as role, unnest(setconfig) as setting"
                " from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase"
                " where d.datname = $1",
                template,
            )
            for row in settings:
                key, _, value = row["setting"].partition("=")
                whose = "all" if row["role"] == "-" else row["role"]
                quoted = value.replace("'", "''")
                await connection.execute(
                    f"alter role {whose} in database \"{name}\" set {key} = '{quoted}'"
                )
            await connection.execute(
                "update pg_database made set datacl = template.datacl from pg_database template"
                " where template.datname = $1 and made.datname = $2",
                template,
                name,
            )
        finally:
            await connection.close()


def run_migrate(environment: Mapping[str, str]) -> None:
    """`chatserver migrate` as an operator runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "chatserver", "migrate"],
        env=dict(environment),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"chatserver migrate failed: {done.stdout}{done.stderr}")


def run_sql(url: str, statements: Iterable[str]) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    run(execute())


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in a thread and loop of its own."""
    outcome: list[T] = []
    errors: list[BaseException] = []

    def inside() -> None:
        try:
            outcome.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised again in the calling thread
            errors.append(error)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


def signal_all(pid: int | None, number: signal.Signals) -> None:
    """Send a signal to a process and all that descend from it, parents first."""
    if pid is not None:
        with suppress(ProcessLookupError):  # a child that ends when its parent goes on
            os.kill(pid, number)
        for child in children_of(pid):
            signal_all(child, number)


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name stands in parentheses and may hold anything, so read from its end.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
