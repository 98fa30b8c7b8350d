"""Medians, ratios, the table, the JSON file and the chart."""

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Final, TypeAlias

from rich.table import Table

from benchmarks.contenders import NODE, Contender
from benchmarks.machine import ROOT
from benchmarks.works import ALL_WORKS, Arrive

Rounds: TypeAlias = dict[tuple[str, str], list[dict[str, float]]]
Medians: TypeAlias = dict[tuple[str, str], dict[str, float]]

RESULTS: Final = ROOT / "benchmarks" / "results"
_FAULTS: Final = ("lost", "repeated", "disordered", "refused", "closed")
# Above this the generator would be part of what is measured.
_BUSY: Final = 0.85


def read(file: Path) -> Rounds:
    """Give the rounds that a former run has kept."""
    kept = json.loads(file.read_text())["all"]
    return {tuple(key.split("/")): values for key, values in kept.items()}


def medians(rounds: Rounds) -> Medians:
    return {
        key: {
            name: statistics.median(each[name] for each in values if name in each)
            for name in values[0]
        }
        for key, values in rounds.items()
    }


def faults(found: Medians) -> list[str]:
    """What makes a figure worthless, or our promise broken."""
    told = []
    for (work, contender), values in found.items():
        told += [
            f"{work}, {contender}: {name} {values[name]:.0f}"
            for name in _FAULTS
            if values.get(name)
        ]
        if values.get("generator_load", 0) > _BUSY:
            told.append(f"{work}, {contender}: the load generator is at its limit")
    return told


def table(rounds: Rounds) -> Table:
    found = medians(rounds)
    made = Table(title="Medians; x is the ratio to Node's Socket.IO in the same run")
    made.add_column("server")
    for heading in ("CPU", "x", "PostgreSQL", "Redis", "p50", "p99"):
        made.add_column(heading, justify="right", no_wrap=True)
    made.add_column("lost/twice/order", justify="right")
    made.add_column("load", justify="right")
    for work in ALL_WORKS:
        present = [each for each in work.contenders if (work.key, each.key) in found]
        if not present:
            continue
        node = found.get((work.key, NODE.key), {})
        made.add_section()
        made.add_row(f"[bold]{work.title}")
        for contender in present:
            values = found[work.key, contender.key]
            if isinstance(work, Arrive):
                _add_arrival(made, contender, values, node)
            else:
                _add_talk(made, contender, values, node)
    return made


def _add_talk(
    made: Table, contender: Contender, values: Mapping[str, float], node: Mapping[str, float]
) -> None:
    made.add_row(
        contender.title,
        f"{values['cpu_us']:.1f} us",
        _ratio(values, node, "cpu_us"),
        f"{values['postgres_us']:.1f} us",
        f"{values['redis_us']:.1f} us",
        f"{values['delivery_p50_ms']:.1f} ms",
        f"{values['delivery_p99_ms']:.1f} ms",
        "/".join(f"{values[name]:.0f}" for name in ("lost", "repeated", "disordered")),
        f"{values['generator_load']:.0%}",
    )


def _add_arrival(
    made: Table, contender: Contender, values: Mapping[str, float], node: Mapping[str, float]
) -> None:
    made.add_row(
        f"{contender.title}: a connect",
        f"{values['connect_cpu_us']:.0f} us",
        _ratio(values, node, "connect_cpu_us"),
        f"{values['postgres_us']:.0f} us",
        f"{values['redis_us']:.0f} us",
    )
    made.add_row(
        f"{contender.title}: idle, each",
        f"{values['memory_kb']:.1f} KiB",
        _ratio(values, node, "memory_kb"),
    )


def _ratio(values: Mapping[str, float], node: Mapping[str, float], name: str) -> str:
    return f"{values[name] / node[name]:.2f}" if node.get(name) else ""


def file_of(name: str | None) -> Path:
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"{name or time.strftime('%Y-%m-%d-%H%M')}.json"


def write(rounds: Rounds, seconds: float, file: Path) -> None:
    """Keep every round so far, with what it ran on, as JSON."""
    found = medians(rounds)
    content = {
        "machine": {
            "processor": _processor(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "node": _said("node", "--version"),
            "python-socketio": metadata.version("python-socketio"),
            "commit": _said("git", "rev-parse", "--short", "HEAD"),
        },
        "seconds": seconds,
        "medians": {f"{work}/{contender}": values for (work, contender), values in found.items()},
        "all": {f"{work}/{contender}": values for (work, contender), values in rounds.items()},
    }
    file.write_text(json.dumps(content, indent=1) + "\n")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def _said(*command: str) -> str:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
