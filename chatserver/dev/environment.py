"""The settings that the processes of a development installation get."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chatserver.dev.data_directory import DataDirectory
from chatserver.dev.postgres import EmbeddedPostgres
from chatserver.dev.secrets import DevSecrets, write_private
from chatserver.dev.valkey import EmbeddedValkey

# Comfort for developers, such as higher limits; what the caller has set himself wins.
# The grace is what `supervisor.STOPPING` waits for, less what a worker takes to give jobs back.
COMFORT: Final[Mapping[str, str]] = {"LIMITS_FACTOR": "10", "WORKER_GRACE_S": "4"}
# They would tie a self-contained installation to servers that belong to something else.
FOREIGN: Final = ("DASHBOARD_DATABASE_URL",)


def settings_of(
    data: DataDirectory, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, secrets: DevSecrets
) -> dict[str, str]:
    """Everything another node needs to join this installation."""
    return {
        **COMFORT,
        "ENVIRONMENT": "development",
        "DATABASE_URL": postgres.application_url(),
        "MIGRATOR_DATABASE_URL": postgres.migrator_url(),
        "REDIS_URL": valkey.url,
        "QUEUE_REDIS_URL": valkey.url,
        "OPERATOR_KEY": secrets.operator_key,
        "KEY_PEPPER": secrets.key_pepper,
        "SECRET_KEYS": secrets.secret_keys,
        "FILES_DIR": str(data.files),
    }


def environment_with(settings: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment (keys of providers, proxies, log level) under our settings."""
    inherited = dict(os.environ)  # noqa: TID251 - handed on to children, nothing is read from it
    own = {name: value for name, value in inherited.items() if name not in FOREIGN}
    wanted = {name: own[name] for name in COMFORT if name in own}
    return {**own, **settings, **wanted, "PYTHONUNBUFFERED": "1"}


def write_environment(file: Path, settings: Mapping[str, str]) -> None:
    """Lines for a shell: `set -a; . FILE; set +a`."""
    lines = (f"{name}={_quoted(value)}\n" for name, value in settings.items())
    write_private(file, "".join(lines))


def _quoted(value: str) -> str:
    # Always quoted, where shlex would leave a plain word alone: one form is easier to read.
    return "'" + value.replace("'", "'\\''") + "'"
