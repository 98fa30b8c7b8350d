"""What the realtime engine needs from the rest of the server, and what it offers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from chatserver.kernel.clock import Clock
from chatserver.kernel.events import Committed
from chatserver.kernel.principal import Principal
from chatserver.realtime.lanes import Lanes


@dataclass(frozen=True, slots=True)
class Seat:
    """A user's place in a room: where the room's log ends, and the fact that let the user in."""

    last_seq: int
    joined_seq: int


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """All rooms of one user at one moment; `version` rises with every change of the set."""

    version: int
    rooms: dict[UUID, Seat] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened lately: rooms with their last seq, users with their `rooms_version`."""

    rooms: dict[UUID, int] = field(default_factory=dict)
    users: dict[UUID, int] = field(default_factory=dict)


class Log(Protocol):
    """The truth in PostgreSQL that live delivery is repaired from. Calls raise when it is away."""

    async def read(self, room_id: UUID, *, after_seq: int, limit: int) -> list[Committed]:
        """Read facts after a seq, in order, with their effects."""
        ...

    async def heads(self, room_ids: Sequence[UUID]) -> dict[UUID, int]:
        """Read where rooms' logs end; unknown rooms are left out."""
        ...

    async def subscriptions(self, user_id: UUID) -> Subscriptions:
        """Read a user's rooms."""
        ...

    async def changes(self, *, within_s: float) -> Changes:
        """Read what changed in the last `within_s` seconds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Whose sockets to close, and what to tell them first. Exactly one of the ids is set."""

    code: str
    reason: str
    reconnect: str = "never"  # now | backoff | never
    after_ms: int = 0
    kid: str | None = None
    user_id: UUID | None = None
    client_id: UUID | None = None
    token: str | None = None

    def concerns(self, principal: Principal) -> bool:
        """Tell whether what a caller presented is among what has ended."""
        return (
            (self.kid is not None and principal.kid == self.kid)
            or (self.token is not None and principal.token == self.token)
            or (self.user_id is not None and principal.user_id == self.user_id)
            or (self.client_id is not None and principal.client_id == self.client_id)
        )


class Broadcaster(Protocol):
    """How the rest of the server shows what happened. Calls return at once and never raise."""

    def publish(self, facts: Sequence[Committed]) -> None:
        """Show committed facts to everyone concerned, on every node."""
        ...

    def close(self, closing: Closing) -> None:
        """Close sockets, on every node."""
        ...


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a socket said of itself when it connected. Header names are in lower case."""

    headers: dict[str, str]
    address: str
    origin: str | None

    @classmethod
    def of(cls, headers: Mapping[str, str], address: str) -> "Handshake":
        """Read a request's headers; its address is for whoever knows the proxies to tell."""
        lower = {name.lower(): value for name, value in headers.items()}
        return cls(lower, address, lower.get("origin"))


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault
    """The door refuses a connect; `error` is the contract's error object."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """Whom the door let in.

    `rotated` is the data of `auth.rotated`: the key to use from now on, shown once. `in_limbo`: the
    credential has expired a short while ago and may only be replaced.
    """

    principal: Principal
    rotated: dict[str, Any] | None = field(default=None, repr=False)
    in_limbo: bool = False


class Offence(bytes):
    """The ack of a command that no working client sends. Too many of them end the connection."""

    __slots__ = ()


class Door(Protocol):
    """What the engine asks of the transport above it. None of these may raise but `accept`.

    `passed_on`: the commands that pass their lane on (`lanes.pass_on`) once they have their place
    in their room's order, and that may begin while such a one waits.
    """

    passed_on: frozenset[str]

    async def accept(
        self, namespace: str, handshake: Handshake, auth: object, first: Principal | None
    ) -> Accepted:
        """Authenticate a connect; raise `Refused` to answer CONNECT_ERROR.

        `first` is who this engine connection belongs to already: another person is refused.
        """
        ...

    async def answer(
        self, principal: Principal, namespace: str, event: str, payload: object
    ) -> bytes:
        """Run a command and give its ack as JSON; an `Offence` if it made no sense."""
        ...

    def refuse(self, error: Exception) -> dict[str, Any]:
        """Give the contract's error object for a refusal of the engine's own, or for a bug."""
        ...

    def welcome(self, principal: Principal, session_id: str) -> dict[str, Any]:
        """Give the data of `session.ready`."""
        ...


class Leader(Protocol):
    """Which one of all nodes publishes the change list (an advisory lock in PostgreSQL)."""

    async def leads(self) -> bool:
        """Take or keep the lead if it is free; whether this node has it. May raise."""
        ...

    async def resign(self) -> None:
        """Let another node lead. Never raises."""
        ...


class BoundedOutlet(Protocol):
    """What waits for one connection, in bytes, and how many packets were dropped for it."""

    bytes: int
    dropped: int


class OtherSession(Protocol):
    """A connection that came by a door of its own; the engine ends it like one of its sockets."""

    lanes: Lanes
    on_slow: Callable[[Any], None]

    @property
    def outlet(self) -> BoundedOutlet:
        """Give what waits for it."""
        ...

    def principals(self) -> list[Principal]:
        """Give whose credentials it was accepted with."""
        ...

    def end(self, clock: Clock, code: str, reason: str, reconnect: str, after_ms: int = 0) -> None:
        """Tell the peer why, then close."""
        ...

    def cut(self) -> None:
        """End it now, whether the peer reads or not."""
        ...
