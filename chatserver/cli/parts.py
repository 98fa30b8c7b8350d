"""`worker` and `scheduler`: the parts without a door."""

from chatserver.cli.loading import load as load_member
from chatserver.settings import load


def worker() -> None:
    """Do the background work until SIGTERM or Ctrl-C."""
    _become("worker")


def scheduler() -> None:
    """Plan the periodic work until SIGTERM or Ctrl-C. Several may run; one at a time works."""
    _become("scheduler")


def _become(part: str) -> None:
    load()  # wrong settings are said before anything is loaded
    # By name, never by import: the server does not know the workers.
    load_member("workers.main", "main")([part])
