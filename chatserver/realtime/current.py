"""Which connection the running command came from. Only `Realtime` reads it."""

from contextvars import ContextVar

from chatserver.realtime.hub import Connection

CONNECTION: ContextVar[Connection | None] = ContextVar("connection", default=None)
