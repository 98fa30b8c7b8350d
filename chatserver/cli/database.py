"""`migrate`: the schema and the application role."""

from typing import Annotated

import typer
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from chatserver.infra import migrations, revisions
from chatserver.settings import SettingsError


class _Urls(BaseSettings):
    """All that `migrate` needs; it runs before anything else is set up."""

    model_config = SettingsConfigDict(
        env_file=(".env", ".env.local"), extra="ignore", env_ignore_empty=True
    )

    database_url: SecretStr
    migrator_database_url: SecretStr


def migrate(
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Bring the database to the newest schema and make the restricted application role."""
    try:
        urls = _Urls()  # both come from the environment
    except ValidationError as error:
        missing = ", ".join(str(found["loc"][0]).upper() for found in error.errors())
        msg = (
            f"{missing} is not set. `migrate` needs MIGRATOR_DATABASE_URL, a role that owns the"
            " database, and DATABASE_URL, whose role it creates for the server:"
            " postgresql://user:password@host:5432/database."
        )
        raise SettingsError(msg) from None
    migrations.migrate(
        urls.migrator_database_url.get_secret_value(), urls.database_url.get_secret_value()
    )
    head = revisions.head()
    role = migrations.Role.of(urls.database_url.get_secret_value()).name
    if json:
        typer.echo(f'{{"revision": "{head}", "application_role": "{role}"}}')
    else:
        typer.echo(f"The database is at revision {head}; the role {role} may read and write rows.")
