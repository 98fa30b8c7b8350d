"""One engine connection above its transport: who it belongs to, its namespaces, its commands."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from chatserver.kernel.clock import Clock
from chatserver.kernel.events import SYSTEM, encode
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.realtime.admission import Offences
from chatserver.realtime.engine_socket import EngineSocket
from chatserver.realtime.hub import Connection
from chatserver.realtime.lanes import Lanes
from chatserver.realtime.packets import (
    CONNECT_ERROR,
    DISCONNECT,
    Received,
    control_packet,
    event_packet,
)
from chatserver.realtime.ports import Handshake


class Session:
    """What the guard knows about one engine connection."""

    def __init__(self, eio_sid: str, socket: EngineSocket, handshake: Handshake) -> None:
        self.eio_sid = eio_sid
        self.socket = socket
        self.handshake = handshake
        self.connections: dict[str, Connection] = {}
        self.connecting: set[str] = set()
        self.left: set[str] = set()
        self.verified: dict[tuple[str, object], Principal] = {}
        self.first: Principal | None = None
        # The key to hand out, until one namespace was told of it; once per connection.
        self.rotated: dict[str, Any] | None = None
        self.was_rotated = False
        # Accepted with an expired credential: nothing is subscribed until it is refreshed.
        self.in_limbo = False
        # The end of a credential that the peer was told of.
        self.expiry_told: float | None = None
        self.lanes = Lanes()
        self.offences = Offences()
        self.active_at = time.monotonic()
        self.binary: tuple[Received, Any, int] | None = None
        self.ended = False
        self._deadline: asyncio.TimerHandle | None = None

    def expect_namespace(self, within_s: float) -> None:
        """Cut the connection unless it connects a namespace in time."""
        if self._deadline is None and not self.ended:
            self._deadline = asyncio.get_running_loop().call_later(within_s, self.socket.end)

    def enter_limbo(self, within_s: float, give_up: Callable[[], None]) -> None:
        """Give up unless the credential is refreshed in time."""
        if not self.in_limbo:
            self.in_limbo = True
            self.has_namespace()
            self._deadline = asyncio.get_running_loop().call_later(within_s, give_up)

    def tell_rotated(self, clock: Clock) -> None:
        """Hand the next key out, to the first namespace that connected and still is."""
        if self.rotated is not None and not self.was_rotated:
            self.was_rotated = self.tell(clock, "auth.rotated", self.rotated)
            self.rotated = None

    def tell(self, clock: Clock, name: str, data: dict[str, Any]) -> bool:
        """Tell a fact about the connection to one namespace; False when there is none."""
        first = next(iter(self.connections.values()), None)
        if first is None:
            return False
        first.reply(event_packet(first.namespace, name, own_fact(clock, name, data)))
        return True

    def has_namespace(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def end(self, clock: Clock, code: str, reason: str, reconnect: str, after_ms: int = 0) -> None:
        """Tell the peer why, then close so that a stock client does as `reconnect` says."""
        if self.ended:
            return
        self.ended = True
        self.has_namespace()
        first = next(iter(self.connections.values()), None)
        last = []
        if first is not None:
            told = {
                "code": code,
                "reason": reason,
                "reconnect": reconnect,
                "after_ms": after_ms,
            }
            last.append(
                event_packet(
                    first.namespace, "session.closing", own_fact(clock, "session.closing", told)
                )
            )
        if reconnect == "never":
            last += [control_packet(DISCONNECT, namespace) for namespace in self.connections]
        self.socket.end(*last, after_s=after_ms / 1000)

    def principals(self) -> list[Principal]:
        """Whose credentials this connection was accepted with."""
        return list(self.verified.values())

    def leave(self) -> Iterator[Connection]:
        """Forget all namespaces, giving each."""
        self.ended = True
        self.has_namespace()
        connections, self.connections = self.connections, {}
        yield from connections.values()


def own_fact(clock: Clock, name: str, data: dict[str, Any]) -> bytes:
    """Write a fact about the connection itself; no log has it, and no clock but ours stamps it."""
    return encode(
        type=name,
        id=uuid7(),
        room_id=None,
        epoch=None,
        seq=None,
        ts=clock(),
        actor=SYSTEM,
        data=data,
    )


def refuse_connect(session: Session, namespace: str, error: dict[str, Any], about_s: float) -> None:
    """Answer CONNECT_ERROR, after `about_s` seconds, give or take half of them.

    Until then the namespace can't be tried again: guessing gets slow, a crowd comes back spread.
    """
    body = orjson.dumps({"message": error["message"], "data": error})

    def send() -> None:
        session.connecting.discard(namespace)
        if not session.ended:
            session.socket.queue.put_nowait(control_packet(CONNECT_ERROR, namespace, body))

    if about_s:
        delay = about_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        asyncio.get_running_loop().call_later(delay, send)
    else:
        send()


def connected(session_id: str) -> bytes:
    return orjson.dumps({"sid": session_id})
