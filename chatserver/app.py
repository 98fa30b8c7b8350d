"""Puts the server together: every route, every namespace, one screen."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any, Final
from uuid import UUID

from aiohttp import web

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
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.principal import Principal, Scope
from chatserver.realtime.engine import Realtime
from chatserver.realtime.hub import Views
from chatserver.realtime.ports import Closing, Handshake
from chatserver.rooms.events import LOBBY_FACTS
from chatserver.rooms.http import ROUTES as ROOM_ROUTES
from chatserver.rooms.http import RoomsHttp
from chatserver.rooms.sockets import FACTS as ROOM_FACTS
from chatserver.rooms.sockets import NAMESPACE as ROOMS
from chatserver.rooms.sockets import RoomCommands, WatchCommands, Watcher
from chatserver.settings import Settings
from chatserver.transport import cors
from chatserver.transport.answers import answers
from chatserver.transport.credentials import Sender, check_origin
from chatserver.transport.documents import served
from chatserver.transport.health import DatabaseProbe, Health, State
from chatserver.transport.http import RestDoor
from chatserver.transport.registry import Registry
from chatserver.transport.sessions import FACTS as SESSION_FACTS
from chatserver.transport.sockets import SocketDoor
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
FEATURES: Final = {"recovery": False, "rotation": False, "typing": False, "presence": False}


def build_registry(container: Container | None = None, watcher: Watcher | None = None) -> Registry:
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
    registry.add(ChatCommands(parts.chat, parts.catch_up), namespaces=(CHAT,))
    registry.add(ChatHttp(parts.chat, parts.catch_up), routes=CHAT_ROUTES)
    registry.add_facts(*ROOM_FACTS, *CHAT_FACTS, *SESSION_FACTS)
    return registry


class _Unconnected:
    """Stands where a service would, as long as nobody calls one."""

    def __getattr__(self, name: str) -> "_Unconnected":
        return self


class _LateWatcher:
    """The engine is built with the door, the door with the registry: this closes the circle."""

    def __init__(self) -> None:
        self.realtime: Realtime | None = None

    async def watch(self, room_id: UUID) -> int:
        return await self._engine().watch(room_id)

    async def unwatch(self, room_id: UUID) -> None:
        await self._engine().unwatch(room_id)

    def _engine(self) -> Realtime:
        assert self.realtime is not None  # noqa: S101 - set before the first request
        return self.realtime


class Server:
    """One web node: the container, the engine and the aiohttp application."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.container = Container(settings)
        watcher = _LateWatcher()
        self.registry = build_registry(self.container, watcher)
        self.realtime = self._engine()
        watcher.realtime = self.realtime
        self.container.broadcaster = self.realtime
        self.container.generation.changed = self._rewound
        self.realtime.heard = self.container.identifier.forget
        self.app = self._application()

    def _engine(self) -> Realtime:
        door = SocketDoor(
            registry=self.registry,
            authenticate=self._authenticate,
            foreign=auth.AuthInvalidError,
            limits=self.settings.limits.model_dump(),
            features=FEATURES,
            scopes=NAMESPACE_SCOPES,
        )
        return Realtime(
            door=door,
            truth=self.container.log,
            leader=AdvisoryLeader(self.container.database, CHANGE_LIST),
            bus=self.container.bus,
            node_id=self.settings.node_id,
            views=Views(CHAT, {ROOMS: LOBBY_FACTS}),
            namespaces=NAMESPACES,
            path=self.settings.socket_path,
        )

    def _application(self) -> web.Application:
        app = web.Application(
            middlewares=[answers(bypass=(self.settings.socket_path,))], client_max_size=1 << 20
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
        cors.allow(app, self.settings.cors_origins)
        # After CORS: the engine answers preflights of its own.
        self.realtime.attach(app)
        app.cleanup_ctx.append(self._life)
        return app

    async def _life(self, _: web.Application) -> AsyncIterator[None]:
        await self.container.start()
        await self.realtime.start()
        loop = asyncio.get_running_loop()
        sweeps = [loop.create_task(work) for work in (self._sweep(), self._expire())]
        yield
        for sweep in sweeps:
            sweep.cancel()
        await self.realtime.stop()
        await self.container.stop()

    async def _identify(self, token: str | None, sender: Sender) -> Principal:  # noqa: ARG002
        return await self.container.identifier.identify(token, door="rest")

    async def _authenticate(
        self, handshake: Handshake, token: str | None, _: str | None, __: str | None
    ) -> Principal:
        principal = await self.container.identifier.identify(token, door="socket")
        check_origin(principal, handshake.origin)
        return principal

    async def _expire(self) -> None:
        """Close the sockets of keys whose time is over."""
        while True:
            await asyncio.sleep(EXPIRE_S)
            self.realtime.end_expired(time.time(), "auth.expired", "The key has expired.")

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
