"""How many connections there are: of an address, a client, a user, a device; here and elsewhere.

A new connection of a full address or client is refused. A user or device may always connect: the
connection that was idle the longest makes room. What other nodes have is known a few seconds late,
so that nobody who connects has to wait for Redis.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from chatserver.kernel.principal import Principal
from chatserver.realtime.errors import QuotaExceededError
from chatserver.realtime.standing import Standing

EXCHANGE_S: Final = 2.0
# Subjects with fewer of the cap's connections here are nobody else's business.
TELLING: Final = 10
# Whoever sends nothing is held to the cap of addresses before a word can be said to him.
SILENT_FACTOR: Final = 1.25
RETRY_S: Final = 30
CODE: Final = QuotaExceededError.code


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """How many connections there may be, and how many offences a minute on one of them."""

    per_user: int
    per_device: int
    per_address: int
    per_client: int
    offences: int


class SharedCounts(Protocol):
    """What nodes tell each other of their counts."""

    async def exchange(self, own: dict[str, int]) -> dict[str, dict[str, int]]:
        """Tell what this node has, and learn what each other node has of the same subjects."""
        ...


CapsOf = Callable[[Principal | None], Caps]


class Census:
    """Counts the connections of one node. `end` closes one: (session, code, reason, reconnect)."""

    def __init__(
        self,
        *,
        node_id: str,
        caps: CapsOf,
        network_of: Callable[[str], str],
        end: Callable[[Standing, str, str, str], None],
        shared: SharedCounts | None = None,
    ) -> None:
        self._node_id = node_id
        self._caps = caps
        self._network_of = network_of
        self._end = end
        self._shared = shared
        self._sessions: dict[str, dict[Standing, None]] = {}
        self._subjects: dict[Standing, dict[str, tuple[int, bool]]] = {}
        self._elsewhere: dict[str, dict[str, int]] = {}

    def may_open(self, address: str) -> bool:
        """Whether an address may open another connection at all."""
        most = self._caps(None).per_address * SILENT_FACTOR + 1
        return self.count(self._of_address(address)) < most

    def opened(self, session: Standing) -> None:
        cap = self._caps(None).per_address
        self._add(session, self._of_address(session.handshake.address), cap, gives_way=False)

    def enter(self, session: Standing, principal: Principal) -> None:
        """Count a connection whose owner is known now.

        Raises:
            QuotaExceededError: the address or the client has too many.
        """
        caps = self._caps(principal)
        address = self._of_address(session.handshake.address)
        if self.count(address) > caps.per_address:
            raise _exceeded("this address", "connections-per-address", caps.per_address)
        client = f"c:{principal.client_id.hex}"
        if self.count(client) >= caps.per_client:
            raise _exceeded("this client", "connections-per-client", caps.per_client)
        self._add(session, client, caps.per_client, gives_way=False)
        user = f"u:{principal.user_id.hex}"
        self._add(session, user, caps.per_user, gives_way=True)
        self._make_room(user, caps.per_user, session)
        if principal.device_id:
            device = f"d:{principal.user_id.hex}:{principal.device_id}"
            self._add(session, device, caps.per_device, gives_way=True)
            self._make_room(device, caps.per_device, session)

    def left(self, session: Standing) -> None:
        for subject in self._subjects.pop(session, {}):
            sessions = self._sessions[subject]
            del sessions[session]
            if not sessions:
                del self._sessions[subject]
                self._elsewhere.pop(subject, None)

    def count(self, subject: str) -> int:
        """Tell how many connections a subject has, on all nodes."""
        return len(self._sessions.get(subject, ())) + sum(self._elsewhere.get(subject, {}).values())

    def of_client(self, principal: Principal) -> int:
        return self.count(f"c:{principal.client_id.hex}")

    def offences(self, principal: Principal | None) -> int:
        """Tell how many offences a minute are forgiven."""
        return self._caps(principal).offences

    async def exchange(self) -> None:
        """Tell and learn once; close what is too much here of users and devices on all nodes."""
        if self._shared is None:
            return
        caps: dict[str, tuple[int, bool]] = {}
        for kept in self._subjects.values():
            caps.update(kept)
        telling = {
            subject: len(sessions)
            for subject, sessions in self._sessions.items()
            if subject.startswith("c:") or len(sessions) * TELLING >= caps[subject][0]
        }
        self._elsewhere = await self._shared.exchange(telling)
        for subject, others in self._elsewhere.items():
            cap, gives_way = caps.get(subject, (0, False))
            if gives_way:
                own = len(self._living(subject))
                surplus = _surplus({**others, self._node_id: own}, cap)[self._node_id]
                self._close_idle(subject, cap, surplus, None)

    def _add(self, session: Standing, subject: str, cap: int, *, gives_way: bool) -> None:
        self._sessions.setdefault(subject, {})[session] = None
        self._subjects.setdefault(session, {})[subject] = (cap, gives_way)

    def _make_room(self, subject: str, cap: int, newest: Standing) -> None:
        elsewhere = sum(self._elsewhere.get(subject, {}).values())
        if len(self._living(subject)) + elsewhere > cap:
            self._close_idle(subject, cap, 1, newest)

    def _close_idle(self, subject: str, cap: int, count: int, newest: Standing | None) -> None:
        others = [session for session in self._living(subject) if session is not newest]
        others.sort(key=lambda session: session.active_at)
        for session in others[:count]:
            whose = "device" if subject.startswith("d:") else "user"
            reason = f"This {whose} has {cap} connections; this one was idle the longest."
            # Coming back at once would only close the next one.
            self._end(session, CODE, reason, "never")

    def _living(self, subject: str) -> list[Standing]:
        return [session for session in self._sessions.get(subject, ()) if not session.ended]

    def _of_address(self, address: str) -> str:
        return f"a:{self._network_of(address)}"


def _surplus(counts: dict[str, int], cap: int) -> dict[str, int]:
    """Tell how many each node has to close: whoever has most comes first. All nodes agree."""
    left = dict(counts)
    for _ in range(sum(counts.values()) - cap):
        fullest = max(left, key=lambda node: (left[node], node))
        left[fullest] -= 1
    return {node: count - left[node] for node, count in counts.items()}


def _exceeded(whose: str, policy: str, cap: int) -> QuotaExceededError:
    return QuotaExceededError(
        f"There are {cap} connections of {whose} already.",
        retry_after_ms=RETRY_S * 1000,
        policy=policy,
        limit=cap,
        remaining=0,
    )
