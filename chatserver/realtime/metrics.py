"""What one node measures. Nothing here names a client, a user or a room.

Most figures are kept by the parts for themselves and only read when somebody asks.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from chatserver.infra.figures import counter, counters, gauge, gauges, histogram
from chatserver.kernel.clock import Clock
from chatserver.kernel.events import Committed
from chatserver.realtime.engine import Realtime

SLICE: Final = 1000
# One fact in so many is timed; the time is read from its text.
SAMPLE: Final = 8


@dataclass(slots=True)
class Census:
    """Who is connected, and what waits for them."""

    connections: Counter[tuple[str, ...]] = field(default_factory=Counter)
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
        self._lag = histogram("fanout_lag_seconds", registry)
        realtime.recovery.shown = self._shown
        registry.register(self)

    async def look(self) -> None:
        self._census = await Census.take(self._realtime)

    def collect(self) -> Iterator[Metric]:
        yield from self._connections()
        yield from self._delivery()
        yield from self._bus()
        yield from self._recovery()

    def _connections(self) -> Iterator[Metric]:
        census, tally = self._census, self._realtime.server.tally
        yield gauges("connections", census.connections)
        yield gauges("sessions", _one(census.sessions))
        yield gauge("commands_pending", census.pending)
        yield gauge("output_waiting_bytes", census.waiting_bytes)
        yield counter("ephemerals_shed", tally.shed + census.shed)
        yield counters("closings", _one(tally.closings))
        yield counters("drops", _one(tally.drops))
        yield counters("connects_refused", _one(tally.refusals))
        yield counter("handshakes_turned_away", self._realtime.admission.refused)
        yield counter("protocol_violations", self._realtime.server.violations)

    def _delivery(self) -> Iterator[Metric]:
        realtime = self._realtime
        counters_ = realtime.fanout.counters
        yield counter("facts", counters_.facts)
        yield counter("deliveries", counters_.deliveries)
        yield gauge("rooms_followed", len(realtime.hub.streams))
        yield gauge("users_connected", len(realtime.hub.listeners))
        yield counter("facts_reread", realtime.recovery.repaired)
        yield counter("holes_found", realtime.repair.found)
        yield counter("tips", realtime.tips.told)

    def _bus(self) -> Iterator[Metric]:
        bus = self._realtime.bus
        heard, published = bus.counters, bus.publisher.counters
        yield gauge("bus_healthy", int(bus.healthy))
        yield gauge("bus_heartbeat_seconds", bus.heartbeat_took_s)
        yield counter("degraded_seconds", bus.degraded_so_far())
        yield counter("bus_received", heard.received)
        yield counter("bus_strangers", heard.strangers)
        yield counter("bus_forged", heard.forged)
        yield counter("bus_failed", heard.failed)
        yield counter("bus_reconnects", heard.reconnects)
        yield counter("bus_published", published.sent)
        yield counter("bus_dropped", published.dropped)
        yield counter("bus_spared", published.spared)

    def _recovery(self) -> Iterator[Metric]:
        restorer, presence = self._realtime.restorer, self._realtime.presence
        if restorer is not None:
            done = restorer.counters
            outcomes = {("recovered",): done.recovered, ("refused",): done.refused}
            yield counters("recoveries", outcomes)
        if presence is not None and self._realtime.watchers is not None:
            yield gauge("presence_entries", len(presence.entries))
            yield gauge("presence_watched", len(self._realtime.watchers.users))

    def _shown(self, fact: Committed) -> None:
        if fact.seq is None or fact.seq % SAMPLE:
            return
        start = fact.body.find(b'"ts":"') + 6
        try:
            committed = datetime.fromisoformat(fact.body[start : start + 24].decode())
        except ValueError:
            return
        self._lag.observe(max(0.0, (self._clock() - committed).total_seconds()))


def _one(counts: Counter[str]) -> dict[tuple[str, ...], float]:
    return {(name,): count for name, count in counts.items()}
