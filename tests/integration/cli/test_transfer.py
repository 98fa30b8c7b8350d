"""`chatserver export` and `import`, as processes that may be killed."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from tests.support.cli import Cli, Ran
from tests.support.servers import Database, run

MESSAGES = 8_000
START = datetime(2020, 1, 1, tzinfo=UTC)


class Shell:
    """The command line on one database."""

    def __init__(self, cli: Cli, database: Database) -> None:
        self._cli = cli
        self._environment = database.settings()

    def __call__(self, *arguments: str) -> Ran:
        return self._cli(*arguments, environment=self._environment)

    def json(self, *arguments: str) -> Any:
        ran = self(*arguments, "--json")
        assert (ran.code, ran.err) == (0, "")
        return ran.json()


@pytest.fixture
def shell(cli: Cli, database: Database) -> Shell:
    return Shell(cli, database)


def lines(count: int) -> Iterator[bytes]:
    """Another system's messages, the newest first."""
    for n in reversed(range(count)):
        line = {
            "type": "message",
            "room_id": f"room-{n % 3}",
            "id": f"m-{n}",
            "sender_id": f"user-{n % 7}",
            "content": f"number {n}",
            "created_at": (START + timedelta(minutes=n)).isoformat(),
        }
        yield orjson.dumps(line) + b"\n"


async def figures(url: str) -> dict[str, Any]:
    connection = await asyncpg.connect(url)
    try:
        row = await connection.fetchrow(
            "select count(*) as messages, count(distinct (room_id, seq)) as places,"
            " (select count(*) from room_event) as facts,"
            " (select sum(last_seq) from room)::int as last,"
            " (select count(*) from message_search) as findable,"
            " (select count(*) from message m join message n on n.room_id = m.room_id"
            "   and n.seq = m.seq + 1 where n.created_at < m.created_at) as disordered"
            " from message"
        )
        return dict(row or {})
    finally:
        await connection.close()


def is_at_work(database: Database) -> bool:
    return bool(run(figures(database.app_url))["messages"] > 1000)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.ndjson"
    with path.open("wb") as out:
        out.writelines(lines(MESSAGES))
    return path


def test_an_import_that_is_killed_is_begun_again_and_then_whole(
    shell: Shell, database: Database, file: Path
) -> None:
    shell.json("client", "create", "Acme")
    killed = subprocess.Popen(
        [sys.executable, "-m", "chatserver", "import", "acme", str(file)],
        env={**database.environment(), "PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 40
    while not is_at_work(database):
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = run(figures(database.app_url))
    assert before["messages"] == before["facts"] == before["findable"] < MESSAGES
    done = shell.json("import", "acme", str(file))
    # Of the three rooms, those that it had come to were known as well.
    known = done["known"] - (3 - done["rooms"])
    assert known == before["messages"]
    assert done["messages"] + known == MESSAGES
    after = run(figures(database.app_url))
    assert after == {
        "messages": MESSAGES, "places": MESSAGES, "facts": MESSAGES, "last": MESSAGES,
        "findable": MESSAGES, "disordered": 0,
    }  # fmt: skip


def test_out_and_in_again(shell: Shell, tmp_path: Path) -> None:
    shell.json("client", "create", "Acme")
    theirs = tmp_path / "theirs.ndjson"
    theirs.write_bytes(b"".join(lines(10)))
    ours = tmp_path / "ours.ndjson"
    shell("import", "acme", str(theirs))
    assert shell.json("export", "acme", str(ours))["lines"] == 1 + 7 + 3 + 10
    done = shell.json("import", "acme", str(ours))
    assert done == {
        "users": 0, "rooms": 0, "members": 0, "messages": 0, "events": 0, "reactions": 0,
        "edits": 0, "bans": 0, "files": 0, "files_missing": 0, "known": 20,
    }  # fmt: skip
    streamed = shell("export", "acme")
    assert streamed.out.encode().splitlines() == ours.read_bytes().splitlines()


def test_what_is_wrong_is_said_in_a_sentence(shell: Shell, tmp_path: Path) -> None:
    shell.json("client", "create", "Acme")
    wrong = tmp_path / "wrong.ndjson"
    wrong.write_bytes(b'{"type":"user","user_id":"ann"}\n{"type":"user"}\n')
    ran = shell("import", "acme", str(wrong))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("line 2: user_id: Field required")
    for arguments in (
        ("import", "nobody", str(wrong)),
        ("import", "acme", str(tmp_path / "none")),
        ("export", "acme", str(tmp_path / "none" / "x")),
    ):
        ran = shell(*arguments)
        assert ran.code == 1
        assert "Traceback" not in ran.err
        assert ran.err
