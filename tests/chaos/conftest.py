"""What a rehearsal found is printed at the end, and kept beside the benchmarks' figures."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker import Verdict
from tests.chaos.stage import Stage

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
HISTORIES = Path(__file__).parents[2] / "build" / "chaos"
Rows = list[dict[str, Any]]
ROWS = pytest.StashKey[Rows]()


class Protocol:
    """Keeps one line for each rehearsal."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def add(self, fault: str, seed: int, stage: Stage, verdict: Verdict) -> None:
        self.rows.append(
            {
                "fault": fault,
                "seed": seed,
                "nodes": len(stage.nodes),
                "clients": len(stage.canaries),
                **verdict.figures(),
                "caught_up_s": round(stage.recovered_s, 1),
                "grown_mb": round(stage.grown_bytes() / 2**20),
                "faults": verdict.faults[:5],
            }
        )


@pytest.fixture
def history(request: pytest.FixtureRequest) -> Path:
    """A file for what the clients see. It stays until the same is rehearsed again."""
    HISTORIES.mkdir(parents=True, exist_ok=True)
    file = HISTORIES / f"{re.sub(r'[^a-z0-9]+', '-', request.node.name.lower())}.jsonl"
    file.unlink(missing_ok=True)
    return file


@pytest.fixture(scope="session")
def protocol(pytestconfig: pytest.Config) -> Iterator[Protocol]:
    rows = pytestconfig.stash.setdefault(ROWS, [])
    yield Protocol(rows)
    if rows:
        RESULTS.mkdir(exist_ok=True)
        file = RESULTS / f"{pytestconfig.getoption('results', 'faults')}.json"
        file.write_text(json.dumps(rows, indent=1) + "\n")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=1, help="how often each fault is rehearsed")
    parser.addoption("--first-seed", type=int, default=1, help="the first of the seeds")
    parser.addoption("--brief", action="store_true", help="rehearse faults for a third of the time")
    parser.addoption("--full", action="store_true", help="rehearse faults of 20 to 60 seconds")
    parser.addoption("--nodes", type=int, default=2, help="how many nodes there are (2)")
    parser.addoption("--clients", type=int, help="how many come back at once (2,000; brief: 666)")
    parser.addoption("--results", default="faults", help="the name of the file of figures")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        option = metafunc.config.getoption
        first = option("first_seed", 1)
        metafunc.parametrize("seed", range(first, first + option("seeds", 1)))


@dataclass(frozen=True)
class Scale:
    """How long faults last, and how much there is to hurt."""

    pace: float
    full: bool
    nodes: int
    clients: int

    def seconds(self, usual: float, full: float | None = None) -> float:
        """Give how long a fault lasts: as long as usual, or as long as it is in full."""
        if self.full and full is not None:
            return full
        return usual * self.pace


@pytest.fixture(scope="session")
def scale(pytestconfig: pytest.Config) -> Scale:
    brief = bool(pytestconfig.getoption("brief", False))
    return Scale(
        pace=1 / 3 if brief else 1.0,
        full=bool(pytestconfig.getoption("full", False)),
        nodes=pytestconfig.getoption("nodes", 2),
        clients=pytestconfig.getoption("clients", None) or (666 if brief else 2000),
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section("what was rehearsed")
    for row in rows:
        terminalreporter.write_line(
            f"{row['fault']:<34} seed {row['seed']}: acked {row['acked']}/{row['sends']},"
            f" shown {row['applied']}, heard {row['heard']}; I1 lost {row['lost']},"
            f" I2 stored twice {row['doubled']}, I3 shown twice {row['repeated']}, out of order"
            f" {row['disordered']}, outdated {row['outdated']}, I4 leaked {row['leaked']}, I5"
            f" +{row['grown_mb']} MB, I14 whole after {row['caught_up_s']} s"
            + ("" if not row["faults"] else f"  {len(row['faults'])} FAULTS")
        )
