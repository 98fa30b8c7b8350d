"""A connection by whichever door it came: its namespaces, its credentials, its commands."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Final
from uuid import UUID

from chatserver.kernel.clock import Clock
from chatserver.kernel.events import SYSTEM, encode
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.realtime.admission import Offences
from chatserver.realtime.hub import Connection
from chatserver.realtime.lanes import Lanes
from chatserver.realtime.packets import event_packet
from chatserver.realtime.ports import Handshake

# Whoever leaves and enters namespaces all day brings a key for each; whoever means harm, more.
MOST_VERIFIED: Final = 16
LATEST: Final = 4


class Standing(ABC):
    """What every door knows about one connection."""

    __slots__ = (
        "_deadline", "active_at", "connections", "ended", "expiry_told", "first", "handshake",
        "in_limbo", "lanes", "offences", "rotated", "verified", "was_rotated",
    )  # fmt: skip

    def __init__(self, handshake: Handshake) -> None:
        self.handshake = handshake
        self.connections: dict[str, Connection] = {}
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
        self.ended = False
        self._deadline: asyncio.TimerHandle | None = None

    @abstractmethod
    def end(self, clock: Clock, code: str, reason: str, reconnect: str, after_ms: int = 0) -> None:
        """Tell the peer why, then close so that it does as `reconnect` says."""

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

    def principals(self) -> list[Principal]:
        """Whose credentials this connection was accepted with."""
        return list(self.verified.values())

    def remember(self, shown: tuple[str, object], principal: Principal) -> None:
        """Note a credential as checked; of many, those that no namespace has are forgotten.

        The latest stay: their namespaces may be just about to be entered.
        """
        if len(self.verified) >= MOST_VERIFIED:
            used = {id(each.principal) for each in self.connections.values()}
            used.update(id(it) for it in list(self.verified.values())[-LATEST:])
            self.verified = {k: it for k, it in self.verified.items() if id(it) in used}
        self.verified[shown] = principal

    def leave(self) -> list[Connection]:
        """Forget all namespaces, giving each."""
        self.ended = True
        self.has_namespace()
        connections, self.connections = self.connections, {}
        return list(connections.values())


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


def kids_of(sessions: Iterable[Any]) -> set[str]:
    """Name the keys that connections were accepted with."""
    return {
        principal.kid for session in sessions for principal in session.principals() if principal.kid
    }


def tokens_of(sessions: Iterable[Any]) -> set[str]:
    """Name the single tokens that connections were accepted with."""
    return {
        principal.token
        for session in sessions
        for principal in session.principals()
        if principal.token
    }


def oldest_tokens(sessions: Iterable[Any]) -> dict[UUID, float]:
    """Name the users who came without a key, with when the oldest of their tokens was issued."""
    oldest: dict[UUID, float] = {}
    for session in sessions:
        for principal in session.principals():
            if not principal.kid and principal.issued_at is not None:
                known = oldest.get(principal.user_id, principal.issued_at)
                oldest[principal.user_id] = min(known, principal.issued_at)
    return oldest
