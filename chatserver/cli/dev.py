"""`chatserver dev`: everything in one process tree, with nothing to install."""

from pathlib import Path
from typing import Annotated

import typer

from chatserver.dev.command import run


def dev(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path(".chatserver"),
    reset: Annotated[bool, typer.Option("--reset", help="Delete all data first.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON when ready.")
    ] = False,
) -> None:
    """Start PostgreSQL, Redis, the server, a worker and a scheduler, with demo users.

    Ctrl-C stops all of it; the data is found again at the next start.
    """
    raise typer.Exit(run(data_dir, host=host, port=port, reset=reset, json=json))
