"""All commands, one screen. A command's own code is loaded when it is asked for, not before."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import typer

from chatserver.cli.loading import load
from chatserver.kernel.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Entry:
    """A command or a group of them. `help` is what its own text begins with; a test compares."""

    name: str
    module: str
    member: str
    help: str
    hidden: bool = False

    def load(self) -> Any:  # noqa: ANN401 - a function, or a `typer.Typer`
        return load(self.module, self.member)


_IN: Final = "chatserver.cli."
ENTRIES: Final = (
    Entry(
        "dev",
        _IN + "dev",
        "dev",
        "Start PostgreSQL, Redis, the server, a worker and a scheduler, with demo users.",
    ),
    Entry("serve", _IN + "serve", "serve", "Serve REST and Socket.IO until SIGTERM or Ctrl-C."),
    Entry("worker", _IN + "parts", "worker", "Do the background work until SIGTERM or Ctrl-C."),
    Entry(
        "scheduler",
        _IN + "parts",
        "scheduler",
        "Plan the periodic work until SIGTERM or Ctrl-C. Several may run; one at a time works.",
    ),
    Entry(
        "migrate",
        _IN + "database",
        "migrate",
        "Bring the database to the newest schema and make the restricted application role.",
    ),
    Entry(
        "check",
        _IN + "check",
        "check",
        "Check settings, database, roles, schema, Redis, storage. Exits 1 when one needs mending.",
    ),
    Entry("client", _IN + "clients", "group", "Tenants: applications that use the server."),
    Entry("user", _IN + "users", "group", "Users of a client."),
    Entry(
        "secrets",
        _IN + "secrets",
        "group",
        "Stored credentials and the keys that protect them.",
    ),
    Entry(
        "export",
        _IN + "transfer",
        "export",
        "Write a client's users, rooms, members and messages as NDJSON.",
    ),
    Entry(
        "import",
        _IN + "transfer",
        "import_",
        "Take users, rooms, members and messages in, as `export` or another system wrote them.",
    ),
    Entry("files", _IN + "files", "group", "The contents of files."),
    Entry("documents", _IN + "documents", "group", "Documents of bots."),
    Entry(
        "seed",
        _IN + "seed",
        "seed",
        "Make demo data: people, rooms, messages, reactions, a bot with documents.",
    ),
    Entry(
        "openapi", _IN + "reference", "openapi", "Print the OpenAPI 3.1 document of the REST API."
    ),
    Entry(
        "asyncapi",
        _IN + "reference",
        "asyncapi",
        "Print the AsyncAPI 3.0 document of the Socket.IO namespaces.",
    ),
    Entry(
        "docs",
        _IN + "reference",
        "docs",
        "Write the generated pages of docs/ anew from the code.",
        hidden=True,
    ),
)


def build(arguments: Sequence[str]) -> typer.Typer:
    """Give the program with the command that the arguments name; of the others only their text."""
    program = typer.Typer(
        name="chatserver",
        help="A self-hosted real-time messaging server.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    # The program itself has no option that takes a value.
    asked = next((each for each in arguments if not each.startswith("-")), None)
    for entry in ENTRIES:
        found = entry.load() if entry.name == asked else _unloaded
        if isinstance(found, typer.Typer):
            program.add_typer(found, name=entry.name)
        else:
            help_ = entry.help if found is _unloaded else None
            program.command(name=entry.name, help=help_, hidden=entry.hidden)(found)
    return program


def _unloaded() -> None:
    """Stand for a command that nobody asked for."""


def main() -> None:
    """Run a command; what a person can mend is a sentence, not a trace."""
    try:
        build(sys.argv[1:])()
    except OperatorError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
