"""Showing a fact to this node's sockets: encoded once per namespace, put into each one's queue."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from chatserver.kernel.events import Committed
from chatserver.realtime.hub import Connection
from chatserver.realtime.packets import event_packet

SLICE: Final = 500
# At most once, the newest counts: the first to go when a socket doesn't read.
EPHEMERAL: Final = frozenset(
    {"typing.state", "presence.changed", "message.delta", "message.progress", "sync.tips"}
)


@dataclass(slots=True)
class Counters:
    """What was done, for metrics."""

    facts: int = 0
    deliveries: int = 0


class Fanout:
    def __init__(self) -> None:
        self.counters = Counters()

    def show(
        self,
        fact: Committed,
        namespaces: Iterable[str],
        recipients: Callable[[str], list[Connection]],
    ) -> Iterator[None]:
        """Send a fact to everyone who listens now; yields where others may run.

        There is no task per recipient: whoever drives the iterator keeps a room's order by
        finishing it before the next.
        """
        self.counters.facts += 1
        for namespace in namespaces:
            connections = recipients(namespace)
            if not connections:
                continue
            packet = event_packet(namespace, fact.type, fact.body, ephemeral=fact.type in EPHEMERAL)
            self.counters.deliveries += len(connections)
            for start in range(0, len(connections), SLICE):
                if start:
                    yield
                for connection in connections[start : start + SLICE]:
                    connection.send(packet)
