import socket
from collections.abc import Iterator
from typing import NoReturn

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A unit test reaches nothing; event loops keep the socket pair they wake themselves with."""

    def refuse(_socket: socket.socket, address: object) -> NoReturn:
        raise RuntimeError(f"A unit test tried to connect to {address}.")

    disable_socket(allow_unix_socket=True)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    enable_socket()
