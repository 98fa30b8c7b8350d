"""The fence around the unit tests holds."""

import asyncio
import socket
from pathlib import Path

import pytest


def test_a_unit_test_cannot_open_a_network_socket() -> None:
    # The library warns before it raises, and a warning is an error here.
    with pytest.raises(UserWarning, match="tried to use socket"):
        socket.socket(socket.AF_INET)


async def test_a_unit_test_cannot_reach_a_server_on_a_unix_socket(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="tried to connect"):
        await asyncio.open_unix_connection(str(tmp_path / "server"))
