import asyncio
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from chatserver.infra.logging import (
    KEPT_FILES,
    TRACE,
    DailyFileHandler,
    LogFileError,
    LogFormat,
    Trace,
    configure,
)

KID = "0123456789abcdEF"
SECRET = "s3cr3t" * 8
SCOPED_KEY = f"csu_{KID}_1_{SECRET}"
DATABASE_URL = f"postgresql://app:{SECRET}@db/chat"

FORMATS: tuple[LogFormat, ...] = ("console", "json")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging belongs to the process: every test gives it back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook
    yield
    for handler in root.handlers[:]:
        root.removeHandler(handler)
        if handler not in handlers:
            handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def write(handler: logging.Handler, day: str, text: str) -> None:
    record = logging.makeLogRecord({"msg": text})
    record.created = datetime.fromisoformat(f"{day}T00:00:01+00:00").timestamp()
    handler.handle(record)


def raise_with_secrets() -> None:
    token = SCOPED_KEY
    try:
        raise ValueError(f"no route for {DATABASE_URL}")
    except ValueError as error:
        raise RuntimeError(f"refused Bearer {token}") from error


class TestLines:
    def test_an_event_is_one_json_line_with_its_fields(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        configure("info", "json")
        structlog.get_logger("chatserver.rooms").info("room_created", room_id="r1", members=2)
        captured = capfd.readouterr()
        assert captured.out == ""
        (line,) = lines(captured.err)
        assert datetime.fromisoformat(line.pop("timestamp")).tzinfo is not None
        assert line == {
            "event": "room_created",
            "level": "info",
            "logger": "chatserver.rooms",
            "room_id": "r1",
            "members": 2,
        }

    @pytest.mark.parametrize("log_format", FORMATS)
    def test_a_library_goes_through_the_same_renderer(
        self, log_format: LogFormat, capfd: pytest.CaptureFixture[str]
    ) -> None:
        configure("INFO", log_format)
        logging.getLogger("aiohttp.server").warning("took %d ms", 7, extra={"path": "/health"})
        error = capfd.readouterr().err
        assert "took 7 ms" in error
        assert "/health" in error
        assert "aiohttp.server" in error
        assert len(error.splitlines()) == 1

    def test_what_is_bound_to_a_task_stands_on_its_lines_only(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        configure("INFO", "json")

        async def work(name: str) -> None:
            with structlog.contextvars.bound_contextvars(trace_id=name, request_id=f"r-{name}"):
                await asyncio.sleep(0)
                structlog.get_logger().info("ours")
                logging.getLogger("library").info("theirs")

        async def both() -> None:
            await asyncio.gather(work("a"), work("b"))

        asyncio.run(both())
        logging.getLogger("library").info("outside")
        found = [
            (line["event"], line.get("trace_id"), line.get("request_id"))
            for line in lines(capfd.readouterr().err)
        ]
        assert sorted(found, key=str) == [
            ("ours", "a", "r-a"),
            ("ours", "b", "r-b"),
            ("outside", None, None),
            ("theirs", "a", "r-a"),
            ("theirs", "b", "r-b"),
        ]

    def test_a_line_carries_the_id_of_the_command_that_its_task_runs(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        configure("INFO", "json")
        traces = {"a": Trace(), "b": Trace()}

        async def command(name: str) -> None:
            TRACE.set(traces[name])
            await asyncio.sleep(0)
            structlog.get_logger().info(name)
            logging.getLogger("library").info(name)

        async def both() -> None:
            await asyncio.gather(command("a"), command("b"))

        asyncio.run(both())
        structlog.get_logger().info("outside")
        found = [(line["event"], line.get("trace_id")) for line in lines(capfd.readouterr().err)]
        expected = [(name, trace.id) for name, trace in traces.items()] * 2
        assert sorted(found, key=str) == sorted([*expected, ("outside", None)], key=str)
        assert traces["a"].id != traces["b"].id

    def test_the_level_decides_for_ours_and_theirs(self, capfd: pytest.CaptureFixture[str]) -> None:
        configure("WARNING", "json")
        structlog.get_logger().info("quiet")
        logging.getLogger("library").info("quiet")
        structlog.get_logger().warning("loud")
        assert [line["event"] for line in lines(capfd.readouterr().err)] == ["loud"]

    @pytest.mark.parametrize("name", ["socketio.server", "engineio.server", "sqlalchemy.engine"])
    def test_libraries_that_write_whole_packets_stay_quiet_even_at_debug(
        self, name: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        # A stock server that some other test made has set a level of its own, for good.
        logging.getLogger(name).setLevel(logging.NOTSET)
        configure("DEBUG", "json")
        logging.getLogger(name).info("received packet: somebody's message")
        logging.getLogger(name).warning("important")
        assert [line["event"] for line in lines(capfd.readouterr().err)] == ["important"]

    def test_configuring_again_does_not_double_the_lines(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        configure("INFO", "console")
        configure("INFO", "json")
        structlog.get_logger().info("once")
        assert len(lines(capfd.readouterr().err)) == 1


@pytest.mark.parametrize("log_format", FORMATS)
class TestSecrets:
    def test_no_field_text_or_exception_lets_a_secret_out(
        self, log_format: LogFormat, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "server.log"
        configure("DEBUG", log_format, file)
        ours, theirs = structlog.get_logger("ours"), logging.getLogger("theirs")
        structlog.contextvars.bind_contextvars(authorization=SECRET)

        ours.info(f"connected to {DATABASE_URL}")
        ours.info("positional %s", SCOPED_KEY)
        ours.bind(token=SECRET).info("bound")
        ours.info("nested", auth={"token": SECRET}, list=[{"deep": f"Bearer {SECRET}"}])
        ours.info("object", error=ValueError(SCOPED_KEY), raw=SCOPED_KEY.encode())
        ours.info("name", **{SCOPED_KEY: 1})
        theirs.info("GET /socket.io/?token=%s", SCOPED_KEY)
        theirs.info("headers %s", {"Authorization": f"Bearer {SECRET}"})
        theirs.info("extra", extra={"password": SECRET, "dsn": DATABASE_URL})
        ours.info("stack", stack_info=True, url=DATABASE_URL)
        try:
            raise_with_secrets()
        except RuntimeError:
            ours.exception("failed")
            theirs.exception("failed too")

        error, written = capfd.readouterr().err, file.read_text()
        for output in (error, written):
            assert "s3cr3t" not in output
            assert KID in output
            assert output.count("RuntimeError: refused Bearer ***") == 2
            assert "ValueError: no route for postgresql://app:***@db/chat" in output

    def test_a_line_that_cannot_be_formatted_is_reported_without_its_arguments(
        self, log_format: LogFormat, capfd: pytest.CaptureFixture[str]
    ) -> None:
        configure("INFO", log_format)
        logging.getLogger("theirs").info("%d connections", SCOPED_KEY)
        error = capfd.readouterr().err
        assert "theirs" in error
        assert "could not be written: TypeError" in error
        assert "s3cr3t" not in error

    def test_a_crash_is_logged_and_redacted(
        self, log_format: LogFormat, capfd: pytest.CaptureFixture[str]
    ) -> None:
        configure("INFO", log_format)
        try:
            raise_with_secrets()
        except RuntimeError as error:
            sys.excepthook(RuntimeError, error, error.__traceback__)
        thread = threading.Thread(target=raise_with_secrets)
        thread.start()
        thread.join()
        output = capfd.readouterr().err
        assert "process_crashed" in output
        assert "thread_crashed" in output
        assert output.count("RuntimeError: refused Bearer ***") == 2
        assert "s3cr3t" not in output

    def test_a_warning_is_logged_and_redacted(
        self, log_format: LogFormat, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            configure("INFO", log_format)
            warnings.warn(f"deprecated: {DATABASE_URL}", UserWarning, stacklevel=1)
        output = capfd.readouterr().err
        assert "deprecated" in output
        assert "s3cr3t" not in output


class TestInjection:
    HOSTILE = "alice\n2026-01-01 [info] forged\r\x1b[2J\x1b]0;title\x07\x9b31m\u2028\u202egpj\ud800"

    def test_no_text_of_a_caller_starts_a_line_or_steers_the_terminal(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        configure("INFO", "console")
        hostile = self.HOSTILE
        structlog.get_logger().info(hostile, user=hostile, **{hostile: [hostile]})
        logging.getLogger("library").info("user %s", hostile)
        output = capfd.readouterr().err
        assert len(output.split("\n")) == 3
        assert not any(mark in output for mark in "\r\x1b\x07\x9b\u2028\u202e")
        assert "\\n2026-01-01 [info] forged\\r\\x1b[2J" in output

    def test_an_exception_cannot_forge_a_line_either(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        configure("INFO", "console")
        try:
            raise ValueError(self.HOSTILE)
        except ValueError:
            structlog.get_logger().exception("failed")
        first, *rest = capfd.readouterr().err.rstrip("\n").split("\n")
        assert "failed" in first
        assert len(rest) > 3
        assert all(line.startswith("  | ") for line in rest)
        assert not any(mark in "".join(rest) for mark in "\r\x1b\x07\x9b\u2028\u202e")

    def test_json_keeps_the_text_and_stays_one_line(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        configure("INFO", "json")
        structlog.get_logger().info("said", text=self.HOSTILE)
        output = capfd.readouterr().err
        assert len(output.splitlines()) == 1
        assert json.loads(output)["text"] == self.HOSTILE


class TestFile:
    def test_the_file_holds_json_lines_while_stderr_is_for_people(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "logs" / "server.log"
        configure("INFO", "console", file)
        structlog.get_logger().info("hello", who="ä")
        assert "hello" in capfd.readouterr().err
        (line,) = lines(file.read_text())
        assert (line["event"], line["who"]) == ("hello", "ä")

    def test_two_processes_that_share_a_file_lose_no_line_at_midnight(self, tmp_path: Path) -> None:
        file = tmp_path / "server.log"
        one, other = DailyFileHandler(file), DailyFileHandler(file)
        for day in ("2100-01-01", "2100-01-02", "2100-01-03"):
            write(one, day, f"one {day}")
            write(other, day, f"other {day}")
            write(one, day, f"one again {day}")
        one.close()
        other.close()

        for path in (
            tmp_path / "server.log.2100-01-01",
            tmp_path / "server.log.2100-01-02",
            file,
        ):
            day = "2100-01-03" if path == file else path.suffix[1:]
            assert path.read_text().splitlines() == [
                f"one {day}",
                f"other {day}",
                f"one again {day}",
            ]

    def test_a_restart_the_next_day_puts_yesterdays_file_aside(self, tmp_path: Path) -> None:
        file = tmp_path / "server.log"
        file.write_text("yesterday\n")
        yesterday = datetime(2100, 1, 1, 23, 59, tzinfo=UTC).timestamp()
        os.utime(file, (yesterday, yesterday))
        handler = DailyFileHandler(file)
        write(handler, "2100-01-02", "today")
        handler.close()
        assert (tmp_path / "server.log.2100-01-01").read_text() == "yesterday\n"
        assert file.read_text() == "today\n"

    def test_only_the_newest_ended_days_are_kept(self, tmp_path: Path) -> None:
        file = tmp_path / "server.log"
        unrelated = tmp_path / "server.log.bak"
        unrelated.touch()
        old = [tmp_path / f"server.log.2020-01-{day:02}" for day in range(1, 21)]
        for path in old:
            path.touch()
        handler = DailyFileHandler(file)
        write(handler, "2100-01-01", "the next day")
        handler.close()
        kept = sorted(tmp_path.glob("server.log.2*"))
        assert len(kept) == KEPT_FILES
        assert kept[:-1] == old[-(KEPT_FILES - 1) :]
        assert unrelated.exists()

    def test_a_file_that_cannot_be_written_gets_a_sentence_that_says_what_to_do(
        self, tmp_path: Path
    ) -> None:
        with pytest.raises(LogFileError, match=r"cannot be written .* Name a file in a directory"):
            configure("INFO", "json", tmp_path)
        occupied = tmp_path / "occupied"
        occupied.touch()
        with pytest.raises(LogFileError):
            configure("INFO", "json", occupied / "server.log")
