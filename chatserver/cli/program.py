"""All commands, one screen."""

import sys

import typer

from chatserver.cli import clients, database, documents, reference, secrets, users
from chatserver.cli.check import check
from chatserver.cli.dev import dev
from chatserver.cli.parts import scheduler, serve, worker
from chatserver.cli.seed import seed
from chatserver.cli.transfer import export, import_
from chatserver.infra.migrations import MigrationError
from chatserver.settings import SettingsError

program = typer.Typer(
    name="chatserver",
    help="A self-hosted real-time messaging server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
program.command()(dev)
program.command()(serve)
program.command()(worker)
program.command()(scheduler)
program.command()(database.migrate)
program.command()(check)
program.add_typer(clients.group, name="client")
program.add_typer(users.group, name="user")
program.add_typer(secrets.group, name="secrets")
program.command()(export)
program.command(name="import")(import_)
program.add_typer(documents.group, name="documents")
program.command()(seed)
program.command()(reference.openapi)
program.command()(reference.asyncapi)
program.command(hidden=True)(reference.docs)


def main() -> None:
    """Run a command; what a person can mend is a sentence, not a trace."""
    try:
        program()
    except (SettingsError, MigrationError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
