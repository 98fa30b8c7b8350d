"""Pings and their timeouts for all connections of a node: one timer, however many there are."""

import asyncio
from collections import deque
from typing import Any, Final

SLICE: Final = 1000


class Heartbeat:
    """All intervals are equal, so who was noted first is due first: two queues do for a wheel.

    An entry counts only while its moment is the socket's own `due`.
    """

    def __init__(self, sockets: dict[str, Any], interval_s: float, timeout_s: float) -> None:
        self._sockets = sockets
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._pings: deque[tuple[float, str]] = deque()
        self._pongs: deque[tuple[float, str]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def rest(self, socket: Any) -> None:
        """Ping a socket after an interval from now."""
        due = asyncio.get_running_loop().time() + self._interval_s
        socket.due, socket.is_pinged = due, False
        self._pings.append((due, socket.sid))
        if self._timer is None:
            self._arm()

    def is_over(self, socket: Any) -> bool:
        """Whether a socket's time is up, even if the timer has not come to it yet."""
        left = 0.0 if socket.is_pinged else self._timeout_s
        over: bool = socket.due + left <= asyncio.get_running_loop().time()
        return over

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pings.clear()
        self._pongs.clear()

    def _arm(self) -> None:
        heads = [queue[0][0] for queue in (self._pings, self._pongs) if queue]
        self._timer = asyncio.get_running_loop().call_at(min(heads), self._beat) if heads else None

    def _beat(self) -> None:
        now = asyncio.get_running_loop().time()
        for socket in self._due(self._pongs, now):
            socket.silent()
        for socket in self._due(self._pings, now):
            # From when the ping was due: a loop that lags gives nobody more time, but half of it.
            due = max(socket.due + self._timeout_s, now + self._timeout_s / 2)
            socket.due, socket.is_pinged = due, True
            self._pongs.append((socket.due, socket.sid))
            socket.ping()
        self._arm()

    def _due(self, queue: deque[tuple[float, str]], now: float) -> list[Any]:
        found: list[Any] = []
        # In slices: what is left is due at once again, after everyone else had a turn.
        while queue and queue[0][0] <= now and len(found) < SLICE:
            due, sid = queue.popleft()
            socket = self._sockets.get(sid)
            if socket is not None and socket.due == due:
                found.append(socket)
        return found
