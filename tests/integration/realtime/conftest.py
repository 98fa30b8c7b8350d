"""A real Redis, and a line to it that can be hurt."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from chatserver.dev.data_directory import socket_directory
from tests.support.proxy import Proxy
from tests.support.realtime import Truth
from tests.support.servers import TestValkey, free_port


@pytest.fixture(scope="session")
def valkey() -> Iterator[TestValkey]:
    directory = Path(tempfile.mkdtemp(prefix="chatserver-tests-"))
    server = TestValkey(
        socket_directory(directory), log_file=directory / "valkey.log", port=free_port()
    )
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
async def line(valkey: TestValkey) -> AsyncIterator[Proxy]:
    assert valkey.port is not None
    async with Proxy("127.0.0.1", valkey.port) as proxy:
        yield proxy


@pytest.fixture
def truth() -> Truth:
    return Truth()
