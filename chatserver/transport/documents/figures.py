"""docs/metrics.md: the catalogue of figures as a page."""

from collections.abc import Iterator
from typing import Final

from chatserver.infra.figures import ALL, Figure

_HEAD: Final = """# Metrics

`GET /metrics` answers in Prometheus' text format. It needs no key and names nobody: no client,
user, room or key stands in a label or value. Keep it off the public side of a balancer all the
same.

Web nodes answer on their own port; of several processes on one port (`serve --processes`) whoever
is asked asks the others, and every figure then has a label `node`. Workers and schedulers answer
on `METRICS_PORT` of `METRICS_HOST`, together with `/health` and `/health/ready`; of several on
one machine each takes the next free port. Counts begin anew with their process.

What waits in the whole deployment (jobs, outbox, deliveries, the ledger) is asked of PostgreSQL
by the one scheduler that has the role, when its metrics are asked for: 5 s old at most, the
ledger 5 minutes. Where PostgreSQL does not answer within 2 s, those figures are missing rather
than wrong.

[ops/prometheus.yml](../ops/prometheus.yml) asks all of them, [ops/alerts.yml](../ops/alerts.yml)
has rules for alarms ([alerts.md](alerts.md) says what to do),
[ops/grafana/dashboards](../ops/grafana/dashboards) a dashboard. This page is written from the
code: `chatserver docs`.
"""


def metrics_page() -> str:
    """Write the page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    for where in dict.fromkeys(figure.where for figure in ALL):
        yield f"## {where.capitalize()}\n"
        yield "| figure | kind | says |"
        yield "| --- | --- | --- |"
        for figure in ALL:
            if figure.where == where:
                yield f"| {_name(figure)} | {figure.kind} | {figure.says} |"
        yield ""
    yield "Every process also has Prometheus' own `process_*`: CPU, memory, open files, start."


def _name(figure: Figure) -> str:
    labels = f"{{{', '.join(figure.labels)}}}" if figure.labels else ""
    return f"`{figure.full_name}{labels}`"
