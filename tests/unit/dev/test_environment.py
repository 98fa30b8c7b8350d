import subprocess
from pathlib import Path

import pytest

from chatserver.dev.environment import COMFORT, environment_with, write_environment
from chatserver.dev.supervisor import STOPPING


def test_a_shell_reads_back_exactly_what_was_written(tmp_path: Path) -> None:
    settings = {"PLAIN": "word", "ODD": 'it\'s $HOME `ls` "x" \\ ; é'}
    write_environment(tmp_path / "env", settings)
    read = subprocess.run(
        ["/bin/sh", "-c", 'set -a; . "$0"; set +a; printf "%s|%s" "$PLAIN" "$ODD"', "./env"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert read.stdout == "|".join(settings.values())
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600


def test_our_servers_win_over_those_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody@else/production")
    monkeypatch.setenv("DASHBOARD_DATABASE_URL", "postgresql://somebody@else/dashboard")
    made = environment_with({"DATABASE_URL": "ours"})
    assert made["DATABASE_URL"] == "ours"
    assert "DASHBOARD_DATABASE_URL" not in made


def test_a_worker_gives_its_jobs_back_before_it_is_killed() -> None:
    [phase] = [it for it in STOPPING if "worker" in it.names]
    # What follows the grace: the last renewals, the listener's threads, closing pools.
    assert float(COMFORT["WORKER_GRACE_S"]) + 2 <= phase.seconds
    assert sum(it.seconds for it in STOPPING) < 10


def test_what_the_caller_chose_for_himself_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "mine")
    monkeypatch.setenv("LIMITS_FACTOR", "3")
    made = environment_with({"LIMITS_FACTOR": "10"})
    assert made["OPENAI_API_KEY"] == "mine"
    assert made["LIMITS_FACTOR"] == "3"
