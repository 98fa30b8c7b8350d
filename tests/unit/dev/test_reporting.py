import io
import json
import threading
import time
from pathlib import Path

from rich.console import Console

from chatserver.dev.demo import Demo, DemoClient, DemoUser
from chatserver.dev.reporting import WAITING_LINES, ConsoleReporter, JsonReporter, Ready

READY = Ready(
    url="http://127.0.0.1:8000",
    operator_key="operator",
    demo=Demo(
        client=DemoClient(id="c1", slug="demo", master_key="master"),
        users=(DemoUser("alice", "key-a"), DemoUser("bob", "key-b")),
    ),
    database_url="postgresql://app@/chatserver",
    redis_url="unix:///run/valkey.sock",
)


class StuckOutput(io.StringIO):
    """A pipe whose reader has stopped reading."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        self.released.wait()
        return super().write(text)


class ClosedOutput(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_the_line_for_programs_has_the_members_of_the_contract() -> None:
    assert json.loads(READY.as_json()) == {
        "event": "ready",
        "url": "http://127.0.0.1:8000",
        "operator_key": "operator",
        "client": {"id": "c1", "slug": "demo"},
        "master_key": "master",
        "users": [{"external_id": "alice", "key": "key-a"}, {"external_id": "bob", "key": "key-b"}],
        "database_url": "postgresql://app@/chatserver",
        "redis_url": "unix:///run/valkey.sock",
    }
    assert "\n" not in READY.as_json()


def test_people_read_the_keys_whole_and_ready_at_the_end() -> None:
    output = io.StringIO()
    reporter = ConsoleReporter(Console(file=output, width=20, soft_wrap=True, highlight=False))
    reporter.ready(READY)
    assert reporter.close()
    text = output.getvalue()
    assert "master key  master\n" in text
    assert 'as("key-a", "/rooms")' in text
    assert text.endswith("ready http://127.0.0.1:8000\n")


def test_what_children_write_is_shown_under_their_name_and_not_interpreted() -> None:
    output = io.StringIO()
    reporter = ConsoleReporter(Console(file=output, soft_wrap=True, highlight=False))
    reporter.line("serve", "[bold]GET /[/bold] :smile:")
    reporter.close()
    assert output.getvalue() == "serve     | [bold]GET /[/bold] :smile:\n"


def test_a_reader_that_stopped_does_not_stop_the_server() -> None:
    output = StuckOutput()
    reporter = ConsoleReporter(Console(file=output, soft_wrap=True, highlight=False))
    started = time.monotonic()
    for number in range(WAITING_LINES * 2):
        reporter.line("serve", f"line {number}")
    assert time.monotonic() - started < 5
    assert not reporter.close()
    output.released.set()


def test_a_closed_terminal_does_not_stop_the_server() -> None:
    reporter = ConsoleReporter(Console(file=ClosedOutput(), soft_wrap=True))
    for number in range(10):
        reporter.line("serve", f"line {number}")
    assert reporter.close()


def test_for_programs_the_output_of_children_goes_to_a_file(tmp_path: Path) -> None:
    reporter = JsonReporter(tmp_path / "dev.log")
    reporter.step("starting")
    reporter.line("serve", "GET /")
    reporter.close()
    reporter.line("serve", "too late")
    assert (tmp_path / "dev.log").read_text() == "dev       | starting\nserve     | GET /\n"
