"""The chart of docs/performance.md: bars for each work, where Node's Socket.IO is 1."""

from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.contenders import NODE, Contender
from benchmarks.machine import ROOT
from benchmarks.report import Medians
from benchmarks.works import ALL_WORKS, Arrive

FILE: Final = ROOT / "docs" / "performance.svg"
_COLOURS: Final = {
    "node": "#8a8f98",
    "stock": "#d08b5b",
    "stock_asyncio": "#b8653b",
    "bare": "#7fb069",
    "engine": "#3d8b5f",
    "product": "#2b6cb0",
}
_WIDTH: Final = 900
_LABELS: Final = 330
_BAR: Final = 18
_MOST: Final = 5.0  # longer bars are cut, and their figure says how long they are


def write(found: Medians) -> None:
    rows = list(_rows(found))
    parts, y = [], 16
    unit = (_WIDTH - _LABELS - 90) / _MOST
    for row in rows:
        if isinstance(row, str):
            y += 14
            parts.append(f'<text x="8" y="{y}" font-weight="bold">{escape(row)}</text>')
            y += 8
            continue
        contender, ratio, figure = row
        colour = _COLOURS[contender.key]
        width = max(2.0, min(ratio, _MOST) * unit)
        parts += [
            f'<text x="{_LABELS - 8}" y="{y + 13}" text-anchor="end">'
            + escape(contender.title)
            + "</text>",
            f'<rect x="{_LABELS}" y="{y}" width="{width:.0f}" height="14" fill="{colour}"/>',
            f'<text x="{_LABELS + width + 6:.0f}" y="{y + 12}">{ratio:.2f} ({figure})</text>',
        ]
        y += _BAR
    one = _LABELS + unit
    parts.append(
        f'<line x1="{one:.0f}" y1="8" x2="{one:.0f}" y2="{y}" stroke="#444"'
        ' stroke-dasharray="3 3"/>'
    )
    FILE.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 12}"'
        ' font-family="system-ui, sans-serif" font-size="12" fill="#222">'
        f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _rows(found: Medians) -> Iterator[str | tuple[Contender, float, str]]:
    for work in ALL_WORKS:
        node = found.get((work.key, NODE.key))
        if node is None:
            continue
        kinds = (
            (("connect_cpu_us", "CPU per connect", "µs"), ("memory_kb", "memory per idle", "KiB"))
            if isinstance(work, Arrive)
            else (("cpu_us", work.title, "µs"),)
        )
        for name, title, unit in kinds:
            yield title
            for contender in work.contenders:
                values = found.get((work.key, contender.key))
                if values is not None:
                    yield contender, values[name] / node[name], f"{values[name]:.1f} {unit}"
