"""Connections that can recover: every fact they get carries an offset, and the last are remembered.

Only for clients that ask for it: to everyone else an event has one argument.
"""

import re
import secrets
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from chatserver.kernel.principal import Principal
from chatserver.realtime import shapes
from chatserver.realtime.hub import Connection, Outlet
from chatserver.realtime.packets import Outgoing

LIFE_S: Final = 120.0
MARKS: Final = 4096

# A fact's members come in this order; see `kernel.events.encode`.
_SEQUENCED = re.compile(
    rb'42/chat,\["[a-z_.]+",\{"v":1,"type":"[a-z_.]+","id":"[0-9a-f-]{36}",'
    rb'"room_id":"([0-9a-f-]{36})","epoch":"([^"]*)","seq":(\d+),'
)
_READY: Final = b'42/chat,["session.ready",'


class Mark(NamedTuple):
    """One packet that carried an offset."""

    offset: str
    room_id: UUID | None
    seq: int
    epoch: str
    at: float


class Tracker:
    """Numbers the packets of one node, once for all who get them."""

    def __init__(self, node_id: str) -> None:
        # A node that was started again must not repeat offsets of its former life.
        self._node = f"{node_id}:{secrets.token_hex(4)}"
        self._count = 0
        self._last: tuple[Any, Outgoing, Mark | None] | None = None

    def track(self, packet: Outgoing) -> tuple[Outgoing, Mark | None]:
        """Give a packet with its offset; one that says nothing lasting stays as it is."""
        if self._last is None or self._last[0] is not packet:
            self._last = (packet, *self._tracked(packet))
        return self._last[1], self._last[2]

    def _tracked(self, packet: Outgoing) -> tuple[Outgoing, Mark | None]:
        found = _SEQUENCED.match(packet.frame)
        if found is None and not packet.frame.startswith(_READY):
            return packet, None
        self._count += 1
        offset = f"{self._node}:{self._count}"
        room_id, epoch, seq = found.groups() if found is not None else (None, b"", b"0")
        mark = Mark(
            offset,
            None if room_id is None else UUID(room_id.decode()),
            int(seq),
            epoch.decode(),
            time.monotonic(),
        )
        return shapes.with_offset(packet, offset.encode()), mark


class Claim(NamedTuple):
    """Who a client says it was, and how far it says it had come."""

    pid: str
    offset: str

    @classmethod
    def of(cls, auth: Any) -> "Claim | None":
        """Read a claim from a connect's data."""
        pid, offset = auth.get("pid"), auth.get("offset")
        if isinstance(pid, str) and isinstance(offset, str):
            return cls(pid[:64], offset[:128])
        return None


class TrackedConnection(Connection):
    """A connection that can recover. `missed` is shown as soon as it opens, before what is live."""

    __slots__ = ("_recovered", "claim", "floors", "marks", "missed", "pid", "tracker")

    def __init__(
        self,
        namespace: str,
        principal: Principal,
        session_id: str,
        outlet: Outlet,
        session: Any,
        *,
        tracker: Tracker,
        claim: Claim | None,
    ) -> None:
        super().__init__(namespace, principal, session_id, outlet, session)
        self.tracker = tracker
        self.claim = claim
        self.pid = secrets.token_urlsafe(18)
        self._recovered = False
        self.missed: list[Outgoing] = []
        self.marks: deque[Mark] = deque(maxlen=MARKS)
        # Up to where each room was replayed: what comes later with an older seq is known already.
        self.floors: dict[UUID, int] = {}

    @property
    def recovered(self) -> bool:
        return self._recovered

    def go_on(self, pid: str, missed: list[Outgoing]) -> None:
        """Be what the client was before, and show what it missed."""
        self.pid, self.missed, self._recovered = pid, missed, True

    def greeting(self) -> bytes:
        return orjson.dumps({"sid": self.session_id, "pid": self.pid})

    def send(self, packet: Outgoing) -> None:
        if self._kept is not None:
            self._kept.append(packet)
        else:
            self._put(packet)

    def open(self, *first: Outgoing) -> None:
        kept, self._kept = self._kept, None
        missed, self.missed = self.missed, []
        for packet in first:
            self._put(packet)
        floors, self.floors = self.floors, {}
        for packet in missed:
            self._put(packet)
        self.floors = floors
        for packet in kept or ():
            self._put(packet)

    def _put(self, packet: Outgoing) -> None:
        tracked, mark = self.tracker.track(packet)
        if mark is not None:
            room_id = mark.room_id
            if room_id is not None and room_id in self.floors:
                if mark.seq <= self.floors[room_id]:
                    return
                del self.floors[room_id]
            self._remember(mark)
        self.outlet.put_nowait(tracked)

    def _remember(self, mark: Mark) -> None:
        marks = self.marks
        while marks and marks[0].at < mark.at - LIFE_S:
            marks.popleft()
        marks.append(mark)


def positions(
    marks: Iterable[tuple[str, UUID | None, int]], heads: dict[UUID, int], offset: str
) -> dict[UUID, int] | None:
    """Tell how far each room had come at a client when it saw `offset`; None when nobody knows.

    `heads` is how far each was sent. What was sent after the offset may not have arrived.
    """
    sent = list(marks)
    names = [name for name, _, _ in sent]
    if offset not in names:
        return None
    after: dict[UUID, int] = {}
    for _, room_id, seq in sent[names.index(offset) + 1 :]:
        if room_id is not None:
            after.setdefault(room_id, seq - 1)
    return heads | after
