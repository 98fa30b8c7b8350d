"""Puts the server together: every route, every namespace, one screen."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, Final
from uuid import UUID

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector

from chatserver.api_keys import errors as auth
from chatserver.api_keys.http import ROUTES as API_KEY_ROUTES
from chatserver.api_keys.http import ApiKeysHttp
from chatserver.bootstrap import Container
from chatserver.chat.http import ROUTES as CHAT_ROUTES
from chatserver.chat.http import ChatHttp
from chatserver.chat.sockets import FACTS as CHAT_FACTS
from chatserver.chat.sockets import NAMESPACE as CHAT
from chatserver.chat.sockets import ChatCommands
from chatserver.clients.http import CLIENT_ROUTES, KEY_ROUTES, ClientKeysHttp, ClientsHttp
from chatserver.infra.cluster import AdvisoryLeader
from chatserver.kernel.clock import utc_now
from chatserver.kernel.errors import DomainError, UnavailableError
from chatserver.kernel.principal import Principal, Scope
from chatserver.realtime.engine import Realtime
from chatserver.realtime.hub import Views
from chatserver.realtime.metrics import RealtimeMetrics
from chatserver.realtime.nodes import NodeRegistry
from chatserver.realtime.ports import Closing, Handshake
from chatserver.realtime.store import Store
from chatserver.realtime.watching import Reload
from chatserver.rooms.events import LOBBY_FACTS
from chatserver.rooms.http import ROUTES as ROOM_ROUTES
from chatserver.rooms.http import RoomsHttp
from chatserver.rooms.schemas import RoomRef
from chatserver.rooms.sockets import FACTS as ROOM_FACTS
from chatserver.rooms.sockets import NAMESPACE as ROOMS
from chatserver.rooms.sockets import (
    PresenceBoard,
    PresenceCommands,
    RoomCommands,
    WatchCommands,
    Watcher,
)
from chatserver.settings import Settings
from chatserver.transport import cors
from chatserver.transport.answers import answers
from chatserver.transport.credentials import Sender, check_origin
from chatserver.transport.documents import served
from chatserver.transport.forwarding import Forwarder
from chatserver.transport.health import DatabaseProbe, Health, State
from chatserver.transport.http import RestDoor
from chatserver.transport.metrics import CommandMetrics, ForwardMetrics, MetricsPage
from chatserver.transport.registry import Registry
from chatserver.transport.sessions import FACTS as SESSION_FACTS
from chatserver.transport.sockets import SocketDoor
from chatserver.transport.websocket import WebSocketDoor
from chatserver.users.http import ROUTES as USER_ROUTES
from chatserver.users.http import UsersHttp

NOTIFICATIONS: Final = "/notifications"
NAMESPACE_SCOPES: Final = {
    ROOMS: Scope.ROOMS_READ,
    CHAT: Scope.CHAT_READ,
    NOTIFICATIONS: Scope.NOTIFICATIONS_READ,
}
NAMESPACES: Final = tuple(NAMESPACE_SCOPES)
# Which of all nodes publishes the change list: any number that no other role has.
CHANGE_LIST: Final = 0x63686174
SWEEP_S: Final = 25.0
EXPIRE_S: Final = 2.0
# What a client may rely on; more of it comes with later versions.
FEATURES: Final = {"recovery": True, "rotation": False, "typing": False, "presence": True}


def build_registry(
    container: Container | None = None,
    watcher: Watcher | None = None,
    board: PresenceBoard | None = None,
) -> Registry:
    """Declare everything that callers can do. Without a container it is only good for documents."""
    parts: Any = container or _Unconnected()
    registry = Registry(
        auth_errors=(
            auth.AuthMissingError,
            auth.AuthInvalidError,
            auth.AuthExpiredError,
            auth.AuthRevokedError,
        )
    )
    registry.add(ClientsHttp(parts.open_clients), routes=CLIENT_ROUTES)
    registry.add(ClientKeysHttp(parts.open_master_keys), routes=KEY_ROUTES)
    registry.add(UsersHttp(parts.open_users), routes=USER_ROUTES)
    registry.add(ApiKeysHttp(parts.open_api_keys), routes=API_KEY_ROUTES)
    registry.add(RoomCommands(parts.open_rooms, parts.open_members), namespaces=(ROOMS,))
    registry.add(RoomsHttp(parts.open_rooms, parts.open_members), routes=ROOM_ROUTES)
    registry.add(
        WatchCommands(parts.open_rooms, watcher or parts.watcher), namespaces=(ROOMS, CHAT)
    )
    registry.add(
        PresenceCommands(parts.open_rooms, parts.open_users, board or parts.board),
        namespaces=(ROOMS,),
    )
    registry.add(ChatCommands(parts.chat, parts.catch_up), namespaces=(CHAT,))
    registry.add(ChatHttp(parts.chat, parts.catch_up), routes=CHAT_ROUTES)
    registry.add_facts(*ROOM_FACTS, *CHAT_FACTS, *SESSION_FACTS)
    return registry


class _Unconnected:
    """Stands where a service would, as long as nobody calls one."""

    def __getattr__(self, name: str) -> "_Unconnected":
        return self


class _LateEngine:
    """The engine is built with the door, the door with the registry: this closes the circle."""

    def __init__(self) -> None:
        self.realtime: Realtime | None = None

    async def watch(self, room_id: UUID) -> int:
        return await self._engine().watch(room_id)

    async def unwatch(self, room_id: UUID) -> None:
        await self._engine().unwatch(room_id)

    async def set_presence(self, status: str) -> None:
        await self._engine().set_presence(status)

    async def watch_presence(
        self,
        users: Mapping[UUID, str],
        rooms: Mapping[UUID, tuple[Mapping[UUID, str], Reload]],
    ) -> dict[str, Any]:
        return await self._engine().watch_presence(users, rooms)

    def _engine(self) -> Realtime:
        assert self.realtime is not None  # noqa: S101 - set before the first request
        return self.realtime


class Server:
    """One web node: the container, the engine and the aiohttp application."""

    def __init__(
        self,
        settings: Settings,
        *,
        reached_at: str | None = None,
        siblings: Sequence[str] = (),
    ) -> None:
        """`reached_at`: where other nodes reach this one; without it none forwards to it.

        `siblings`: where the other processes are that share this one's port.
        """
        self.settings = settings
        self.container = Container(settings)
        self.nodes = NodeRegistry(
            self._store(),
            key=self.container.bus.key,
            node_id=settings.node_id,
            url=reached_at,
        )
        self.forwarder = Forwarder(self.nodes, settings.socket_path)
        late = _LateEngine()
        self.registry = build_registry(self.container, late, late)
        self.door = self._socket_door()
        self.realtime = self._engine()
        late.realtime = self.realtime
        if self.realtime.restorer is not None:
            self.realtime.restorer.generation = self.container.generation
            self.realtime.restorer.may_watch = self._may_watch
        self.container.broadcaster = self.realtime
        self.container.generation.changed = self._rewound
        self.realtime.heard = self.container.identifier.forget
        self.figures = CollectorRegistry()
        self.metrics = RealtimeMetrics(self.realtime, self.figures, utc_now)
        self._measure()
        self.siblings = siblings
        self.app = self._application()

    def _measure(self) -> None:
        ProcessCollector(registry=self.figures)
        commands = CommandMetrics(self.figures)
        self.door.answered = commands.answered
        self.container.writer.measured = commands.committed
        ForwardMetrics(self.forwarder.counters, self.figures)

    def _store(self) -> Store:
        return Store(self.container.bus.url, prefix=self.container.bus.prefix)

    def _socket_door(self) -> SocketDoor:
        return SocketDoor(
            registry=self.registry,
            authenticate=self._authenticate,
            foreign=auth.AuthInvalidError,
            limits=self.settings.limits.model_dump(),
            features=FEATURES,
            scopes=NAMESPACE_SCOPES,
        )

    def _engine(self) -> Realtime:
        return Realtime(
            door=self.door,
            truth=self.container.log,
            leader=AdvisoryLeader(self.container.database, CHANGE_LIST),
            bus=self.container.bus,
            node_id=self.settings.node_id,
            views=Views(CHAT, {ROOMS: LOBBY_FACTS}),
            namespaces=NAMESPACES,
            path=self.settings.socket_path,
            store=self._store(),
        )

    def _application(self) -> web.Application:
        app = web.Application(
            middlewares=[
                answers(bypass=(self.settings.socket_path,)),
                self.forwarder.middleware(),
            ],
            client_max_size=1 << 20,
        )
        RestDoor(
            self.registry,
            identify=self._identify,
            store=self.container.answers,
            trusted_proxies=[ip_network(each) for each in self.settings.trusted_proxies],
        ).attach(app)
        url = self.settings.database_url.get_secret_value()
        Health(DatabaseProbe(url), [_BusProbe(self.realtime), _DrainProbe(self.realtime)]).attach(
            app
        )
        served.attach(app, self.registry)
        MetricsPage(
            self.figures,
            node_id=self.settings.node_id,
            look=self.metrics.look,
            siblings=self.siblings,
        ).attach(app)
        WebSocketDoor(
            realtime=self.realtime,
            door=self.door,
            namespaces=NAMESPACES,
            admission=self.realtime.admission,
        ).attach(app)
        cors.allow(app, self.settings.cors_origins)
        # After CORS: the engine answers preflights of its own.
        self.realtime.attach(app)
        app.cleanup_ctx.append(self._life)
        return app

    async def _life(self, _: web.Application) -> AsyncIterator[None]:
        await self.container.start()
        await self.realtime.start()
        await self.nodes.start()
        self.metrics.start()
        loop = asyncio.get_running_loop()
        sweeps = [loop.create_task(work) for work in (self._sweep(), self._expire())]
        yield
        for sweep in sweeps:
            sweep.cancel()
        self.metrics.stop()
        await self.nodes.stop()
        await self.realtime.stop()
        await self.forwarder.close()
        await self.container.stop()

    async def _identify(self, token: str | None, sender: Sender) -> Principal:  # noqa: ARG002
        return await self.container.identifier.identify(token, door="rest")

    async def _authenticate(
        self, handshake: Handshake, token: str | None, _: str | None, __: str | None
    ) -> Principal:
        principal = await self.container.identifier.identify(token, door="socket")
        check_origin(principal, handshake.origin)
        return principal

    async def _may_watch(self, principal: Principal, room_id: UUID) -> bool:
        try:
            async with self.container.open_rooms() as rooms:
                await rooms.watchable(principal, RoomRef(room_id=room_id))
        except DomainError:
            return False
        return True

    async def _expire(self) -> None:
        """Close the sockets of keys whose time is over."""
        while True:
            await asyncio.sleep(EXPIRE_S)
            self.realtime.end_expired(utc_now().timestamp(), "auth.expired", "The key has expired.")

    async def _sweep(self) -> None:
        """Close the sockets of keys that ended without this node hearing of it."""
        while True:
            await asyncio.sleep(SWEEP_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            kids = self.realtime.kids()
            try:
                dead = await self.container.identifier.dead_among(kids)
            except UnavailableError:
                continue
            for kid in dead:
                self.realtime.on_closing(
                    Closing(code="auth.revoked", reason="The key has ended.", kid=kid)
                )

    def _rewound(self) -> None:
        self.realtime.end_all("epoch.mismatch", "The event log was restored. Reload.", "now")


class _BusProbe:
    """Redis away for everyone is `degraded`: the log repairs, only slower."""

    name = "bus"

    def __init__(self, realtime: Realtime) -> None:
        self._realtime = realtime

    async def state(self) -> State:
        return State.READY if self._realtime.bus.healthy else State.DEGRADED


class _DrainProbe:
    """A node that is going takes nobody new."""

    name = "draining"

    def __init__(self, realtime: Realtime) -> None:
        self._realtime = realtime

    async def state(self) -> State:
        return State.UNREADY if self._realtime.server.draining else State.READY
