"""The realtime engine, put together: sockets, order, bus and repair of one node."""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import structlog
from aiohttp import web

from chatserver.kernel.clock import Clock, utc_now
from chatserver.kernel.errors import DrainingError, ScopeMissingError
from chatserver.kernel.events import Committed
from chatserver.kernel.principal import Principal
from chatserver.realtime.bus import Bus
from chatserver.realtime.current import CONNECTION
from chatserver.realtime.expiry import look_at
from chatserver.realtime.fanout import Fanout
from chatserver.realtime.guard import GuardedServer
from chatserver.realtime.hub import Connection, Hub, Views
from chatserver.realtime.memberships import Memberships
from chatserver.realtime.ports import Changes, Closing, Door, Handshake, Leader, Log
from chatserver.realtime.publisher import BusSettings
from chatserver.realtime.recovery import Recovery
from chatserver.realtime.repair import Repair
from chatserver.realtime.session import Session

log = structlog.get_logger(__name__)

DRAIN_S: Final = 3.0
HEAL_S: Final = 3.0


class Realtime:
    """One node's engine. A `Broadcaster` for everything that runs in the same process.

    `views`: which facts `/rooms` and the other partial namespaces see; `/chat`, the first of
    `namespaces`' whole view, sees all with a seq. `start` before the first request, `stop` while
    requests can still be answered.
    """

    def __init__(  # noqa: PLR0913 - the one place where the parts meet
        self,
        *,
        door: Door,
        truth: Log,
        leader: Leader,
        bus: BusSettings,
        node_id: str,
        views: Views,
        namespaces: tuple[str, ...] = ("/rooms", "/chat", "/notifications"),
        path: str = "/socket.io/",
        clock: Clock = utc_now,
        patience_s: float = 30,
        may_listen: Callable[[Principal, str], bool] = lambda *_: True,
        **engine_options: Any,
    ) -> None:
        self.node_id = node_id
        self._may_listen = may_listen
        self._clock = clock
        self.bus = Bus(bus, node_id)
        self.fanout = Fanout()
        self.hub = Hub(self.bus)
        self.recovery = Recovery(
            hub=self.hub,
            truth=truth,
            fanout=self.fanout,
            views=views,
            end=self._end,
            patience_s=patience_s,
        )
        self.memberships = Memberships(self.recovery, self.bus)
        self.repair = Repair(
            recovery=self.recovery,
            memberships=self.memberships,
            leader=leader,
            healthy=lambda: self.bus.healthy,
            publish=self.bus.publisher.publish_changes,
        )
        self.server = GuardedServer(
            door=door,
            arrivals=self,
            namespaces=namespaces,
            clock=clock,
            **engine_options,
        )
        self._path = path
        # Told of every closing, wherever it came from: what caches keys must forget them.
        self.heard: Callable[[Closing], None] = lambda _: None

    def attach(self, app: web.Application) -> None:
        """Serve the engine's path in an app."""
        self.server.attach(app, self._path)

    async def start(self) -> None:
        """Connect to the bus and begin to repair. Doesn't wait long for Redis, and needs it not."""
        await self.bus.start(self)
        self.repair.start()
        await self.bus.settled(HEAL_S)

    async def stop(self, within_s: float = DRAIN_S) -> None:
        """Send everyone elsewhere, spread over the time there is, and end."""
        server = self.server
        if server.draining:
            return
        server.draining = server.eio.draining = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        for session in list(server.sessions.values()):
            after_ms = int(random.uniform(0, within_s * 500))  # noqa: S311 - jitter
            server.end(session, DrainingError.code, DrainingError.title, "now", after_ms)
        while server.sessions and loop.time() < deadline:  # noqa: ASYNC110 - counted by two libraries
            await asyncio.sleep(0.02)
        for session in list(server.sessions.values()):
            session.lanes.cancel()
            session.socket.cut()
        await asyncio.sleep(0)
        await server.shutdown()
        await self.repair.stop()
        self.recovery.stop()
        await self.bus.stop()

    def publish(self, facts: Sequence[Committed]) -> None:
        """Show committed facts to everyone concerned, on every node. Never raises."""
        try:
            self.bus.publish(facts)
            for fact in facts:
                self.recovery.show(fact)
        except Exception:
            log.exception("publish_failed")

    def close(self, closing: Closing) -> None:
        """Close sockets, on every node. Never raises."""
        try:
            self.bus.publisher.close(closing)
            self.on_closing(closing)
        except Exception:
            log.exception("close_failed")

    def kids(self) -> set[str]:
        """Name the keys that this node's connections were accepted with."""
        return {
            principal.kid
            for session in self.server.sessions.values()
            for principal in session.principals()
            if principal.kid
        }

    def bearers(self) -> dict[UUID, float]:
        """Name the users who came without a key, with when the oldest of their tokens was issued.

        Times are Unix seconds.
        """
        oldest: dict[UUID, float] = {}
        for session in self.server.sessions.values():
            for principal in session.principals():
                if not principal.kid and principal.issued_at is not None:
                    known = oldest.get(principal.user_id, principal.issued_at)
                    oldest[principal.user_id] = min(known, principal.issued_at)
        return oldest

    def watch_expiry(self, now: float) -> None:
        """Warn of credentials that end soon; hold and close the connections of those that did.

        `now` is in Unix seconds. Call it every few seconds.
        """
        for session in list(self.server.sessions.values()):
            look_at(session, now, self._clock)

    def end_all(self, code: str, reason: str, reconnect: str) -> None:
        """Close every connection of this node."""
        for session in list(self.server.sessions.values()):
            self.server.end(session, code, reason, reconnect)

    async def watch(self, room_id: UUID) -> int:
        """Subscribe the connection whose command is running to a room it is no member of.

        Returns the seq after which it is shown facts.

        Raises:
            QuotaExceededError: it watches 100 rooms already.
            LookupError: the command did not come from a socket.
            ScopeMissingError: the key may not read here.
        """
        connection = _current()
        if not self._may_listen(connection.principal, connection.namespace):
            raise ScopeMissingError("This key may not read here.")
        return await self.memberships.watch(connection, room_id)

    async def unwatch(self, room_id: UUID) -> None:
        """End what `watch` began; membership is not touched.

        Raises:
            LookupError: the command did not come from a socket.
        """
        self.memberships.unwatch(_current(), room_id)

    async def enter(self, connection: Connection) -> None:
        """Subscribe a connection that was accepted.

        Raises:
            Exception: the user's rooms can't be read now.
        """
        # A key that may not read is let in all the same: it may have commands to send.
        if self._may_listen(connection.principal, connection.namespace):
            await self.memberships.settle(self.hub.add(connection))

    async def renew(self, token: str, client: str | None, principal: Principal) -> None:
        """Let the connection whose command is running go on with another credential of its user.

        Raises:
            LookupError: the command did not come from a socket.
        """
        session: Session = _current().session
        await self.server.renew(session, (token, client), principal)
        for connection in session.connections.values():
            if not self._may_listen(principal, connection.namespace):
                self.hub.remove(connection)
            elif not self.hub.has(connection):
                await self.memberships.settle(self.hub.add(connection))

    def handshake(self) -> Handshake:
        """Give what the connection whose command is running said of itself.

        Raises:
            LookupError: the command did not come from a socket.
        """
        session: Session = _current().session
        return session.handshake

    def leave(self, connection: Connection) -> None:
        self.hub.remove(connection)

    def concerns_room(self, room_id: UUID) -> bool:
        return room_id in self.hub.streams or self.recovery.loads > 0

    def concerns_user(self, user_id: UUID) -> bool:
        return user_id in self.hub.listeners

    def on_fact(self, fact: Committed, only: UUID | None) -> None:
        self.recovery.show(fact, only)

    def on_reference(self, room_id: UUID, seq: int, only: UUID | None) -> None:
        self.recovery.refer(room_id, seq, only)

    def on_changes(self, changes: Changes) -> None:
        self.repair.compare(changes)

    def on_closing(self, closing: Closing) -> None:
        self.heard(closing)
        for session in self._sessions_of(closing):
            self.server.end(
                session, closing.code, closing.reason, closing.reconnect, closing.after_ms
            )

    def _sessions_of(self, closing: Closing) -> list[Session]:
        def concerned(principal: Principal) -> bool:
            if closing.kid is not None:
                return principal.kid == closing.kid
            if closing.user_id is not None:
                return principal.user_id == closing.user_id
            return closing.client_id is not None and principal.client_id == closing.client_id

        return [
            session
            for session in list(self.server.sessions.values())
            if any(concerned(principal) for principal in session.principals())
        ]

    def _end(
        self, connections: Iterable[Connection], code: str, reason: str, reconnect: str
    ) -> None:
        for session in {connection.session for connection in connections}:
            self.server.end(session, code, reason, reconnect)


def _current() -> Connection:
    connection = CONNECTION.get()
    if connection is None:
        raise LookupError("the command did not come from a socket")
    return connection
