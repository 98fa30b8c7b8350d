"""The realtime engine, put together: sockets, order, bus and repair of one node."""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import structlog
from aiohttp import web

from chatserver.kernel.clock import Clock, utc_now
from chatserver.kernel.errors import DrainingError
from chatserver.kernel.events import Committed
from chatserver.kernel.principal import Principal
from chatserver.realtime.bus import Bus
from chatserver.realtime.current import CONNECTION
from chatserver.realtime.fanout import Fanout
from chatserver.realtime.guard import GuardedServer
from chatserver.realtime.hub import Connection, Hub, Views
from chatserver.realtime.memberships import Memberships
from chatserver.realtime.ports import Changes, Closing, Door, Leader, Log
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
        **engine_options: Any,
    ) -> None:
        self.node_id = node_id
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

    def end_expired(self, now: float, code: str, reason: str) -> None:
        """Close the connections of credentials that ended before `now`, in Unix seconds."""
        for session in list(self.server.sessions.values()):
            if any(
                principal.expires_at is not None and principal.expires_at <= now
                for principal in session.principals()
            ):
                self.server.end(session, code, reason, "never")

    def end_all(self, code: str, reason: str, reconnect: str) -> None:
        """Close every connection of this node, and forget how far each room was shown."""
        self.recovery.reset()
        for session in list(self.server.sessions.values()):
            self.server.end(session, code, reason, reconnect)

    async def watch(self, room_id: UUID) -> int:
        """Subscribe the connection whose command is running to a room it is no member of.

        Returns the seq after which it is shown facts.

        Raises:
            QuotaExceededError: it watches 100 rooms already.
            LookupError: the command did not come from a socket.
        """
        return await self.memberships.watch(_current(), room_id)

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
        await self.memberships.settle(self.hub.add(connection))

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
