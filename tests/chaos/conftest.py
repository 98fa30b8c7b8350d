"""What a rehearsal found is printed at the end, and kept beside the benchmarks' figures."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker import Verdict
from tests.chaos.stage import Stage

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.json"
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
                **verdict.figures(),
                "caught_up_s": round(stage.recovered_s, 1),
                "grown_mb": round(stage.grown_bytes() / 2**20),
                "faults": verdict.faults[:5],
            }
        )


@pytest.fixture(scope="session")
def protocol(pytestconfig: pytest.Config) -> Iterator[Protocol]:
    rows = pytestconfig.stash.setdefault(ROWS, [])
    yield Protocol(rows)
    if rows:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=1, help="how often each fault is rehearsed")
    parser.addoption("--brief", action="store_true", help="rehearse faults for a third of the time")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(1, metafunc.config.getoption("seeds", 1) + 1))


@pytest.fixture
def pace(pytestconfig: pytest.Config) -> float:
    return 1 / 3 if pytestconfig.getoption("brief", False) else 1.0


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section("what was rehearsed")
    for row in rows:
        terminalreporter.write_line(
            f"{row['fault']:<34} seed {row['seed']}: acked {row['acked']}/{row['sends']},"
            f" applied {row['applied']}, heard {row['heard']}, lost {row['lost']},"
            f" twice {row['repeated']}, disordered {row['disordered']},"
            f" whole after {row['caught_up_s']} s, +{row['grown_mb']} MB"
            + ("" if not row["faults"] else f"  {len(row['faults'])} FAULTS")
        )
