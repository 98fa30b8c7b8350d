"""What one node measures. Nothing here names a client, a user or a room.

Most figures are kept by the parts for themselves and only read when somebody asks.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from chatserver.kernel.clock import Clock
from chatserver.kernel.events import Committed
from chatserver.realtime.engine import Realtime

SLICE: Final = 1000
# One fact in so many is timed; the time is read from its text.
SAMPLE: Final = 8
LAG_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LOOP_S: Final = 0.5


@dataclass(slots=True)
class Census:
    """Who is connected, and what waits for them."""

    connections: Counter[tuple[str, str]] = field(default_factory=Counter)
    sessions: Counter[str] = field(default_factory=Counter)
    pending: int = 0
    waiting_bytes: int = 0
    shed: int = 0

    @classmethod
    async def take(cls, realtime: Realtime) -> "Census":
        """Count in slices: with many connections this would hold the loop up."""
        census = cls()
        for number, session in enumerate(realtime.sessions(), 1):
            transport, waiting, shed = realtime.shape_of(session)
            census.sessions[transport] += 1
            for namespace in session.connections:
                census.connections[namespace, transport] += 1
            census.pending += session.lanes.pending
            census.waiting_bytes += waiting
            census.shed += shed
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return census


class RealtimeMetrics:
    """Collects a node's figures; `look` takes the census that the next collection shows."""

    def __init__(self, realtime: Realtime, registry: CollectorRegistry, clock: Clock) -> None:
        self._realtime = realtime
        self._clock = clock
        self._census = Census()
        self._slowest_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._lag = Histogram(
            "chatserver_fanout_lag_seconds",
            "From a fact's commit, by PostgreSQL's clock, until this node showed it (sampled).",
            buckets=LAG_S,
            registry=registry,
        )
        realtime.recovery.shown = self._shown
        registry.register(self)

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch_loop())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def look(self) -> None:
        self._census = await Census.take(self._realtime)

    def collect(self) -> Iterator[Metric]:
        yield from self._connections()
        yield from self._delivery()
        yield from self._bus()
        yield from self._recovery()
        slowest, self._slowest_s = self._slowest_s, 0.0
        yield _gauge(
            "loop_lag_seconds",
            "Longest delay of the event loop since this was last asked.",
            slowest,
        )

    def _connections(self) -> Iterator[Metric]:
        census, tally = self._census, self._realtime.server.tally
        connected = GaugeMetricFamily(
            "chatserver_connections",
            "Connected namespaces.",
            labels=["namespace", "transport"],
        )
        for (namespace, transport), count in census.connections.items():
            connected.add_metric([namespace, transport], count)
        yield connected
        yield _labelled(GaugeMetricFamily, "sessions", "Connections.", "transport", census.sessions)
        yield _gauge("commands_pending", "Commands that wait or run.", census.pending)
        yield _gauge("output_waiting_bytes", "Bytes that wait for peers.", census.waiting_bytes)
        yield _counter(
            "ephemerals_shed", "Packets dropped for peers that read slowly.",
            tally.shed + census.shed,
        )  # fmt: skip
        yield _labelled(
            CounterMetricFamily, "closings", "Connections we ended, by code.", "code",
            tally.closings,
        )  # fmt: skip
        yield _labelled(
            CounterMetricFamily, "drops", "Connections that are gone, by reason.", "reason",
            tally.drops,
        )  # fmt: skip
        yield _labelled(
            CounterMetricFamily, "connects_refused", "Refused connects, by code.", "code",
            tally.refusals,
        )  # fmt: skip
        yield _counter(
            "handshakes_turned_away", "Connects that found no free place in time.",
            self._realtime.admission.refused,
        )  # fmt: skip
        yield _counter(
            "protocol_violations", "Peers that broke the protocol.",
            self._realtime.server.violations,
        )  # fmt: skip

    def _delivery(self) -> Iterator[Metric]:
        realtime = self._realtime
        counters = realtime.fanout.counters
        yield _counter("facts", "Facts shown to this node's connections.", counters.facts)
        yield _counter("deliveries", "Facts times connections.", counters.deliveries)
        yield _gauge("rooms_followed", "Rooms somebody here listens to.", len(realtime.hub.streams))
        yield _gauge("users_connected", "Users with connections here.", len(realtime.hub.listeners))
        yield _counter(
            "facts_reread", "Facts read from the event log to fill holes.",
            realtime.recovery.repaired,
        )  # fmt: skip
        yield _counter(
            "holes_found", "Rooms and users that the change list found behind.",
            realtime.repair.found,
        )  # fmt: skip
        yield _counter("tips", "sync.tips told.", realtime.tips.told)

    def _bus(self) -> Iterator[Metric]:
        bus = self._realtime.bus
        heard, published = bus.counters, bus.publisher.counters
        yield _gauge("bus_healthy", "1 while what others publish arrives here.", int(bus.healthy))
        yield _gauge(
            "bus_heartbeat_seconds", "The last heartbeat's way through Redis.", bus.heartbeat_took_s
        )
        yield _counter("degraded_seconds", "Time without a healthy bus.", bus.degraded_so_far())
        yield _counter("bus_received", "Messages of the bus.", heard.received)
        yield _counter("bus_strangers", "Those for rooms nobody here is in.", heard.strangers)
        yield _counter("bus_forged", "Those that none of us wrote.", heard.forged)
        yield _counter("bus_failed", "Those that could not be taken.", heard.failed)
        yield _counter("bus_reconnects", "Lost connections to the bus.", heard.reconnects)
        yield _counter("bus_published", "Messages sent.", published.sent)
        yield _counter("bus_dropped", "Messages not sent: Redis was away.", published.dropped)
        yield _counter(
            "bus_spared", "Facts that no other node was there to hear.", published.spared
        )

    def _recovery(self) -> Iterator[Metric]:
        restorer, presence = self._realtime.restorer, self._realtime.presence
        if restorer is not None:
            yield _labelled(
                CounterMetricFamily, "recoveries", "Clients that asked to go on.", "outcome",
                Counter(
                    recovered=restorer.counters.recovered, refused=restorer.counters.refused
                ),
            )  # fmt: skip
        if presence is not None and self._realtime.watchers is not None:
            yield _gauge("presence_entries", "Sessions kept present.", len(presence.entries))
            yield _gauge(
                "presence_watched", "Users somebody here watches.",
                len(self._realtime.watchers.users),
            )  # fmt: skip

    def _shown(self, fact: Committed) -> None:
        if fact.seq is None or fact.seq % SAMPLE:
            return
        start = fact.body.find(b'"ts":"') + 6
        try:
            committed = datetime.fromisoformat(fact.body[start : start + 24].decode())
        except ValueError:
            return
        self._lag.observe(max(0.0, (self._clock() - committed).total_seconds()))

    async def _watch_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(LOOP_S)
            self._slowest_s = max(self._slowest_s, loop.time() - began - LOOP_S)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"chatserver_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"chatserver_{name}", text, value=value)


def _labelled(
    family: type[GaugeMetricFamily] | type[CounterMetricFamily],
    name: str,
    text: str,
    label: str,
    counts: Counter[str],
) -> Metric:
    made = family(f"chatserver_{name}", text, labels=[label])
    for key, count in counts.items():
        made.add_metric([key], count)
    return made
