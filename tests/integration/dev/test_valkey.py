import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from chatserver.dev.data_directory import socket_directory
from chatserver.dev.errors import ServerStartError
from chatserver.dev.valkey import EmbeddedValkey
from tests.support.servers import free_port


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    made = EmbeddedValkey(socket_directory(tmp_path), log_file=tmp_path / "valkey.log")
    yield made
    made.stop()


def connect(server: EmbeddedValkey) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def test_it_answers_on_a_private_socket_and_on_no_port(valkey: EmbeddedValkey) -> None:
    valkey.start()
    with connect(valkey) as client:
        assert client.ping()
        assert client.config_get("port")["port"] == "0"
    assert valkey.run_directory.stat().st_mode & 0o777 == 0o700


def test_it_comes_back_empty_after_kill_9(valkey: EmbeddedValkey) -> None:
    valkey.start()
    with connect(valkey) as client:
        client.set("kept", "no")
    valkey.kill()
    valkey.start()
    with connect(valkey) as client:
        assert client.get("kept") is None


def test_it_stops_in_good_order(valkey: EmbeddedValkey) -> None:
    valkey.start()
    valkey.stop()
    assert valkey.return_code == 0
    assert not valkey.socket_path.exists()


def test_a_frozen_server_can_be_stopped(valkey: EmbeddedValkey) -> None:
    valkey.start()
    valkey.signal(signal.SIGSTOP)
    valkey.stop(timeout_seconds=2)
    assert not valkey.is_running


def test_tests_can_have_it_on_a_loopback_port(tmp_path: Path) -> None:
    valkey = EmbeddedValkey(
        socket_directory(tmp_path), log_file=tmp_path / "valkey.log", port=free_port()
    )
    valkey.start()
    try:
        with connect(valkey) as client:
            assert client.ping()
            assert client.config_get("bind")["bind"] == "127.0.0.1"
    finally:
        valkey.stop()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with redis_on(tmp_path / "first") as first:
        second = EmbeddedValkey(
            socket_directory(tmp_path), log_file=tmp_path / "valkey.log", port=first.port
        )
        with pytest.raises(ServerStartError, match=r"valkey ended while starting.*in use"):
            second.start()


class redis_on:  # noqa: N801 - used like a function
    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._server = EmbeddedValkey(
            socket_directory(directory), log_file=directory / "valkey.log", port=free_port()
        )

    def __enter__(self) -> EmbeddedValkey:
        self._server.start()
        return self._server

    def __exit__(self, *_: object) -> None:
        self._server.stop()
