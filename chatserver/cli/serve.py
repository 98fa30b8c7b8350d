"""`serve`: the web node."""

from typing import Annotated

import typer

from chatserver.cli import node
from chatserver.cli import processes as processes_of
from chatserver.infra import logging
from chatserver.settings import load


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 8000,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Web processes on the one port.")
    ] = None,
) -> None:
    """Serve REST and Socket.IO until SIGTERM or Ctrl-C.

    Several processes share the port; each takes what the others accepted for it, so that no
    balancer needs to be sticky.
    """
    settings = load()
    logging.configure(settings.log_level, settings.log_format, settings.log_file)
    wanted = processes or settings.processes
    if wanted > 1:
        raise typer.Exit(processes_of.run(settings, host=host, port=port, processes=wanted))
    raise typer.Exit(node.run(settings, host=host, port=port))
