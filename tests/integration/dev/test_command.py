"""`chatserver dev` as a process, with stand-ins for the server's own programs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dev import ordinary_user
from tests.integration.dev.processes import family_of, gone_within, is_alive, mentioning
from tests.support.servers import children_of

STANDINS = Path(__file__).with_name("standins.py")
STOP_SECONDS = 10.0


class Dev:
    """One run of the command."""

    def __init__(
        self, base: Path, *options: str, ordinary: bool = False, json: bool = True
    ) -> None:
        self.notes = base / "notes"
        self.notes.mkdir(exist_ok=True)
        self.data = base / "data"
        arguments = [sys.executable, str(STANDINS), "dev", "--notes", str(self.notes)]
        arguments += ["--data-dir", str(self.data), *(["--json"] if json else []), *options]
        if ordinary:
            ordinary_user.give(self.notes)
            arguments = ordinary_user.command(arguments)
        self._errors = (base / "stderr").open("a+")
        self.process = subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ordinary_user.ROOT)},
        )
        self.family: set[int] = set()

    def ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.stderr()
        self.family = family_of(self.process.pid)
        made: dict[str, Any] = json.loads(line)
        return made

    def pid_of(self, part: str) -> int | None:
        for pid in children_of(self.process.pid):
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue  # gone since it was listed
            if part == {"valkey-server": "valkey"}.get(name, name) or part in words[2:3]:
                return pid
        return None

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS + 1)

    def stderr(self) -> str:
        self._errors.flush()
        return Path(self._errors.name).read_text()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._errors.close()

    def left_over(self) -> set[int]:
        everyone = self.family | mentioning(str(self.data)) | mentioning(str(self.notes))
        return {pid for pid in everyone if is_alive(pid)}


Start = Callable[..., Dev]


@pytest.fixture
def base(own_temporary_directory: Path) -> Path:
    """Where the run keeps everything; ordinary users can get there."""
    made = own_temporary_directory / "base"
    made.mkdir()
    return ordinary_user.give(made)


@pytest.fixture
def start(base: Path) -> Iterator[Start]:
    runs: list[Dev] = []

    def begin(*options: str, ordinary: bool = False, json: bool = True) -> Dev:
        options = options or ("--port", "0")
        runs.append(Dev(base, *options, ordinary=ordinary, json=json))
        return runs[-1]

    yield begin
    for each in runs:
        each.close()
    assert gone_within(runs[0].left_over() if runs else set(), seconds=STOP_SECONDS)


def until(condition: Callable[[], bool], *, seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class TestStart:
    def test_the_ready_line_is_all_that_stands_on_stdout(self, start: Start) -> None:
        dev = start()
        ready = dev.ready()
        assert set(ready) == {
            *("event", "url", "operator_key", "client", "master_key", "users"),
            *("database_url", "redis_url"),
        }
        assert [user["external_id"] for user in ready["users"]] == ["alice", "bob"]
        assert answers(ready["url"])
        assert dev.end() == 0
        assert dev.process.stdout is not None
        assert dev.process.stdout.read() == ""

    def test_a_second_start_finds_keys_and_data(self, start: Start) -> None:
        dev = start()
        first = dev.ready()
        dev.end()
        made = (dev.data / "postgres" / "global" / "pg_control").stat().st_ino
        again = start()
        second = again.ready()
        same = ("operator_key", "master_key", "client", "database_url", "redis_url")
        assert {name: first[name] for name in same} == {name: second[name] for name in same}
        assert (dev.data / "postgres" / "global" / "pg_control").stat().st_ino == made
        again.end()

    def test_people_get_a_ready_line_too(self, start: Start) -> None:
        dev = start("--port", "0", json=False)
        assert dev.process.stdout is not None
        lines = iter(dev.process.stdout.readline, "")
        assert any(line.startswith("ready http://127.0.0.1:") for line in lines)
        assert dev.end(signal.SIGINT) == 0

    def test_everything_secret_is_closed_to_others(self, start: Start) -> None:
        dev = start()
        dev.ready()
        for name in ("secrets.json", "demo.json", "env", "logs/dev.log", "logs/postgres.log"):
            mode = (dev.data / name).stat().st_mode
            parent = (dev.data / name).parent.stat().st_mode
            assert mode & 0o077 == 0 or parent & 0o077 == 0, name
        dev.end()

    def test_an_ordinary_user_can_run_it(self, start: Start) -> None:
        dev = start(ordinary=True)
        ready = dev.ready()
        assert answers(ready["url"])
        owners = {Path(f"/proc/{pid}").stat().st_uid for pid in dev.family}
        assert owners == {ordinary_user.uid()}
        assert dev.end() == 0
        assert dev.left_over() == set()


class TestRefusals:
    def test_a_taken_port_is_named_with_a_way_out(self, start: Start) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            dev = start("--port", str(port))
            assert dev.process.wait(10) == 1
        assert f"Port {port} on 127.0.0.1 is taken" in dev.stderr()
        assert "--port" in dev.stderr()
        assert "Traceback" not in dev.stderr()

    def test_a_second_dev_in_the_same_directory_is_refused(self, start: Start) -> None:
        first = start()
        ready = first.ready()
        second = start()
        assert second.process.wait(10) == 1
        assert f"process {first.process.pid}" in second.stderr()
        assert answers(ready["url"])
        first.end()

    def test_an_unwritable_directory_is_named_with_a_way_out(
        self, start: Start, base: Path
    ) -> None:
        (base / "notes").mkdir()
        (base / "stderr").touch()
        base.chmod(0o555)
        if os.geteuid() == 0:
            os.chown(base, 0, 0)
        dev = start(ordinary=True)
        try:
            assert dev.process.wait(10) == 1
        finally:
            base.chmod(0o755)
        assert f"{dev.data} cannot be written (Permission denied)" in dev.stderr()
        assert "--data-dir" in dev.stderr()

    def test_a_half_made_database_is_named_with_a_way_out(self, start: Start, base: Path) -> None:
        start().ready()
        first = base / "data" / "postgres"
        start_of_end = mentioning(str(first))
        assert start_of_end
        # Stopped by the next lines as a user would: Ctrl-C, then a copy that lost a file.
        for pid in mentioning(str(STANDINS)):
            if b"\0dev\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGINT)
        assert gone_within(start_of_end, seconds=STOP_SECONDS)
        (first / "global" / "pg_control").unlink()
        dev = start()
        assert dev.process.wait(15) == 1
        assert "only half a database" in dev.stderr()
        assert "--reset" in dev.stderr()

    def test_reset_begins_anew(self, start: Start) -> None:
        dev = start()
        before = dev.ready()
        dev.end()
        again = start("--port", "0", "--reset")
        assert again.ready()["operator_key"] != before["operator_key"]
        again.end()

    @pytest.mark.parametrize("part", ["migrate", "serve"])
    def test_a_part_that_cannot_start_ends_it_with_its_last_words(
        self, start: Start, base: Path, part: str
    ) -> None:
        (base / "notes").mkdir()
        (base / "notes" / f"{part}.fails").touch()
        dev = start()
        assert dev.process.wait(30) == 1
        assert f"{part} cannot work today" in dev.stderr()
        assert dev.left_over() == set()


class TestCrashes:
    @pytest.mark.parametrize("part", ["serve", "worker", "scheduler", "postgres", "valkey"])
    def test_a_killed_part_is_reported_and_started_again(self, start: Start, part: str) -> None:
        dev = start()
        ready = dev.ready()
        killed = dev.pid_of(part)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert until(lambda: dev.pid_of(part) not in {None, killed})
        assert f"{part} ended unexpectedly (by SIGKILL)" in dev.stderr()
        assert until(lambda: answers(ready["url"]))
        dev.family |= family_of(dev.process.pid)
        assert dev.end() == 0
        assert dev.left_over() == set()


class TestEnd:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_stops_everything_in_time(self, start: Start, number: signal.Signals) -> None:
        dev = start()
        dev.ready()
        assert len(dev.family) > 8
        started = time.monotonic()
        assert dev.end(number) == 0
        assert time.monotonic() - started < STOP_SECONDS
        assert dev.left_over() == set()

    def test_parts_that_do_not_listen_are_ended_by_force(self, start: Start, base: Path) -> None:
        (base / "notes").mkdir()
        for note in ("worker.stubborn", "scheduler.stubborn", "worker.with_child"):
            (base / "notes" / note).touch()
        dev = start()
        dev.ready()
        started = time.monotonic()
        assert dev.end() == 0
        assert time.monotonic() - started < STOP_SECONDS
        assert dev.left_over() == set()

    @pytest.mark.parametrize("delay", [0.3, 0.6, 0.9, 1.3])
    def test_a_signal_in_the_middle_of_the_start_leaves_nothing(
        self, start: Start, delay: float
    ) -> None:
        dev = start()
        assert until(lambda: bool(mentioning(str(dev.data / "postgres"))))
        time.sleep(delay - 0.3)
        dev.family = family_of(dev.process.pid)
        assert dev.end() == 0
        assert dev.left_over() == set()

    def test_nothing_outlives_a_supervisor_that_was_killed(self, start: Start, base: Path) -> None:
        (base / "notes").mkdir()
        for note in ("worker.stubborn", "worker.with_child"):
            (base / "notes" / note).touch()
        dev = start()
        dev.ready()
        dev.end(signal.SIGKILL)
        assert gone_within(dev.left_over(), seconds=STOP_SECONDS)

    def test_a_start_right_after_a_kill_waits_and_works(self, start: Start) -> None:
        dev = start()
        first = dev.ready()
        port = first["url"].rpartition(":")[2]
        dev.end(signal.SIGKILL)
        again = start("--port", port)
        second = again.ready()
        assert second["url"] == first["url"]
        assert second["master_key"] == first["master_key"]
        assert again.end() == 0
