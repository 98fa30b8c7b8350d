"""The one place where objects are built: for the server, for workers and for the command line."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Final, TypeVar
from uuid import UUID

import orjson

from chatserver.api_keys.errors import AuthReuseDetectedError
from chatserver.api_keys.identity import Identifier
from chatserver.api_keys.models import StoredScopedKey
from chatserver.api_keys.policies import KeyLife
from chatserver.api_keys.repository import KeyFamilyRepository, ScopedKeyLookup
from chatserver.api_keys.rotation import ReuseAlarm, Rotation
from chatserver.api_keys.service import ApiKeyService
from chatserver.api_keys.tokens import Person, SignedTokens
from chatserver.chat.catch_up import CatchUpService
from chatserver.chat.repository import ChatLog, ChatRepository
from chatserver.chat.service import Announcer, ChatService
from chatserver.chat.writer import MessageWriter
from chatserver.clients.issuers import Issuers
from chatserver.clients.repository import (
    ClientKeyRepository,
    ClientNumbersLookup,
    ClientRepository,
    IssuerLookup,
    IssuerRepository,
    MasterKeyLookup,
)
from chatserver.clients.service import ClientService, MasterKeyService
from chatserver.infra import jobs
from chatserver.infra.addresses import Reach
from chatserver.infra.cluster import Generation
from chatserver.infra.cursors import CursorSeal
from chatserver.infra.database import Database
from chatserver.infra.http_client import GuardedClient, OutboundError
from chatserver.infra.idempotency import IdempotencyStore
from chatserver.infra.jobs import DISPATCH_OUTBOX, Doorbell
from chatserver.infra.jwks import Jwks
from chatserver.infra.lazily import LazyNotes
from chatserver.infra.quotas import Quotas
from chatserver.infra.rate_limits import RateLimiter
from chatserver.infra.remac import Remac
from chatserver.infra.secrets import KeyHasher, SecretBox
from chatserver.infra.signing import ReportSigner
from chatserver.infra.slow_hash import SlowHasher
from chatserver.infra.unit_of_work import UnitOfWork, Units
from chatserver.kernel.clock import utc_now
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.events import Committed
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal
from chatserver.privacy.erasing import Eraser
from chatserver.privacy.export import Exporter
from chatserver.privacy.repository import PrivacyRepository
from chatserver.privacy.retention import Keeper
from chatserver.privacy.service import PrivacyService
from chatserver.reactions import has_later
from chatserver.realtime.ports import Broadcaster, Closing
from chatserver.realtime.publisher import BusPublisher, BusSettings
from chatserver.rooms.counts import CountNotices
from chatserver.rooms.members import MemberService
from chatserver.rooms.repository import RoomRepository
from chatserver.rooms.service import RoomService
from chatserver.settings import Settings
from chatserver.transport.limits import Book, Gate
from chatserver.users.models import User
from chatserver.users.repository import UserLookup, UserRepository
from chatserver.users.service import UserService

Service = TypeVar("Service")

# Longer than an operation may take (registry: 4 s).
ERASE_AFTER_S: Final = 5.0
_BUS_KEY: Final = b"chatserver bus v1|"


class Container:
    """Everything of one process. Services come as `Open[...]`: a block is a transaction.

    A process without sockets publishes over the bus; the server puts its engine in `broadcaster`.
    """

    def __init__(self, settings: Settings, *, name: str = "chatserver") -> None:
        self.settings = settings
        self.database = Database(settings.database_url.get_secret_value(), name=name)
        self.generation = Generation(self.database)
        self.doorbell = Doorbell(settings.queue_url)
        self.hasher = KeyHasher([pepper.get_secret_value() for pepper in settings.key_peppers])
        self.slow = SlowHasher()
        self.box = SecretBox.from_text([key.get_secret_value() for key in settings.secret_keys])
        self.bus = BusSettings(
            url=settings.redis_url.get_secret_value(),
            key=hashlib.sha256(
                _BUS_KEY + settings.key_peppers[0].get_secret_value().encode()
            ).digest(),
        )
        self.publisher = BusPublisher(self.bus, settings.node_id)
        self.broadcaster: Broadcaster = self.publisher
        self.masters = MasterKeyLookup(self.database)
        self.life = KeyLife(grace=timedelta(seconds=settings.key_grace_s))
        self.scoped = ScopedKeyLookup(self.database, idle=self.life.idle)
        self.used_masters = LazyNotes(self.masters.touch)
        self.used_scoped = LazyNotes(self.scoped.touch)
        self.people = UserLookup(self.database)
        self.outside = GuardedClient(Reach(private=settings.allow_private_addresses))
        self.jwks = Jwks(self._read_key_set)
        self.rotation = Rotation(
            families=self.scoped,
            hasher=self.hasher,
            box=self.box,
            life=self.life,
            alarm=self._alarm,
        )
        self.identifier = Identifier(
            operator_key=settings.operator_key.get_secret_value(),
            hasher=self.hasher,
            slow=self.slow,
            masters=self.masters,
            scoped=self.scoped,
            rotation=self.rotation,
            bearers=SignedTokens(
                issuers=IssuerLookup(self.database),
                people=self._person,
                find_key=self.jwks.find,
                clock=utc_now,
            ),
            used=self._used,
        )
        self.remac = Remac(self.database)
        self.hasher.outdated = self.remac.note
        self.answers = IdempotencyStore(self.database, self.box)
        self._units = Units(
            self.database,
            generation=self.generation,
            publish=self._publish,
            has_later=has_later,
            ring=lambda: self.doorbell.ring([DISPATCH_OUTBOX]),
        )
        self.open_clients = self.open(self._clients)
        self.open_master_keys = self.open(self._master_keys)
        self.open_users = self.open(self._users)
        self.open_api_keys = self.open(self._api_keys)
        self.open_reuse_alarm = self.open(self._reuse_alarm)
        self.open_rooms = self.open(self._rooms)
        self.open_members = self.open(self._members)
        self.counts = CountNotices(self._tell_count)
        self.open_privacy = self.open(self._privacy)
        self.signer = ReportSigner([key.get_secret_value() for key in settings.secret_keys])
        work = self.open(_itself)
        self.exporter = Exporter(work, self._users)
        self.keeper = Keeper(work)
        self.eraser = Eraser(
            open_work=work,
            rooms=lambda within: RoomRepository(within.session),
            answers=self.answers,
            signer=self.signer,
            count_changed=self.counts.changed,
        )
        self.limiter = RateLimiter(settings.redis_url.get_secret_value())
        self.quotas = Quotas(self.database, self.limiter.redis)
        self.gate = Gate(
            self.limiter,
            Book(
                ClientNumbersLookup(self.database).find,
                limits=settings.limits.model_dump(),
                quotas=settings.quota_values.model_dump(),
            ),
            self.quotas,
            enabled=settings.rate_limits_enabled,
        )
        self.messages = ChatRepository(self.database)
        self.log = ChatLog(self.messages, self.generation)
        self.writer = MessageWriter(
            self.messages,
            Announcer(self.messages, publish=self._publish, generation=self.generation),
        )
        limits = settings.limits
        self.chat = ChatService(
            writer=self.writer,
            repository=self.messages,
            rooms=self.open_rooms,
            people=self.open_users,
            characters=limits.text_characters,
            octets=limits.text_bytes,
        )
        self.catch_up = CatchUpService(
            repository=self.messages,
            rooms=self.open_rooms,
            members=self.open_members,
            seal=CursorSeal(self.box),
            generation=self.generation,
        )
        self._lazily: list[asyncio.Task[None]] = []

    def open(self, build: Callable[[UnitOfWork], Service]) -> Open[Service]:
        """Give the `Open` of a builder: the block is the transaction, facts are shown after it."""
        return self._units.open(build)

    async def start(self) -> None:
        """Begin what runs in the background. Waits for nobody: parts that are away are retried."""
        await self.generation.start()
        if self.broadcaster is self.publisher:
            await self.publisher.start()
        loop = asyncio.get_running_loop()
        self._lazily = [
            loop.create_task(notes.run())
            for notes in (self.used_masters, self.used_scoped, self.remac)
        ]

    async def stop(self) -> None:
        """Store what waits, then let every connection go."""
        await self.writer.close()
        for task in self._lazily:
            task.cancel()
        await asyncio.gather(*self._lazily, return_exceptions=True)
        await self.counts.stop()
        await self.generation.stop()
        if self.broadcaster is self.publisher:
            await self.publisher.stop()
        await self.doorbell.close()
        self.slow.close()
        await self.outside.close()
        await self.database.close()

    def _publish(self, facts: Sequence[Committed]) -> None:
        self.broadcaster.publish(facts)

    def _kick(self, closing: Closing) -> None:
        self.identifier.forget(closing)
        self.broadcaster.close(closing)

    def _used(self, principal: Principal) -> None:
        notes = self.used_masters if principal.is_master else self.used_scoped
        notes.note(principal.kid)

    def _clients(self, work: UnitOfWork) -> ClientService:
        async def recheck(client_id: UUID) -> None:
            # Rooms stand above clients: the change reaches them as a job.
            await jobs.plan(
                work.session, jobs.RECHECK_ROOMS, dedupe=str(client_id), client_id=client_id
            )

        return ClientService(
            clients=ClientRepository(work.session),
            keys=self._master_keys(work),
            issuers=Issuers(issuers=IssuerRepository(work.session), check_url=self.outside.check),
            recorder=work,
            kick=self._kick,
            lifetimes_changed=recheck,
        )

    def _master_keys(self, work: UnitOfWork) -> MasterKeyService:
        return MasterKeyService(
            keys=ClientKeyRepository(work.session),
            hasher=self.hasher,
            slow=self.slow,
            recorder=work,
            kick=self._kick,
        )

    def _users(self, work: UnitOfWork) -> UserService:
        return UserService(users=UserRepository(work.session))

    def _api_keys(self, work: UnitOfWork) -> ApiKeyService:
        return ApiKeyService(
            families=KeyFamilyRepository(work.session),
            users=self._users(work),
            hasher=self.hasher,
            box=self.box,
            recorder=work,
            kick=self._kick,
            life=self.life,
        )

    def _reuse_alarm(self, work: UnitOfWork) -> ReuseAlarm:
        return ReuseAlarm(
            families=KeyFamilyRepository(work.session), recorder=work, kick=self._kick
        )

    async def _alarm(self, stored: StoredScopedKey, reuse: AuthReuseDetectedError) -> None:
        async with self.open_reuse_alarm() as alarm:
            await alarm.raise_alarm(stored, reuse)

    async def _read_key_set(self, url: str) -> bytes:
        reply = await self.outside.fetch("GET", url, headers={"Accept": "application/json"})
        if reply.status != HTTPStatus.OK:
            raise OutboundError(f"The key set answers {reply.status}.")
        return reply.body

    async def _person(self, client_id: UUID, external_id: str) -> Person:
        found = await self.people.find(client_id, external_id)
        if found is None:
            async with self.open_users() as users:
                await users.ensure(client_id, [external_id])
            found = await self.people.find(client_id, external_id)
        if found is None:
            raise UnavailableError
        return Person(*found)

    def _rooms(self, work: UnitOfWork) -> RoomService:
        return RoomService(
            rooms=RoomRepository(work.session),
            people=self._users(work),
            recorder=work,
            generation=self.generation,
            lifetimes=self.settings.room_lifetimes_s,
        )

    def _members(self, work: UnitOfWork) -> MemberService:
        return MemberService(
            rooms=RoomRepository(work.session),
            service=self._rooms(work),
            people=self._users(work),
            recorder=work,
            count_changed=self.counts.changed,
        )

    def _privacy(self, work: UnitOfWork) -> PrivacyService:
        families = KeyFamilyRepository(work.session)

        async def end_keys(user: User) -> int:
            return len(await families.revoke(user.client_id, user.id, why="erased"))

        async def later(client_id: UUID, erasure_id: UUID) -> None:
            await jobs.plan(
                work.session,
                jobs.ERASE_USER,
                dedupe=str(erasure_id),
                client_id=client_id,
                payload=orjson.dumps({"erasure_id": str(erasure_id)}).decode(),
                # Whatever was under way when the keys ended has ended by then, too.
                delay_s=ERASE_AFTER_S,
            )

        return PrivacyService(
            privacy=PrivacyRepository(work.session),
            users=self._users(work),
            recorder=work,
            end_keys=end_keys,
            later=later,
            kick=self._kick,
        )

    async def _tell_count(self, client_id: UUID, room_id: UUID) -> None:
        async with self.open_rooms() as rooms:
            await rooms.tell_count(client_id, room_id)


def _itself(work: UnitOfWork) -> UnitOfWork:
    return work
