"""Which connection the running command came from."""

from contextvars import ContextVar

from chatserver.realtime.hub import Connection

CONNECTION: ContextVar[Connection | None] = ContextVar("connection", default=None)


def current() -> Connection:
    """Give the connection whose command is running.

    Raises:
        LookupError: the command did not come from a socket.
    """
    connection = CONNECTION.get()
    if connection is None:
        raise LookupError("the command did not come from a socket")
    return connection
