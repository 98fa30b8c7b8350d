"""The command line, run in this process: what a person typed, and what came back."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from chatserver.cli import main
from chatserver.settings import Settings

_NAMES = tuple(name.upper() for name in Settings.model_fields)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one line of JSON that was printed, and nothing else was."""
        [line] = self.out.splitlines()
        return orjson.loads(line)


class Cli:
    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        # Whoever develops here may have a .env of his own.
        monkeypatch.chdir(home)

    def __call__(self, *arguments: str, environment: Mapping[str, str]) -> Ran:
        for name in _NAMES:
            self._monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            self._monkeypatch.setenv(name, value)
        self._monkeypatch.setattr(sys, "argv", ["chatserver", *arguments])
        self._capsys.readouterr()
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        else:
            code = 0
        finally:
            # Commands log to the stderr of this call, which is gone after it.
            structlog.reset_defaults()
        printed = self._capsys.readouterr()
        return Ran(code, printed.out, printed.err)


def program(*arguments: str, environment: Mapping[str, str], home: Path) -> Ran:
    """The same in a process of its own, for commands that set up logging and signals."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "chatserver", *arguments],
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    return Cli(monkeypatch, capsys, tmp_path)
