"""The upgrade's handshake: a WebSocket that asks to be what a session goes on over."""

import asyncio
from collections.abc import Awaitable
from typing import Final, Protocol

from chatserver.realtime.packets import PROBED
from chatserver.realtime.wire import WebSocketWire

PROBE_S: Final = 10.0


class Upgradable(Protocol):
    """The session, which is still polling."""

    upgrading: bool

    @property
    def is_settled(self) -> bool:
        """Whether it is too late for another WebSocket."""
        ...

    def hurry(self) -> None:
        """Have a poll that waits answered."""
        ...

    def begin(self, wire: WebSocketWire) -> None:
        """Go on over a WebSocket."""
        ...


class Probe:
    """Whom a WebSocket talks to until it has probed. One that stays silent holds nothing up."""

    def __init__(self, session: Upgradable) -> None:
        self._session = session
        self._is_probed = False
        self._wire: WebSocketWire | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, wire: WebSocketWire) -> None:
        self._wire = wire
        if self._session.is_settled:
            self._give_up()
        else:
            self._timer = asyncio.get_running_loop().call_later(PROBE_S, self._give_up)

    def receive(self, message: str | bytes) -> Awaitable[None] | None:
        session, wire = self._session, self._wire
        if wire is None:
            return None
        if self._is_probed:
            self._stop()
            if message == "5" and not session.is_settled:
                session.begin(wire)
            else:
                self._give_up()
        elif message == "2probe" and not session.is_settled:
            self._is_probed = session.upgrading = True
            wire.transport.write(PROBED.wire)
            session.hurry()
        else:
            self._give_up()
        return None

    def tick(self) -> None:
        """Let it: it has not long to live."""

    def gone(self, farewell: bytes) -> None:
        wire = self._wire
        self._stop()
        if wire is not None and not wire.transport.is_closing():
            wire.transport.write(farewell)

    def _give_up(self) -> None:
        wire = self._wire
        self._stop()
        self._wire = None
        if wire is not None:
            wire.hang_up()

    def _stop(self) -> None:
        """End the waiting; the session may be upgraded by another."""
        if self._timer is not None:
            self._timer.cancel()
        if self._is_probed:
            self._is_probed = self._session.upgrading = False
