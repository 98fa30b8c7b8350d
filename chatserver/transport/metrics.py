"""`/metrics`, in Prometheus' text format. Of several processes on a port, one answers for all."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import structlog
from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector, web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from chatserver.infra.figures import counters, counting, gauge, gauges, histogram
from chatserver.infra.storage import Standing
from chatserver.transport.answers import QUIET
from chatserver.transport.forwarding import HOP, UNIX, Forwarded
from chatserver.transport.health import Health, State

log = structlog.get_logger(__name__)

PATH: Final = "/metrics"
ASK_S: Final = 3.0
HEALTH: Final = {State.READY: 1.0, State.DEGRADED: 0.5, State.UNREADY: 0.0}
# One command in so many is timed.
SAMPLE: Final = 8
NO_OPERATION: Final = "none"


class CommandMetrics:
    """Commands by name and outcome, requests likewise, and the group commit of sends."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._commands = counting("commands", registry)
        self._took = histogram("command_seconds", registry)
        self._requests = counting("http_requests", registry)
        self._request_took = histogram("http_request_seconds", registry)
        self._commit = histogram("commit_seconds", registry)
        self._batch = histogram("batch_size", registry)
        self._inbound = counting("inbound_webhooks", registry)
        self._answered = 0

    def answered(self, command: str, outcome: str, began: float) -> None:
        """Count a command; `began` is when its turn came (`time.perf_counter`)."""
        self._commands.labels(command, outcome).inc()
        self._answered += 1
        if not self._answered % SAMPLE:
            self._took.labels(command).observe(time.perf_counter() - began)

    def requested(self, operation: str, status: int, seconds: float) -> None:
        self._requests.labels(operation or NO_OPERATION, str(status)).inc()
        if operation:
            self._request_took.labels(operation.partition(".")[0]).observe(seconds)

    def committed(self, size: int, seconds: float) -> None:
        self._batch.observe(size)
        self._commit.observe(seconds)

    def came_in(self, outcome: str) -> None:
        self._inbound.labels(outcome).inc()


class NodeMetrics:
    """What the parts of a node keep for themselves: forwarding, the store, health."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        forwarded: Forwarded,
        storage: Standing,
        health: Health,
    ) -> None:
        self._forwarded = forwarded
        self._storage = storage
        self._health = health
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        what = ("requests", "upgrades", "dead", "hops")
        yield counters("forwarded", {(name,): getattr(self._forwarded, name) for name in what})
        yield gauge("storage_healthy", float(self._storage.is_up))
        parts = {(part,): HEALTH[state] for part, state in self._health.last.items()}
        yield gauges("part_healthy", parts)
        if self._health.ping_s is not None:
            yield gauge("database_ping_seconds", self._health.ping_s)


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
