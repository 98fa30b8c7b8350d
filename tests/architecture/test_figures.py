"""The catalogue of figures, and what is built on it: page, dashboard, alerts."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import promql_parser
import pytest

from chatserver.infra.figures import ALL, FIGURES, Figure
from tests.architecture.tree import ROOT

DASHBOARD: Final = ROOT / "ops" / "grafana" / "dashboards" / "chatserver.json"
ALERTS: Final = ROOT / "ops" / "alerts.yml"
UNITS: Final = ("_seconds", "_bytes", "_info", "_size", "_ratio")
SAMPLES: Final = {"histogram": ("_bucket", "_count", "_sum")}
# What stands in every sample that Prometheus keeps, or comes from others.
FOREIGN: Final = {"instance", "job", "node", "le"}
NOT_OURS: Final = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
WHO: Final = re.compile(r"client|tenant|user|person|room|key|token|url|email|address|model|message")


def known() -> dict[str, Figure]:
    return {
        figure.full_name + suffix: figure
        for figure in ALL
        for suffix in SAMPLES.get(figure.kind, ("",))
    }


def panels() -> Iterator[tuple[str, str]]:
    board = json.loads(DASHBOARD.read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
            assert "$" not in expression
            yield panel["title"], expression


def rules() -> Iterator[tuple[str, str]]:
    # As it is written by hand: one line for each name and expression.
    yield from re.findall(r"^ +- alert: (\w+)\n +expr: (.+)$", ALERTS.read_text(), re.MULTILINE)


EXPRESSIONS: Final = [*panels(), *rules()]


def selectors(node: Any) -> Iterator[Any]:
    """Give every selector in an expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        found = getattr(node, name, None)
        if found is not None and not isinstance(found, str | int | float):
            yield from selectors(found)
    for each in getattr(node, "args", None) or ():
        yield from selectors(each)


def test_each_figure_is_named_as_prometheus_wants_it() -> None:
    assert len(FIGURES) == len(ALL) > 80
    for figure in ALL:
        assert re.fullmatch(r"[a-z][a-z_]+[a-z]", figure.name), figure.name
        assert not figure.name.endswith(("_total", "_count", "_sum", "_bucket")), figure.name
        assert figure.says.endswith("."), figure.name
        if figure.kind == "histogram":
            assert figure.name.endswith(UNITS), figure.name
            assert list(figure.buckets) == sorted(set(figure.buckets)) != []
        else:
            assert figure.buckets == ()


def test_no_label_can_name_anybody_or_take_any_value() -> None:
    for figure in ALL:
        assert [label for label in figure.labels if WHO.search(label)] == [], figure.name
        assert len(figure.labels) <= 3, figure.name


def wrong_with(expression: str) -> Iterator[str]:
    found = list(selectors(promql_parser.parse(expression)))
    if not found:
        yield "asks for nothing"
    for selector in found:
        if selector.name in NOT_OURS:
            continue
        figure = known().get(selector.name)
        if figure is None:
            yield f"asks for {selector.name}"
            continue
        asked = {matcher.name for matcher in selector.matchers.matchers}
        if not asked <= {*figure.labels, *FOREIGN}:
            yield f"asks for labels {sorted(asked)}"
    # Of what comes from several places at once only known labels are kept apart.
    ours = {label for each in found if each.name in known() for label in known()[each.name].labels}
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        if not {each.strip() for each in group.split(",")} <= ours | FOREIGN:
            yield f"groups by {group}"


def test_dashboard_and_alerts_ask_for_figures_that_there_are() -> None:
    assert len(EXPRESSIONS) > 100
    problems = [
        f"{where}: {problem}"
        for where, expression in EXPRESSIONS
        for problem in wrong_with(expression)
    ]
    assert problems == []


@pytest.mark.parametrize(
    "expression",
    [
        "chatserver_no_such_thing",
        "rate(chatserver_sessions_total[5m])",
        'chatserver_jobs{client="a"}',
        "sum by (room) (chatserver_jobs)",
    ],
)
def test_a_wrong_question_would_be_found(expression: str) -> None:
    assert list(wrong_with(expression))


def test_every_figure_is_shown_somewhere() -> None:
    shown = {
        selector.name
        for _, expression in EXPRESSIONS
        for selector in selectors(promql_parser.parse(expression))
    }
    unseen = [
        figure.name
        for figure in ALL
        if not any(figure.full_name + end in shown for end in SAMPLES.get(figure.kind, ("",)))
    ]
    assert unseen == []


def test_every_alert_says_what_is_wrong_and_the_guide_what_to_do() -> None:
    text, guide = ALERTS.read_text(), (ROOT / "docs" / "alerts.md").read_text()
    names = [name for name, _ in rules()]
    assert len(names) == len(set(names)) == text.count("- alert: ") > 25
    assert text.count("summary: ") == text.count("severity: ") == len(names)
    assert [name for name in names if f"| `{name}` |" not in guide] == []


def test_the_dashboard_is_whole() -> None:
    board = json.loads(DASHBOARD.read_text())
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))
    taken = {
        (x, y)
        for panel in board["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    }
    area = sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in board["panels"])
    assert len(taken) == area, "panels lie on each other"
    assert max(x for x, _ in taken) < 24
