"""The way in, the same for every door: who it is, how many there may be, with which credential."""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

import structlog

from chatserver.kernel.clock import Clock
from chatserver.kernel.errors import RateLimitedError, UnavailableError
from chatserver.kernel.principal import Principal
from chatserver.realtime.admission import Admission
from chatserver.realtime.census import RETRY_S, Census
from chatserver.realtime.hub import Connection, Outlet
from chatserver.realtime.packets import Outgoing, event_packet
from chatserver.realtime.ports import Accepted, Door
from chatserver.realtime.standing import Standing, own_fact

log = structlog.get_logger(__name__)

CONNECT_S: Final = 5.0
LIMBO_S: Final = 10.0

End = Callable[[Any, str, str, str], None]
# A credential as it was shown: the token, and the client that was named with it.
_Shown: TypeAlias = tuple[str, str | None]


class Arrivals(Protocol):
    """What is told of connections that were accepted, and that have gone."""

    def may_listen(self, principal: Principal, namespace: str) -> bool:
        """Whether a key may read what a namespace shows."""
        ...

    def seat(
        self,
        auth: Any,
        namespace: str,
        principal: Principal,
        session_id: str,
        outlet: Outlet,
        session: Standing,
    ) -> Connection:
        """Make the connection that this client asked for, which is yet to enter."""
        ...

    def enter_now(self, connection: Connection) -> bool:
        """Subscribe a connection if that takes no time; False: use `enter`."""
        ...

    async def enter(self, connection: Connection) -> None:
        """Subscribe a connection; raises when that can't be done now."""
        ...

    def leave(self, connection: Connection) -> None: ...


class Entrance:
    """`end` closes a connection: (session, code, reason, reconnect).

    `refusal_s` is about how long a refusal of a credential waits.
    """

    def __init__(
        self,
        *,
        door: Door,
        arrivals: Arrivals,
        admission: Admission,
        clock: Clock,
        end: End,
        refusal_s: float = 0.0,
    ) -> None:
        self.admission = admission
        self.census: Census | None = None
        self._door = door
        self._arrivals = arrivals
        self._clock = clock
        self._end = end
        self._refusal_s = refusal_s

    def check_address(self, address: str) -> None:
        """Look whether an address may open another connection at all.

        Raises:
            UnavailableError: it has too many.
        """
        if self.census is not None and not self.census.may_open(address):
            raise UnavailableError(
                "Too many connections come from here.", retry_after_ms=RETRY_S * 1000
            )

    def refusal_delay_s(self) -> float:
        """Choose how long to wait before a refusal is told: give or take half of what is set."""
        return self._refusal_s * random.uniform(0.5, 1.5)  # noqa: S311 - jitter

    def opened(self, session: Standing) -> None:
        if self.census is not None:
            self.census.opened(session)

    def left(self, session: Standing) -> None:
        if self.census is not None:
            self.census.left(session)

    def offended(self, session: Standing) -> None:
        """Count a command that no working client sends; too many end the connection."""
        if self.census is not None and session.offences.add(self.census.offences(session.first)):
            log.info("too_many_offences", address=session.handshake.address)
            reason = "Too many commands that make no sense."
            self._end(session, RateLimitedError.code, reason, "backoff")

    async def let_in(
        self,
        session: Standing,
        namespace: str,
        auth: Any,
        seat: Callable[[Principal], Connection],
    ) -> Connection:
        """Authenticate, and subscribe unless the credential has to be refreshed first.

        Nothing is awaited any more once it is known whether the connection is in limbo.

        Raises:
            Refused: the door doesn't want it.
            DomainError: it can't be done now, or there are too many.
        """
        shown = _shown(auth)
        known = self._known(session, namespace, shown)
        if known is not None and not session.in_limbo:
            # The second and third namespace: nothing is asked, so there is nothing to bound.
            connection = seat(known)
            if self._arrivals.enter_now(connection):
                return connection
        async with self.admission.place():
            try:
                async with asyncio.timeout(CONNECT_S):
                    principal = await self._authenticate(session, namespace, auth, shown)
                    connection = seat(principal)
                    if not session.in_limbo:
                        try:
                            await self._arrivals.enter(connection)
                        except BaseException:
                            self._arrivals.leave(connection)
                            raise
            except TimeoutError as error:
                raise UnavailableError from error
        return connection

    def ready(self, connection: Connection) -> Outgoing:
        """Give the packet of `session.ready`."""
        welcome = self._door.welcome(connection.principal, connection.session_id)
        welcome["resumed"] = connection.recovered
        fact = own_fact(self._clock, "session.ready", welcome)
        return event_packet(connection.namespace, "session.ready", fact)

    async def renew(
        self, session: Standing, shown: tuple[str, object], principal: Principal
    ) -> None:
        """Put another credential of the same user in the place of all that a connection has.

        Raises:
            Exception: the connection was in limbo, and its rooms can't be read now.
        """
        if session.in_limbo:
            for connection in list(session.connections.values()):
                connection.principal = principal
                await self._arrivals.enter(connection)
                if session.connections.get(connection.namespace) is not connection:
                    self._arrivals.leave(connection)  # it left meanwhile
        session.first = principal
        session.verified = {shown: principal}
        session.expiry_told = None
        was_in_limbo, session.in_limbo = session.in_limbo, False
        session.has_namespace()
        for connection in session.connections.values():
            connection.principal = principal
            if was_in_limbo:
                connection.open(self.ready(connection))
            else:
                connection.open()

    def _known(self, session: Standing, namespace: str, shown: _Shown | None) -> Principal | None:
        """Give whose credential this is, if the connection has shown it before."""
        if shown is None:
            return None
        known = session.verified.get(shown)
        if (
            known is not None
            and (session.in_limbo or not self._is_over(known))
            and self._arrivals.may_listen(known, namespace)
        ):
            return known
        return None

    async def _authenticate(
        self, session: Standing, namespace: str, auth: Any, shown: _Shown | None
    ) -> Principal:
        known = self._known(session, namespace, shown)
        if known is not None:
            return known
        accepted = await self._door.accept(namespace, session.handshake, auth, session.first)
        if session.first is None and self.census is not None:
            self.census.enter(session, accepted.principal)
        self._note(session, accepted)
        if shown is not None:
            session.remember(shown, accepted.principal)
        return accepted.principal

    def _note(self, session: Standing, accepted: Accepted) -> None:
        session.first = session.first or accepted.principal
        session.rotated = session.rotated or accepted.rotated
        if accepted.in_limbo:
            session.enter_limbo(
                LIMBO_S,
                lambda: self._end(session, "auth.expired", "The key has expired.", "never"),
            )

    def _is_over(self, principal: Principal) -> bool:
        ends = principal.expires_at
        return ends is not None and ends <= self._clock().timestamp()


def _shown(auth: Any) -> _Shown | None:
    if isinstance(auth, dict) and isinstance(auth.get("token"), str):
        client = auth.get("client")
        return (auth["token"], client if isinstance(client, str) else None)
    return None
