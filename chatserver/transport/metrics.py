"""`/metrics`, in Prometheus' text format. Of several processes on a port, one answers for all."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import structlog
from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector, web
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from chatserver.infra.storage import Standing
from chatserver.transport.answers import QUIET
from chatserver.transport.forwarding import HOP, UNIX, Forwarded

log = structlog.get_logger(__name__)

PATH: Final = "/metrics"
ASK_S: Final = 3.0
COMMIT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


class CommandMetrics:
    """Commands by name and outcome, and the group commit of sends."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._commands = Counter(
            "chatserver_commands",
            "Commands answered; outcome is ok or an error code.",
            ["command", "outcome"],
            registry=registry,
        )
        self._commit = Histogram(
            "chatserver_commit_seconds",
            "How long the commit of a batch of sends took.",
            buckets=COMMIT_S,
            registry=registry,
        )
        self._batch = Histogram(
            "chatserver_batch_size", "Sends in a batch.", buckets=SIZES, registry=registry
        )

    def answered(self, command: str, outcome: str) -> None:
        self._commands.labels(command, outcome).inc()

    def committed(self, size: int, seconds: float) -> None:
        self._batch.observe(size)
        self._commit.observe(seconds)


class StorageMetrics:
    """Whether files can be stored."""

    def __init__(self, standing: Standing, registry: CollectorRegistry) -> None:
        self._standing = standing
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "chatserver_storage_healthy",
            "Whether the store of files answered when it was last asked.",
            value=float(self._standing.is_up),
        )


class DeliveryMetrics:
    """What a job last found of all deliveries; a figure that nobody counted lately is left out."""

    FIGURES: Final = {
        "due": "Deliveries whose time has come and that nobody has taken yet.",
        "oldest_due_seconds": "How long the oldest of them has been due.",
        "sending": "Deliveries that are being sent.",
        "outbox": "Facts whose later reactions are not planned yet.",
        "oldest_outbox_seconds": "How long the oldest of them has waited.",
        "unbalanced": "Books of a client and channel whose promises and rows differ: must be 0.",
    }

    def __init__(self, registry: CollectorRegistry) -> None:
        self.seen: dict[str, float] = {}
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        for name, text in self.FIGURES.items():
            if name in self.seen:
                yield GaugeMetricFamily(f"chatserver_outgoing_{name}", text, self.seen[name])


class ForwardMetrics:
    """What was handed on to other nodes."""

    def __init__(self, counters: Forwarded, registry: CollectorRegistry) -> None:
        self._counters = counters
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        forwarded = CounterMetricFamily(
            "chatserver_forwarded",
            "Requests of other nodes' sessions: handed on, refused as their node is dead, or come"
            " to the wrong node a second time.",
            labels=["what"],
        )
        for what in ("requests", "upgrades", "dead", "hops"):
            forwarded.add_metric([what], getattr(self._counters, what))
        yield forwarded


class MetricsPage:
    """`look` is called before each answer; `siblings` are the doors of the other processes."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        node_id: str,
        look: Callable[[], Awaitable[None]],
        siblings: Sequence[str] = (),
    ) -> None:
        self._registry = registry
        self._node_id = node_id
        self._look = look
        self._siblings = siblings

    def attach(self, app: web.Application) -> None:
        app.router.add_get(PATH, self._answer)

    async def _answer(self, request: web.Request) -> web.Response:
        request[QUIET] = True
        await self._look()
        texts = [generate_latest(self._registry).decode()]
        names = [self._node_id]
        if HOP not in request.headers and self._siblings:
            found = await asyncio.gather(*(self._ask(address) for address in self._siblings))
            for name, text in filter(None, found):
                names.append(name)
                texts.append(text)
            text = merged(dict(zip(names, texts, strict=True)))
        else:
            text = texts[0]
        response = web.Response(body=text.encode())
        response.headers["Content-Type"] = CONTENT_TYPE_PLAIN_0_0_4
        response.headers["X-Node"] = self._node_id
        return response

    async def _ask(self, address: str) -> tuple[str, str] | None:
        is_unix = address.startswith(UNIX)
        connector = UnixConnector(address.removeprefix(UNIX)) if is_unix else None
        base = "http://node" if is_unix else address
        try:
            async with (
                ClientSession(connector=connector, timeout=ClientTimeout(ASK_S)) as session,
                session.get(base + PATH, headers={HOP: self._node_id}) as answer,
            ):
                return answer.headers["X-Node"], await answer.text()
        except (ClientError, OSError, TimeoutError, KeyError) as error:
            log.info("metrics_of_sibling_missing", error=type(error).__name__)
            return None


def merged(texts: dict[str, str]) -> str:
    """Join pages of several processes into one; each figure says whose it is."""
    families: dict[str, Metric] = {}
    for node, text in texts.items():
        for family in text_string_to_metric_families(text):
            whole = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                whole.add_sample(sample.name, {**sample.labels, "node": node}, sample.value)
    registry = CollectorRegistry()
    registry.register(_Given(list(families.values())))
    return generate_latest(registry).decode()


class _Given:
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
