"""What the nodes showed of late: each remembers its own, and answers when another asks."""

import asyncio
import itertools
from collections import OrderedDict
from datetime import datetime
from typing import Any, Final, Protocol
from uuid import UUID

import orjson

from chatserver.kernel.clock import Clock, rfc3339
from chatserver.kernel.events import Committed
from chatserver.realtime.hub import Hub

REMEMBERED: Final = 20_000
# So long an asker waits for the others; who is slower is not in the answer.
WAIT_S: Final = 0.4
CREATED: Final = "message.created"


class Asking(Protocol):
    """The part of the bus by which nodes ask each other."""

    def ask(self, room_id: UUID, question: bytes) -> None: ...
    def answer(self, origin: bytes, answer: bytes) -> None: ...


class Deliveries:
    """The newest 20,000 messages that this node showed, and to how many sockets."""

    def __init__(self, node_id: str, hub: Hub, bus: Asking, clock: Clock) -> None:
        self._node_id = node_id
        self._hub = hub
        self._bus = bus
        self._clock = clock
        self._shown: OrderedDict[tuple[UUID, int], tuple[datetime, int]] = OrderedDict()
        self._numbers = itertools.count()
        self._asked: dict[int, list[dict[str, Any]]] = {}

    def note(self, fact: Committed, sockets: int) -> None:
        """Remember a message that was written to so many sockets."""
        if fact.type != CREATED or fact.room_id is None or fact.seq is None:
            return
        self._shown[fact.room_id, fact.seq] = (self._clock(), sockets)
        if len(self._shown) > REMEMBERED:
            self._shown.popitem(last=False)

    async def find(self, room_id: UUID, seq: int) -> list[dict[str, Any]]:
        """Tell which nodes showed a message: this one, and those that answer in time."""
        number = next(self._numbers)
        answers = self._asked[number] = [self._own(room_id, seq)]
        try:
            self._bus.ask(room_id, orjson.dumps([number, seq]))
            await asyncio.sleep(WAIT_S)
        finally:
            del self._asked[number]
        return answers

    def on_ask(self, origin: bytes, room_id: UUID, question: bytes) -> None:
        number, seq = orjson.loads(question)
        self._bus.answer(origin, orjson.dumps([number, self._own(room_id, seq)]))

    def on_answer(self, answer: bytes) -> None:
        number, shown = orjson.loads(answer)
        if number in self._asked:
            self._asked[number].append(shown)

    def _own(self, room_id: UUID, seq: int) -> dict[str, Any]:
        at, sockets = self._shown.get((room_id, seq), (None, None))
        stream = self._hub.streams.get(room_id)
        return {
            "node": self._node_id,
            # How far it has shown the room; None: nobody of the room is connected to it.
            "head": None if stream is None else stream.head,
            "shown_at": None if at is None else rfc3339(at),
            "sockets": sockets,
        }
