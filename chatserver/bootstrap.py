"""The one place where objects are built: for the server, for workers and for the command line."""

import asyncio
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Final
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
from chatserver.chat.schemas import MessageRef
from chatserver.clients.issuers import Issuers, TokenService
from chatserver.clients.repository import (
    ClientKeyRepository,
    ClientRepository,
    IssuerLookup,
    IssuerRepository,
    MasterKeyLookup,
    RevokedTokenRepository,
)
from chatserver.clients.service import ClientService, MasterKeyService
from chatserver.infra import jobs
from chatserver.infra.http_client import OutboundError
from chatserver.infra.job_kinds import ERASE_USER, PURGE_ROOM, RECHECK_ROOMS, REINDEX
from chatserver.infra.jwks import Jwks
from chatserver.infra.lazily import LazyNotes
from chatserver.infra.remac import Remac
from chatserver.infra.signing import ReportSigner
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.clock import utc_now
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.principal import Principal
from chatserver.privacy.erasing import Eraser
from chatserver.privacy.export import Exporter
from chatserver.privacy.holds import HoldRepository, HoldService
from chatserver.privacy.repository import PrivacyRepository
from chatserver.privacy.retention import Keeper
from chatserver.privacy.service import PrivacyService
from chatserver.realtime.lanes import pass_on
from chatserver.realtime.ports import Closing
from chatserver.rooms.counts import CountNotices
from chatserver.rooms.members import MemberService
from chatserver.rooms.repository import RoomRepository
from chatserver.rooms.sanctions import SanctionService
from chatserver.rooms.service import RoomService
from chatserver.settings import Settings
from chatserver.users.models import User
from chatserver.users.repository import UserLookup, UserRepository
from chatserver.users.service import UserService
from chatserver.webhooks.sources.parts import Parts
from chatserver.wiring.answers import AnswerWiring
from chatserver.wiring.chat import Conversation
from chatserver.wiring.core import Core
from chatserver.wiring.documents import DocumentsParts
from chatserver.wiring.files import FilesParts
from chatserver.wiring.helpdesk import Helpdesk
from chatserver.wiring.moderation import Moderation
from chatserver.wiring.notifications import Notifications
from chatserver.wiring.providers import Providers
from chatserver.wiring.search import SearchParts
from chatserver.wiring.sending import Sending
from chatserver.wiring.sources import Forwarder, Notifier, Sources
from chatserver.wiring.webhooks import Webhooks

# Longer than an operation may take (registry: 4 s).
ERASE_AFTER_S: Final = 5.0


class Container(Core):
    """Everything of one process: the core, and what each feature builds on it."""

    def __init__(self, settings: Settings, *, name: str = "chatserver") -> None:
        super().__init__(settings, name=name)
        self.masters = MasterKeyLookup(self.database)
        self.life = KeyLife(grace=timedelta(seconds=settings.key_grace_s))
        self.scoped = ScopedKeyLookup(self.database, idle=self.life.idle)
        self.used_masters = LazyNotes(self.masters.touch)
        self.used_scoped = LazyNotes(self.scoped.touch)
        self.people = UserLookup(self.database)
        self.issuers = IssuerLookup(self.database)
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
                issuers=self.issuers,
                people=self._person,
                find_key=self.jwks.find,
                clock=utc_now,
            ),
            used=self._used,
        )
        self.remac = Remac(self.database)
        self.hasher.outdated = self.remac.note
        self.open_clients = self.open(self._clients)
        self.open_master_keys = self.open(self._master_keys)
        self.open_tokens = self.open(self._tokens)
        self.open_users = self.open(self._users)
        self.open_api_keys = self.open(self._api_keys)
        self.open_reuse_alarm = self.open(self._reuse_alarm)
        self.open_rooms = self.open(self._rooms)
        self.open_members = self.open(self._members)
        self.open_sanctions = self.open(self._sanctions)
        self.counts = CountNotices(self._tell_count)
        self.open_privacy = self.open(self._privacy)
        self.open_holds = self.open(self._holds)
        self.signer = ReportSigner([key.get_secret_value() for key in settings.secret_keys])
        work = self.open(_itself)
        self.exporter = Exporter(work, self._users)
        self.keeper = Keeper(work)
        self.files = FilesParts(self)
        self.eraser = Eraser(
            open_work=work,
            rooms=lambda within: RoomRepository(within.session),
            answers=self.answers,
            files=self.files.janitor,
            signer=self.signer,
            count_changed=self.counts.changed,
        )
        self.moderation = Moderation(self)
        self.conversation = Conversation(
            self,
            rooms=self._rooms,
            members=self._members,
            people=self.open_users,
            attachments=self.files.service,
            screen=self.moderation.screen,
        )
        self.open_rules = self.moderation.open_rules
        self.flags = self.moderation.flags(
            rooms=self.open_rooms, messages=self.conversation.chat, delete=self._delete_message
        )
        helpdesk = Helpdesk(self, rooms=self._rooms, members=self._members)
        self.open_invites = helpdesk.open_invites
        self.open_support = helpdesk.open_support
        self.messages = self.conversation.messages
        self.log = self.conversation.log
        self.writer = self.conversation.writer
        self.writer.placed = pass_on
        self.chat = self.conversation.chat
        self.catch_up = self.conversation.catch_up
        self.reads = self.conversation.reads
        self.traces = self.conversation.traces
        self.open_changes = self.conversation.open_changes
        self.search = SearchParts(self, rooms=self._rooms)
        self.webhooks = Webhooks(self, self.log)
        self.providers = Providers(self, targets=self.webhooks.targets)
        self.notifications = Notifications(self)
        self.sending = Sending(
            self,
            webhooks=self.webhooks,
            providers=self.providers,
            notifications=self.notifications,
            people=self._users,
        )
        self.sources = Sources(
            self,
            rooms=self._rooms,
            people=self._users,
            posts=self.chat,
            parts=Parts(forward=Forwarder(self.webhooks), notify=Notifier(self.sending)),
        )
        self.documents = DocumentsParts(
            self, rooms=self._rooms, users=self._users, store=self.files.store
        )
        self.assistant = AnswerWiring(
            self,
            documents=self.documents,
            rooms=self._rooms,
            members=self._members,
            people=self._users,
            messages=self.messages,
        )
        self._lazily: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin what runs in the background. Waits for nobody: parts that are away are retried."""
        await self.generation.start()
        await self.assistant.start()
        if self.broadcaster is self.publisher:
            await self.publisher.start()
        loop = asyncio.get_running_loop()
        self._lazily = [
            loop.create_task(notes.run())
            for notes in (self.used_masters, self.used_scoped, self.remac)
        ]

    async def stop(self) -> None:
        """Store what waits, then let every connection go."""
        await self.sources.reception.stop()
        await self.conversation.stop()
        for task in self._lazily:
            task.cancel()
        await asyncio.gather(*self._lazily, return_exceptions=True)
        await self.counts.stop()
        await self.generation.stop()
        if self.broadcaster is self.publisher:
            await self.publisher.stop()
        await self.assistant.stop()
        await self.documents.close()
        await self.doorbell.close()
        self.slow.close()
        self.files.close()
        await self.search.close()
        await self.webhooks.stop()
        await self.providers.stop()
        await self.outside.close()
        await self.database.close()

    def _kick(self, closing: Closing) -> None:
        self.identifier.forget(closing)
        self.broadcaster.close(closing)

    def _used(self, principal: Principal) -> None:
        notes = self.used_masters if principal.is_master else self.used_scoped
        notes.note(principal.kid)

    def _clients(self, work: UnitOfWork) -> ClientService:
        async def recheck(client_id: UUID) -> None:
            # Rooms stand above clients: the change reaches them as a job.
            await jobs.plan(work.session, RECHECK_ROOMS, dedupe=str(client_id), client_id=client_id)

        async def reindex(client_id: UUID) -> None:
            await jobs.plan(work.session, REINDEX, dedupe=str(client_id), client_id=client_id)

        return ClientService(
            clients=ClientRepository(work.session),
            keys=self._master_keys(work),
            issuers=Issuers(issuers=IssuerRepository(work.session), check_url=self.outside.check),
            recorder=work,
            kick=self._kick,
            on_change={"room_deactivation": recheck, "search_language": reindex},
        )

    def _master_keys(self, work: UnitOfWork) -> MasterKeyService:
        return MasterKeyService(
            keys=ClientKeyRepository(work.session),
            hasher=self.hasher,
            slow=self.slow,
            recorder=work,
            kick=self._kick,
        )

    def _tokens(self, work: UnitOfWork) -> TokenService:
        return TokenService(
            tokens=RevokedTokenRepository(work.session),
            issuers=IssuerRepository(work.session),
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

    def _sanctions(self, work: UnitOfWork) -> SanctionService:
        return SanctionService(
            rooms=RoomRepository(work.session),
            service=self._rooms(work),
            members=self._members(work),
            people=self._users(work),
            recorder=work,
        )

    def _privacy(self, work: UnitOfWork) -> PrivacyService:
        families = KeyFamilyRepository(work.session)

        async def end_keys(user: User) -> int:
            return len(await families.revoke(user.client_id, user.id, why="erased"))

        async def later(client_id: UUID, erasure_id: UUID) -> None:
            await _plan_erasure(work, client_id, erasure_id, str(erasure_id))

        return PrivacyService(
            privacy=PrivacyRepository(work.session),
            holds=HoldRepository(work.session),
            users=self._users(work),
            recorder=work,
            end_keys=end_keys,
            later=later,
            kick=self._kick,
        )

    def _holds(self, work: UnitOfWork) -> HoldService:
        async def purge(client_id: UUID, room_id: UUID, name: str) -> None:
            payload = orjson.dumps({"room_id": str(room_id)}).decode()
            await jobs.plan(
                work.session, PURGE_ROOM, dedupe=name, client_id=client_id, payload=payload
            )

        return HoldService(
            holds=HoldRepository(work.session),
            users=self._users(work),
            rooms=RoomRepository(work.session),
            recorder=work,
            purge=purge,
            erase=partial(_plan_erasure, work),
        )

    async def is_room_held(self, client_id: UUID, room_id: UUID) -> bool:
        """Tell whether a legal hold keeps a room, also a deleted one."""
        async with self.database.transaction() as session:
            return await HoldRepository(session).keeps_room(client_id, room_id)

    async def _delete_message(self, principal: Principal, command: MessageRef) -> None:
        async with self.open_changes() as changes:
            await changes.delete(principal, command)

    async def _tell_count(self, client_id: UUID, room_id: UUID) -> None:
        async with self.open_rooms() as rooms:
            await rooms.tell_count(client_id, room_id)


async def _plan_erasure(work: UnitOfWork, client_id: UUID, erasure_id: UUID, name: str) -> None:
    await jobs.plan(
        work.session,
        ERASE_USER,
        dedupe=name,
        client_id=client_id,
        payload=orjson.dumps({"erasure_id": str(erasure_id)}).decode(),
        # Whatever was under way when the keys ended has ended by then, too.
        delay_s=ERASE_AFTER_S,
    )


def _itself(work: UnitOfWork) -> UnitOfWork:
    return work
