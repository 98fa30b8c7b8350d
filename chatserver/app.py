"""Puts the server together: every route, every namespace, one screen."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict
from ipaddress import ip_network
from typing import Final
from uuid import UUID

import orjson
import structlog
from aiohttp import web

from chatserver.api_keys import errors as auth
from chatserver.api_keys.identity import Arrival
from chatserver.bootstrap import Container
from chatserver.chat.sockets import NAMESPACE as CHAT
from chatserver.infra.cluster import AdvisoryLeader, Role
from chatserver.infra.shared_counts import RedisCounts
from chatserver.infra.storage_disk import DiskStore
from chatserver.infra.token_buckets import Level
from chatserver.kernel.clock import utc_now
from chatserver.kernel.errors import DomainError, UnavailableError
from chatserver.kernel.principal import Principal
from chatserver.kernel.tasks import end
from chatserver.notifications.callbacks.door import CallbackDoor
from chatserver.notifications.consent.door import UnsubscribeDoor
from chatserver.notifications.inbox.events import INBOX_FACTS
from chatserver.notifications.inbox.sockets import NAMESPACE as NOTIFICATIONS
from chatserver.notifications.push.door import VapidDoor
from chatserver.observing import Observation
from chatserver.operations import NAMESPACE_SCOPES, NAMESPACES, build_registry
from chatserver.realtime.census import EXCHANGE_S, Caps, Census
from chatserver.realtime.engine import Realtime
from chatserver.realtime.hub import Views
from chatserver.realtime.nodes import NodeRegistry
from chatserver.realtime.ports import Accepted, Closing, Handshake
from chatserver.realtime.running import Running
from chatserver.realtime.standing import tokens_of
from chatserver.realtime.store import Store
from chatserver.realtime.typists import ANNOUNCED as TYPING
from chatserver.rooms.events import LOBBY_FACTS
from chatserver.rooms.schemas import RoomRef
from chatserver.rooms.sockets import NAMESPACE as ROOMS
from chatserver.settings import Settings
from chatserver.transport import cors
from chatserver.transport.answers import answers
from chatserver.transport.credentials import Sender, caller_of, check_origin
from chatserver.transport.documents import served
from chatserver.transport.forwarding import Forwarder
from chatserver.transport.http import RestDoor
from chatserver.transport.limits import network_of
from chatserver.transport.numbers import caps_of
from chatserver.transport.sockets import SocketDoor
from chatserver.transport.stored import StoredDoor
from chatserver.transport.websocket import WebSocketDoor
from chatserver.webhooks.sources.door import InboundDoor

log = structlog.get_logger(__name__)

# For RATE_LIMITS_ENABLED=false.
UNLIMITED: Final = caps_of(defaultdict(lambda: 1 << 30))
_TYPING: Final = {"typing": asdict(TYPING)}
EXPIRE_S: Final = 2.0
AGAIN_S: Final = 1.0
# What a client may rely on; more of it comes with later versions.
FEATURES: Final = {
    "recovery": True,
    "rotation": True,
    "typing": True,
    "presence": True,
    "assistant": True,
}


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
        self.trusted_proxies = [ip_network(each) for each in settings.trusted_proxies]
        self.shared_counts = RedisCounts(self.container.limiter.redis, settings.node_id)
        self.nodes = NodeRegistry(
            self._store(),
            key=self.container.bus.key,
            node_id=settings.node_id,
            url=reached_at,
        )
        self.forwarder = Forwarder(self.nodes, settings.socket_path)
        current = Running()
        self.registry = build_registry(self.container, current)
        self.door = self._socket_door()
        self.realtime = self._engine()
        current.realtime = self.realtime
        self.census = self.realtime.entrance.census = Census(
            node_id=settings.node_id,
            caps=self._caps,
            network_of=network_of,
            end=self.realtime.close_session,
            shared=self.shared_counts,
        )
        if self.realtime.restorer is not None:
            self.realtime.restorer.generation = self.container.generation
            self.realtime.restorer.may_watch = self._may_watch
        self.container.broadcaster = self.realtime
        self.container.generation.changed = self._rewound
        self.realtime.heard = self.container.identifier.forget
        self.observed = Observation(
            self.container,
            realtime=self.realtime,
            door=self.door,
            forwarded=self.forwarder.counters,
        )
        self.siblings = siblings
        self.app = self._application()

    def _store(self) -> Store:
        return Store(self.container.bus.url, prefix=self.container.bus.prefix)

    def _socket_door(self) -> SocketDoor:
        return SocketDoor(
            registry=self.registry,
            authenticate=self._authenticate,
            foreign=auth.AuthInvalidError,
            expired=auth.AuthExpiredError,
            limits=self._announced,
            gate=self.container.gate,
            features=FEATURES,
            scopes=NAMESPACE_SCOPES,
        )

    def _engine(self) -> Realtime:
        return Realtime(
            door=self.door,
            truth=self.container.log,
            leader=AdvisoryLeader(self.container.database, Role.CHANGE_LIST),
            bus=self.container.bus,
            node_id=self.settings.node_id,
            views=Views(CHAT, {ROOMS: LOBBY_FACTS, NOTIFICATIONS: INBOX_FACTS}),
            namespaces=NAMESPACES,
            path=self.settings.socket_path,
            store=self._store(),
            may_listen=_may_listen,
            refusal_s=self.settings.connect_refusal_s / self.settings.limits_factor,
            address_of=self._address_of,
        )

    def _address_of(self, request: web.Request) -> str:
        return caller_of(request, self.trusted_proxies)

    def _announced(self, principal: Principal) -> orjson.Fragment:
        return self.container.gate.book.of(principal.client_id).announced(_TYPING)

    def _caps(self, principal: Principal | None) -> Caps:
        if not self.settings.rate_limits_enabled:
            return UNLIMITED
        book = self.container.gate.book
        numbers = book.default if principal is None else book.of(principal.client_id)
        return numbers.caps

    def _application(self) -> web.Application:
        app = web.Application(
            middlewares=[
                answers(
                    bypass=(self.settings.socket_path,),
                    standing=self._standing,
                    measured=self.observed.commands.requested,
                ),
                self.forwarder.middleware(),
            ],
            client_max_size=1 << 20,
        )
        RestDoor(
            self.registry,
            identify=self._identify,
            store=self.container.answers,
            trusted_proxies=self.trusted_proxies,
            gate=self.container.gate,
            follow=self.container.assistant.follower.after,
        ).attach(app)
        self.observed.attach(app, siblings=self.siblings)
        served.attach(app, self.registry)
        UnsubscribeDoor(self.container.notifications.open_consent).attach(app)
        CallbackDoor(self.container.sending.open_callbacks, self.container.sending.lost).attach(app)
        VapidDoor(self.container.notifications.push_keys).attach(app)
        inbound = InboundDoor(
            self.container.sources.reception,
            public_url=self.settings.public_url,
            trusted_proxies=self.trusted_proxies,
        )
        inbound.answered = self.observed.commands.came_in
        inbound.attach(app)
        WebSocketDoor(
            realtime=self.realtime,
            door=self.door,
            namespaces=NAMESPACES,
            address_of=self._address_of,
        ).attach(app)
        if isinstance(self.container.files.store, DiskStore):
            StoredDoor(self.container.files.store).attach(app)
        cors.allow(app, self.settings.cors_origins)
        # After CORS: the engine answers preflights of its own.
        self.realtime.attach(app)
        app.cleanup_ctx.append(self._life)
        return app

    async def _life(self, _: web.Application) -> AsyncIterator[None]:
        await self.container.start()
        await self.container.limiter.start()
        await self.realtime.start()
        await self.nodes.start()
        self.observed.start()
        loop = asyncio.get_running_loop()
        sweeps = [
            loop.create_task(work)
            for work in (
                self._often(self.settings.revocation_sweep_s, self._sweep),
                self._often(EXPIRE_S, self._expire),
                self._often(EXCHANGE_S, self._count),
                self.container.quotas.run(),
            )
        ]
        yield
        await end(*sweeps)
        self.observed.stop()
        await self.nodes.stop()
        await self.realtime.stop()
        await self.forwarder.close()
        await self.container.limiter.stop()
        await self.container.stop()

    async def _identify(self, token: str | None, sender: Sender) -> Principal:
        return await self.container.gate.authenticate(
            token,
            sender.address,
            lambda: self.container.identifier.identify(
                token, door="rest", client_slug=sender.client_slug
            ),
        )

    def _standing(self, request: web.Request) -> list[Level]:
        return self.container.gate.standing(self._address_of(request))

    async def _count(self) -> None:
        """Learn from the other nodes how many they are, and what connections they have."""
        await self.census.exchange()
        self.container.limiter.nodes = self.shared_counts.nodes

    async def _authenticate(
        self,
        handshake: Handshake,
        token: object,
        device_id: str | None,
        client_slug: str | None,
    ) -> Accepted:
        arrival: Arrival | None = None

        async def check() -> Principal:
            nonlocal arrival
            arrival = await self.container.identifier.connect(
                token, client_slug=client_slug, device_id=device_id
            )
            return arrival.principal

        gate = self.container.gate
        # What is no text can't be guessed at, so nothing is counted: `check` refuses it.
        guess = token if isinstance(token, str) else None
        principal = await gate.authenticate(guess, handshake.address, check)
        assert arrival is not None  # noqa: S101 - `check` has set it
        check_origin(principal, handshake.origin)
        await gate.connect(principal, handshake.address)
        handed_out = arrival.handed_out
        return Accepted(
            principal=arrival.principal,
            rotated=None if handed_out is None else handed_out.as_fact(),
            in_limbo=arrival.in_limbo,
        )

    async def _may_watch(self, principal: Principal, room_id: UUID) -> bool:
        try:
            async with self.container.open_rooms() as rooms:
                await rooms.watchable(principal, RoomRef(room_id=room_id))
        except DomainError:
            return False
        return True

    async def _often(self, every_s: float, turn: Callable[[], Awaitable[None]]) -> None:
        """Do something again and again, give or take a fifth of the time.

        A turn that fails is soon followed by another: without these nobody would ever find what
        Redis lost.
        """
        wait_s = every_s
        while True:
            await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            wait_s = min(every_s, AGAIN_S)
            try:
                await turn()
                wait_s = every_s
            except UnavailableError:
                continue
            except Exception:
                log.exception("turn_failed", what=turn.__name__)

    async def _expire(self) -> None:
        """Warn of keys that end soon, and close the sockets of those that did."""
        self.realtime.watch_expiry(utc_now().timestamp())

    async def _sweep(self) -> None:
        """Close the sockets of what ended without this node hearing of it."""
        people = await self.container.credentials.people.void_among(self.realtime.bearers())
        tokens = tokens_of(self.realtime.sessions())
        revoked = await self.container.credentials.issuers.revoked_among(tokens)
        kids = await self.container.identifier.dead_among(self.realtime.kids())
        code = "auth.revoked"
        for closing in (
            *(Closing(code=code, reason="The user was cut off.", user_id=it) for it in people),
            *(Closing(code=code, reason="The token was revoked.", token=it) for it in revoked),
            *(Closing(code=code, reason="The key has ended.", kid=it) for it in kids),
        ):
            self.realtime.on_closing(closing)

    def _rewound(self) -> None:
        self.realtime.end_all("epoch.mismatch", "The event log was restored. Reload.", "now")


def _may_listen(principal: Principal, namespace: str) -> bool:
    return NAMESPACE_SCOPES[namespace] in principal.scopes
