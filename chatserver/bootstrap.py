"""The one place where objects are built: for the server, for workers and for the command line."""

import asyncio
from uuid import UUID

from chatserver.chat.schemas import MessageRef
from chatserver.clients.issuers import Issuers, TokenService
from chatserver.clients.repository import (
    ClientKeyRepository,
    ClientRepository,
    IssuerRepository,
    RevokedTokenRepository,
)
from chatserver.clients.service import ClientService, MasterKeyService
from chatserver.infra import jobs
from chatserver.infra.job_kinds import RECHECK_ROOMS, REINDEX
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.principal import Principal
from chatserver.kernel.tasks import end
from chatserver.realtime.lanes import pass_on
from chatserver.realtime.ports import Closing
from chatserver.rooms.counts import CountNotices
from chatserver.rooms.members import MemberService
from chatserver.rooms.repository import RoomRepository
from chatserver.rooms.sanctions import SanctionService
from chatserver.rooms.service import RoomService
from chatserver.settings import Settings
from chatserver.users.repository import UserRepository
from chatserver.users.service import UserService
from chatserver.webhooks.sources.parts import Parts
from chatserver.wiring.absences import Absences
from chatserver.wiring.answers import AnswerWiring
from chatserver.wiring.chat import Conversation
from chatserver.wiring.core import Core
from chatserver.wiring.credentials import Credentials
from chatserver.wiring.documents import DocumentsParts
from chatserver.wiring.files import FilesParts
from chatserver.wiring.helpdesk import Helpdesk
from chatserver.wiring.moderation import Moderation
from chatserver.wiring.notifications import Notifications
from chatserver.wiring.privacy import Privacy
from chatserver.wiring.providers import Providers
from chatserver.wiring.search import SearchParts
from chatserver.wiring.sending import Sending
from chatserver.wiring.sources import Asker, Forwarder, Notifier, Sources
from chatserver.wiring.standing import Waiting
from chatserver.wiring.tracing import OnwardLook
from chatserver.wiring.webhooks import Webhooks


class Container(Core):
    """Everything of one process: the core, and what each feature builds on it."""

    def __init__(self, settings: Settings, *, name: str = "chatserver") -> None:
        super().__init__(settings, name=name)
        self.credentials = Credentials(self, users=self._users, kick=self._kick)
        self.identifier = self.credentials.identifier
        self.open_clients = self.open(self._clients)
        self.open_master_keys = self.open(self._master_keys)
        self.open_tokens = self.open(self._tokens)
        self.open_users = self.open(self._users)
        self.open_api_keys = self.credentials.open_api_keys
        self.open_rooms = self.open(self._rooms)
        self.open_members = self.open(self._members)
        self.open_sanctions = self.open(self._sanctions)
        self.counts = CountNotices(self._tell_count)
        self.files = FilesParts(self)
        self.privacy = Privacy(
            self,
            users=self._users,
            kick=self._kick,
            files=self.files.janitor,
            count_changed=self.counts.changed,
        )
        self.open_privacy = self.privacy.open_privacy
        self.open_holds = self.privacy.open_holds
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
            files=self.files,
            people=self._users,
        )
        self.absences = Absences(self, notifications=self.notifications, sending=self.sending)
        self.waiting = Waiting(self.reads, self.notifications.open_inbox)
        self.reads.has_read = self.notifications.settler.has_read
        self.traces.onward = OnwardLook(self.open(lambda work: work))
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
        self.sources = Sources(
            self,
            rooms=self._rooms,
            people=self._users,
            posts=self.chat,
            parts=Parts(
                forward=Forwarder(self.webhooks),
                notify=Notifier(self.sending),
                ask=Asker(self.assistant, self._users),
            ),
        )
        self._lazily: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin what runs in the background. Waits for nobody: parts that are away are retried."""
        await self.generation.start()
        await self.assistant.start()
        if self.broadcaster is self.publisher:
            await self.publisher.start()
        loop = asyncio.get_running_loop()
        self._lazily = [loop.create_task(notes.run()) for notes in self.credentials.lazily]

    async def stop(self) -> None:
        """Store what waits, then let every connection go."""
        await self.sources.reception.stop()
        await self.notifications.settler.stop()
        await self.conversation.stop()
        await end(*self._lazily)
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
        await self.absences.stop()
        await self.webhooks.stop()
        await self.providers.stop()
        await self.outside.close()
        await self.database.close()

    def _kick(self, closing: Closing) -> None:
        self.identifier.forget(closing)
        self.broadcaster.close(closing)

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

    async def _delete_message(self, principal: Principal, command: MessageRef) -> None:
        async with self.open_changes() as changes:
            await changes.delete(principal, command)

    async def _tell_count(self, client_id: UUID, room_id: UUID) -> None:
        async with self.open_rooms() as rooms:
            await rooms.tell_count(client_id, room_id)
