"""Finding out before anything is started whether the server will get its port."""

import errno
import socket
from contextlib import suppress
from typing import Self

from chatserver.dev.errors import PortTakenError


class ReservedPort:
    """A port nobody else can take until it is let go, right before the server takes it.

    Port 0 reserves any free one. Raises PortTakenError when the port cannot be had.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            self._socket = _bound(host, port)
        except OSError as error:
            raise PortTakenError(_explanation(host, port, error)) from error
        self.port: int = self._socket.getsockname()[1]

    def let_go(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, kind, protocol)
    try:
        if port != 0:
            # As the server does: a port whose last connections are still closing is free.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except BaseException:
        with suppress(OSError):
            made.close()
        raise
    return made


def _explanation(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is taken by another program: stop that program, "
            f"or choose another port with --port {port % 65535 + 1} (--port 0 takes any free one)."
        )
    if error.errno == errno.EACCES:
        return (
            f"Port {port} may only be used by root: choose one above 1023, "
            "for example with --port 8000."
        )
    return (
        f"Nothing can listen on {host}, port {port} ({error.strerror or error}): "
        "choose another address with --host, for example 127.0.0.1."
    )
