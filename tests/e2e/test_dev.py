"""`chatserver dev`: one command starts everything, and its keys work with a stock client."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.integration.dev.processes import family_of, gone_within, is_alive, mentioning
from tests.support.clients import CHAT, all_see
from tests.support.javascript import JavaScript
from tests.support.nodes import ROOT

START_S = 60.0
STOP_S = 10.0


class Dev:
    """One run of the command, on a data directory that outlives it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.errors = directory / "stderr"
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "chatserver", "dev", "--json", "--port", "0"),
                    *("--data-dir", str(directory / "data")),
                ],
                cwd=ROOT,
                env=os.environ,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.family: set[int] = set()

    async def ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        async with asyncio.timeout(START_S):
            line = await asyncio.to_thread(self.process.stdout.readline)
        assert line, self.errors.read_text()
        self.family = family_of(self.process.pid)
        said: dict[str, Any] = orjson.loads(line)
        assert said["event"] == "ready"
        return said

    async def interrupt(self) -> int:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return await asyncio.to_thread(self.process.wait, STOP_S + 1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S + 1)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def left_over(self) -> set[int]:
        everyone = self.family | mentioning(str(self.directory))
        return {pid for pid in everyone if is_alive(pid)}


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cs-dev-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.js
async def test_its_keys_work_ctrl_c_ends_all_and_a_second_start_finds_the_data(
    directory: Path, js: JavaScript
) -> None:
    dev = Dev(directory)
    try:
        said = await dev.ready()
        keys = {user["external_id"]: user["key"] for user in said["users"]}
        assert set(keys) == {"alice", "bob"}
        alice = await js.device("alice", said["url"], keys["alice"]).connect()
        bob = await js.device("bob", said["url"], keys["bob"]).connect()
        room = await alice.create_room("bob", title="Kept")
        await alice.say(room["id"], "Hello, Bob")
        await bob.say(room["id"], "Hello, Alice")
        await all_see([alice, bob], room["id"], 3)
        await alice.close()
        await bob.close()
        assert await dev.interrupt() == 0, dev.errors.read_text()
        assert gone_within(dev.left_over(), seconds=STOP_S)
    finally:
        dev.close()

    again = Dev(directory)
    try:
        said = await again.ready()
        keys = {user["external_id"]: user["key"] for user in said["users"]}
        alice = await js.device("alice", said["url"], keys["alice"]).connect()
        history = await alice.call(CHAT, "message.history", {"room_id": room["id"]})
        assert [each["content"] for each in history["items"]] == ["Hello, Bob", "Hello, Alice"]
        await alice.say(room["id"], "Still here")
        await all_see([alice], room["id"], 4, first=4)
        await alice.close()
        assert await again.interrupt() == 0, again.errors.read_text()
        assert gone_within(again.left_over(), seconds=STOP_S)
    finally:
        again.close()
