"""The secrets of a development installation: made once, kept in the data directory."""

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from chatserver.dev.errors import DataDirectoryError


@dataclass(frozen=True)
class DevSecrets:
    operator_key: str
    key_pepper: str
    secret_keys: str
    postgres_password: str
    migrator_password: str
    app_password: str

    @classmethod
    def new(cls) -> "DevSecrets":
        return cls(
            operator_key=secrets.token_urlsafe(32),
            key_pepper=_key(),
            secret_keys=_key(),
            postgres_password=secrets.token_urlsafe(24),
            migrator_password=secrets.token_urlsafe(24),
            app_password=secrets.token_urlsafe(24),
        )

    def __repr__(self) -> str:
        return "DevSecrets(…)"


def load_or_make_secrets(file: Path, *, database_exists: bool) -> DevSecrets:
    """Read the secrets, or make them for a new installation.

    Raises DataDirectoryError when they are gone or damaged while the database they belong to is
    there: new ones would not open it.
    """
    if not file.exists():
        if database_exists:
            raise DataDirectoryError(
                f"{file} is missing, and without it the database beside it cannot be opened: "
                "put it back, or begin anew with --reset (this deletes all data)."
            )
        made = DevSecrets.new()
        write_private(file, json.dumps(asdict(made), indent=2) + "\n")
        return made
    try:
        return DevSecrets(**json.loads(file.read_text()))
    except (ValueError, TypeError, OSError) as error:
        raise DataDirectoryError(
            f"{file} cannot be read as the secrets of this installation: "
            "put a good copy back, or begin anew with --reset (this deletes all data)."
        ) from error


def write_private(file: Path, text: str) -> None:
    """Replace the file in one step, readable by us alone at every moment."""
    draft = file.with_name(f"{file.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    draft.replace(file)


def _key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
