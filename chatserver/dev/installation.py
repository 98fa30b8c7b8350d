"""Puts a development installation together: the one place where its parts are built."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from chatserver.dev.child import Child, Watchdog
from chatserver.dev.data_directory import DataDirectory, socket_directory
from chatserver.dev.demo import Demo, introduce
from chatserver.dev.environment import environment_with, settings_of, write_environment
from chatserver.dev.errors import ServerStartError
from chatserver.dev.parts import ChildPart, ServerPart
from chatserver.dev.ports import ReservedPort
from chatserver.dev.postgres import DatabasePasswords, EmbeddedPostgres
from chatserver.dev.privileges import Privileges
from chatserver.dev.reporting import Ready, Reporter
from chatserver.dev.secrets import DevSecrets, load_or_make_secrets
from chatserver.dev.supervisor import Supervisor
from chatserver.dev.valkey import EmbeddedValkey

SERVING_SECONDS: Final = 60.0
PROBE_SECONDS: Final = 0.1

Introduce = Callable[..., Awaitable[Demo]]


@dataclass(frozen=True)
class Programs:
    """The command lines of our own processes; `serve` also gets `--host` and `--port`."""

    migrate: Sequence[str]
    serve: Sequence[str]
    worker: Sequence[str]
    scheduler: Sequence[str]

    @classmethod
    def of_chatserver(cls) -> "Programs":
        def command(name: str) -> list[str]:
            return [sys.executable, "-m", "chatserver", name]

        return cls(
            migrate=command("migrate"),
            serve=command("serve"),
            worker=command("worker"),
            scheduler=command("scheduler"),
        )


@dataclass(frozen=True)
class Installation:
    """The embedded servers of one data directory, and what others need to reach them."""

    data: DataDirectory
    privileges: Privileges
    secrets: DevSecrets
    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey

    @classmethod
    def at(cls, data: DataDirectory) -> "Installation":
        privileges = Privileges.of_this_process(owned=data.postgres)
        has_database = data.postgres.is_dir() and any(data.postgres.iterdir())
        secrets = load_or_make_secrets(data.secrets_file, database_exists=has_database)
        run_directory = socket_directory(data.path)
        postgres = EmbeddedPostgres(
            data.postgres,
            DatabasePasswords(
                superuser=secrets.postgres_password,
                migrator=secrets.migrator_password,
                application=secrets.app_password,
            ),
            run_directory=run_directory,
            log_file=data.logs / "postgres.log",
            privileges=privileges,
        )
        valkey = EmbeddedValkey(
            run_directory, log_file=data.logs / "valkey.log", privileges=privileges
        )
        return cls(data, privileges, secrets, postgres, valkey)

    def settings(self) -> dict[str, str]:
        return settings_of(self.data, self.postgres, self.valkey, self.secrets)


async def run_installation(
    data: DataDirectory,
    *,
    host: str,
    port: int,
    reporter: Reporter,
    programs: Programs | None = None,
    introduce_demo: Introduce = introduce,
) -> None:
    """Run everything in the opened data directory until a signal comes.

    Raises DevError, with a sentence for people, when it cannot be started.
    """
    with ReservedPort(host, port) as reserved:
        installation = Installation.at(data)
        settings = installation.settings()
        write_environment(data.environment_file, settings)
        environment = environment_with(settings)
        commands = programs or Programs.of_chatserver()
        url = f"http://{_reachable(host)}:{reserved.port}"

        def child(name: str, *arguments: str) -> ChildPart:
            return ChildPart(
                Child(
                    name,
                    arguments,
                    environment=environment,
                    privileges=installation.privileges,
                    write=reporter.line,
                )
            )

        async def announce() -> None:
            await _serving(url)
            reporter.step("making the demo client")
            operator_key = installation.secrets.operator_key
            demo = await introduce_demo(url, operator_key=operator_key, file=data.demo_file)
            reporter.ready(
                Ready(url, operator_key, demo, settings["DATABASE_URL"], settings["REDIS_URL"])
            )

        with Watchdog(installation.privileges, lock=data.lock) as watchdog:
            await Supervisor(
                servers=[ServerPart(installation.postgres), ServerPart(installation.valkey)],
                migrate=child("migrate", *commands.migrate),
                programs=[
                    child("serve", *commands.serve, "--host", host, "--port", str(reserved.port)),
                    child("worker", *commands.worker),
                    child("scheduler", *commands.scheduler),
                ],
                before_programs=reserved.let_go,
                announce=announce,
                abort=installation.postgres.abort,
                reporter=reporter,
                watchdog=watchdog,
            ).run()
    _remove_if_empty(installation.postgres.run_directory)


async def _serving(url: str) -> None:
    """Wait until the server answers that it can work."""
    deadline = time.monotonic() + SERVING_SECONDS
    said = "nothing"
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while time.monotonic() < deadline:
            try:
                async with session.get(f"{url}/health/ready") as answer:
                    if answer.ok:
                        return
                    said = (await answer.text())[:300]
            except (aiohttp.ClientError, TimeoutError) as error:
                said = str(error) or type(error).__name__
            await asyncio.sleep(PROBE_SECONDS)
    raise ServerStartError(
        f"The server was not ready after {SERVING_SECONDS:g} s; /health/ready said: {said}"
    )


def _reachable(host: str) -> str:
    """An address that a caller on this machine can use."""
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _remove_if_empty(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
