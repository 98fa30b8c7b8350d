"""The figures of docs/performance.md, between their marks; the words around them are written."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from benchmarks.contenders import NODE, Contender
from benchmarks.machine import ROOT
from benchmarks.report import Medians
from benchmarks.works import ALL_WORKS, Arrive

PAGE: Final = ROOT / "docs" / "performance.md"
_MARKED: Final = re.compile(r"(<!-- figures -->\n).*?(<!-- end of figures -->)", re.DOTALL)
_HEAD: Final = (
    "| server | server CPU | x Node | PostgreSQL | Redis | p50 | p99 | lost / twice / disordered |"
)


def write(found: Medians) -> None:
    figures = "\n".join(_lines(found))
    text = PAGE.read_text()
    PAGE.write_text(_MARKED.sub(lambda marks: f"{marks[1]}\n{figures}\n{marks[2]}", text))


def _lines(found: Medians) -> Iterator[str]:
    for work in ALL_WORKS:
        node = found.get((work.key, NODE.key), {})
        present = [each for each in work.contenders if (work.key, each.key) in found]
        if not present:
            continue
        yield f"**{work.title}**\n"
        if isinstance(work, Arrive):
            yield "| server | CPU per connect | x Node | PostgreSQL | idle memory | x Node |"
            yield "| --- | --: | --: | --: | --: | --: |"
        else:
            yield _HEAD
            yield "| --- | --: | --: | --: | --: | --: | --: | --: |"
        for contender in present:
            values = found[work.key, contender.key]
            row = _arrival if isinstance(work, Arrive) else _talk
            yield row(contender, values, node)
        yield ""


def _talk(contender: Contender, values: Mapping[str, float], node: Mapping[str, float]) -> str:
    cells = (
        contender.title,
        f"{values['cpu_us']:.1f} µs",
        _ratio(values, node, "cpu_us"),
        f"{values['postgres_us']:.1f} µs",
        f"{values['redis_us']:.1f} µs",
        f"{values['delivery_p50_ms']:.1f} ms",
        f"{values['delivery_p99_ms']:.1f} ms",
        " / ".join(f"{values[name]:.0f}" for name in ("lost", "repeated", "disordered")),
    )
    return f"| {' | '.join(cells)} |"


def _arrival(contender: Contender, values: Mapping[str, float], node: Mapping[str, float]) -> str:
    cells = (
        contender.title,
        f"{values['connect_cpu_us'] / 1000:.2f} ms",
        _ratio(values, node, "connect_cpu_us"),
        f"{values['postgres_us'] / 1000:.2f} ms",
        f"{values['memory_kb']:.1f} KiB",
        _ratio(values, node, "memory_kb"),
    )
    return f"| {' | '.join(cells)} |"


def _ratio(values: Mapping[str, float], node: Mapping[str, float], name: str) -> str:
    return f"{values[name] / node[name]:.2f}" if node.get(name) else ""
