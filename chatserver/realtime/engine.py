"""The realtime engine, put together: sockets, order, bus and repair of one node."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import structlog
from aiohttp import web

from chatserver.kernel.clock import Clock, utc_now
from chatserver.kernel.errors import ScopeMissingError, UnavailableError
from chatserver.kernel.events import Committed
from chatserver.kernel.principal import Principal
from chatserver.realtime.admission import Admission
from chatserver.realtime.bus import Bus
from chatserver.realtime.current import current
from chatserver.realtime.deliveries import Deliveries
from chatserver.realtime.drain import drain
from chatserver.realtime.entrance import Entrance
from chatserver.realtime.expiry import look_at
from chatserver.realtime.fanout import Fanout
from chatserver.realtime.guard import GuardedServer
from chatserver.realtime.hub import Connection, Hub, Outlet, Views
from chatserver.realtime.memberships import Memberships
from chatserver.realtime.ports import Changes, Closing, Door, Leader, Log, OtherSession
from chatserver.realtime.presence import Presence
from chatserver.realtime.publisher import BusSettings
from chatserver.realtime.recovery import Recovery
from chatserver.realtime.repair import Repair
from chatserver.realtime.restore import Restorer
from chatserver.realtime.standing import kids_of, oldest_tokens
from chatserver.realtime.store import Store
from chatserver.realtime.tips import Tips
from chatserver.realtime.tracked import Claim, TrackedConnection, Tracker
from chatserver.realtime.typists import Typists
from chatserver.realtime.watching import Reload, Watchers

log = structlog.get_logger(__name__)

DRAIN_S: Final = 18.0
HEAL_S: Final = 3.0
EPOCH_MISMATCH: Final = "epoch.mismatch"


class Realtime:
    """One node's engine. A `Broadcaster` for everything that runs in the same process.

    `views`: which facts `/rooms` and the other partial namespaces see; `/chat`, the first of
    `namespaces`' whole view, sees all with a seq. `store`: where what a dropped socket had seen is
    kept for its return; without it no client recovers, and nobody is present. `start` before the
    first request, `stop` while requests can still be answered.
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
        store: Store | None = None,
        may_listen: Callable[[Principal, str], bool] = lambda *_: True,
        admission: Admission | None = None,
        **engine_options: Any,
    ) -> None:
        self.node_id = node_id
        self.may_listen = may_listen
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
        self.admission = admission or Admission()
        self.server = GuardedServer(
            door=door,
            arrivals=self,
            admission=self.admission,
            namespaces=namespaces,
            clock=clock,
            **engine_options,
        )
        # Every session id names its node, so that a balancer or another node finds the way here.
        make = self.server.eio.generate_id
        self.server.eio.generate_id = lambda: f"{node_id}.{make()}"
        self.restorer = (
            None
            if store is None
            else Restorer(store=store, hub=self.hub, truth=truth, watch=self.memberships.watch)
        )
        self._store = store
        self._tracker = Tracker(node_id)
        self.tips = Tips(recovery=self.recovery, namespace=views.whole, clock=clock)
        self.typists = Typists(self.hub, views.whole, send=self.bus.report_typing, clock=clock)
        self.recovery.spoke, self.on_typing = self.typists.spoke, self.typists.hear
        self.deliveries = Deliveries(node_id, self.hub, self.bus, clock)
        self.recovery.delivered = self.deliveries.note
        self.on_ask, self.on_answer = self.deliveries.on_ask, self.deliveries.on_answer
        self.presence = None if store is None else Presence(store)
        self.watchers = None if self.presence is None else Watchers(self.presence, clock)
        self._clock = clock
        self._others: set[OtherSession] = set()
        self._path = path
        # Told of every closing, wherever it came from: what caches keys must forget them.
        self.heard: Callable[[Closing], None] = lambda _: None

    @property
    def draining(self) -> bool:
        return self.server.draining

    def sessions(self) -> list[Any]:
        """Give everyone who is connected, by whichever door."""
        return [*self.server.sessions.values(), *self._others]

    @property
    def entrance(self) -> Entrance:
        """The way in for connections of other doors, too."""
        return self.server.entrance

    def join(self, session: OtherSession) -> None:
        """Take in a connection of another door: it is told of closings and drained like ours."""
        self._others.add(session)
        session.on_slow = self._slow

    def part(self, session: OtherSession) -> None:
        self._others.discard(session)
        self.server.tally.drops["websocket closed"] += 1
        self.server.tally.shed += session.outlet.dropped

    def cut(self, session: Any) -> None:
        """End a connection now, whether its peer reads or not."""
        (session if session in self._others else session.socket).cut()

    def shape_of(self, session: Any) -> tuple[str, int, int]:
        """Give a connection's transport, the bytes that wait for it, and the packets shed."""
        if session in self._others:
            return "plain", session.outlet.bytes, session.outlet.dropped
        socket = session.socket
        return socket.transport, socket.outbox.bytes, socket.outbox.dropped

    def attach(self, app: web.Application) -> None:
        """Serve the engine's path in an app."""
        self.server.attach(app, self._path)

    async def start(self) -> None:
        """Connect to the bus and begin to repair. Doesn't wait long for Redis, and needs it not."""
        await self.bus.start(self)
        self.repair.start()
        self.tips.start()
        if self.presence is not None:
            self.presence.start()
        await self.bus.settled(HEAL_S)

    async def stop(self, within_s: float = DRAIN_S) -> None:
        """Send everyone elsewhere, spread over the time that this takes, and end.

        From now on nobody is let in and the node is not ready. Few connections are sent off at
        once, many over most of `within_s`; each is closed with its commands answered.
        """
        server = self.server
        if server.draining:
            return
        server.draining = server.eio.draining = True
        await drain(self, within_s)
        await self._end_parts()

    async def _end_parts(self) -> None:
        self.tips.stop()
        self.typists.close()
        await self.server.shutdown()
        if self.restorer is not None:
            await self.restorer.stop()
        if self.presence is not None:
            await self.presence.stop()
        if self._store is not None:
            await self._store.close()
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
            # Here first: what fails on the way to the others must not keep sockets open here.
            self.on_closing(closing)
            self.bus.publisher.close(closing)
        except Exception:
            log.exception("close_failed")

    def kids(self) -> set[str]:
        """Name the keys that this node's connections were accepted with."""
        return kids_of(self.sessions())

    def bearers(self) -> dict[UUID, float]:
        """Name the users who came without a key, with when the oldest of their tokens was issued.

        Times are Unix seconds.
        """
        return oldest_tokens(self.sessions())

    def watch_expiry(self, now: float) -> None:
        """Warn of credentials that end soon; hold and close the connections of those that did.

        `now` is in Unix seconds. Call it every few seconds.
        """
        for session in self.sessions():
            look_at(session, now, self._clock, self.close_session)

    def end_all(self, code: str, reason: str, reconnect: str) -> None:
        """Close every connection of this node, and forget how far each room was shown."""
        self.recovery.reset()
        for session in self.sessions():
            self.close_session(session, code, reason, reconnect)

    async def watch(self, room_id: UUID) -> int:
        """Subscribe the connection whose command is running to a room it is no member of.

        Returns the seq after which it is shown facts.

        Raises:
            QuotaExceededError: it watches 100 rooms already.
            LookupError: the command did not come from a socket.
            ScopeMissingError: the key may not read here.
        """
        connection = current()
        if not self.may_listen(connection.principal, connection.namespace):
            raise ScopeMissingError("This key may not read here.")
        return await self.memberships.watch(connection, room_id)

    async def unwatch(self, room_id: UUID) -> None:
        """End what `watch` began; membership is not touched.

        Raises:
            LookupError: the command did not come from a socket.
        """
        self.memberships.unwatch(current(), room_id)

    async def set_presence(self, status: str) -> None:
        """Say how the user of the connection whose command is running is, on this device.

        Raises:
            LookupError: the command did not come from a socket.
        """
        if self.presence is not None:
            self.presence.declare(current(), status)

    async def watch_presence(
        self,
        users: Mapping[UUID, str],
        rooms: Mapping[UUID, tuple[Mapping[UUID, str], Reload]],
    ) -> dict[str, Any]:
        """Tell the connection whose command is running of these from now on, and of no others.

        Raises:
            UnavailableError: presence is away.
            LookupError: the command did not come from a socket.
        """
        if self.watchers is None:
            raise UnavailableError
        try:
            return await self.watchers.watch(current(), users, rooms)
        except ConnectionError as error:
            raise UnavailableError from error

    def seat(
        self,
        auth: Any,
        namespace: str,
        principal: Principal,
        session_id: str,
        outlet: Outlet,
        session: Any,
    ) -> Connection:
        """Make a connection; one that can recover where the client asks for it."""
        if (
            self.restorer is None
            or namespace != self.recovery.views.whole
            or not isinstance(auth, dict)
            or auth.get("recovery") is not True
        ):
            return Connection(namespace, principal, session_id, outlet, session)
        return TrackedConnection(
            namespace,
            principal,
            session_id,
            outlet,
            session,
            tracker=self._tracker,
            # Greeted before it is subscribed, it can't be told that it goes on.
            claim=None if session.in_limbo else Claim.of(auth),
        )

    def enter_now(self, connection: Connection) -> bool:
        """Subscribe a connection whose user's rooms are here already; False: that takes `enter`."""
        now = type(connection) is Connection and self.hub.has_rooms(connection.principal.user_id)
        if not now or not self.may_listen(connection.principal, connection.namespace):
            return False
        self.hub.add(connection)
        if self.presence is not None:
            self.presence.enter(connection)
        return True

    async def enter(self, connection: Connection) -> None:
        """Subscribe a connection that was accepted.

        Raises:
            Exception: the user's rooms can't be read now.
        """
        if self.may_listen(connection.principal, connection.namespace):
            await self.memberships.settle(self.hub.add(connection))
            if isinstance(connection, TrackedConnection) and self.restorer is not None:
                await self.restorer.restore(connection)
        if self.presence is not None:
            self.presence.enter(connection)

    def leave(self, connection: Connection) -> None:
        self.typists.leave(connection)
        if self.presence is not None and self.watchers is not None:
            self.presence.leave(connection)
            self.watchers.forget(connection)
        if isinstance(connection, TrackedConnection) and self.restorer is not None:
            self.restorer.dropped(connection)
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
            self.close_session(
                session, closing.code, closing.reason, closing.reconnect, closing.after_ms
            )

    def close_session(
        self, session: Any, code: str, reason: str, reconnect: str, after_ms: int = 0
    ) -> None:
        """Tell a connection why, and close it."""
        if reconnect == "never" or code == EPOCH_MISMATCH:
            for connection in session.connections.values():
                connection.goodbye = True  # there is nothing to come back to
        self.server.end(session, code, reason, reconnect, after_ms)

    def _slow(self, session: OtherSession) -> None:
        self.close_session(session, "slow_consumer", "This socket reads too slowly.", "now")

    def _sessions_of(self, closing: Closing) -> list[Any]:
        return [
            session
            for session in self.sessions()
            if any(closing.concerns(principal) for principal in session.principals())
        ]

    def _end(
        self, connections: Iterable[Connection], code: str, reason: str, reconnect: str
    ) -> None:
        for session in {connection.session for connection in connections}:
            self.close_session(session, code, reason, reconnect)
