"""How it is found out who calls: master keys, rotating scoped keys, JWTs of issuers."""

from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus
from uuid import UUID

from chatserver.api_keys.errors import AuthReuseDetectedError
from chatserver.api_keys.identity import Identifier
from chatserver.api_keys.lookups import ScopedKeyLookup
from chatserver.api_keys.models import StoredScopedKey
from chatserver.api_keys.policies import KeyLife
from chatserver.api_keys.repository import KeyFamilyRepository
from chatserver.api_keys.rotation import ReuseAlarm, Rotation
from chatserver.api_keys.service import ApiKeyService
from chatserver.api_keys.tokens import Person, SignedTokens
from chatserver.clients.repository import IssuerLookup, MasterKeyLookup
from chatserver.infra.http_client import OutboundError
from chatserver.infra.jwks import Jwks
from chatserver.infra.lazily import LazyNotes
from chatserver.infra.remac import Remac
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.clock import utc_now
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.principal import Principal
from chatserver.realtime.ports import Closing
from chatserver.users.repository import UserLookup
from chatserver.users.service import UserService
from chatserver.wiring.core import Core


class Credentials:
    """`users` builds within a transaction; `kick` closes sockets everywhere."""

    def __init__(
        self,
        core: Core,
        *,
        users: Callable[[UnitOfWork], UserService],
        kick: Callable[[Closing], None],
    ) -> None:
        self._core = core
        self._kick = kick
        self._build_users = users
        self.masters = MasterKeyLookup(core.database)
        self.life = KeyLife(grace=timedelta(seconds=core.settings.key_grace_s))
        self.scoped = ScopedKeyLookup(core.database, idle=self.life.idle)
        self.used_masters = LazyNotes(self.masters.touch)
        self.used_scoped = LazyNotes(self.scoped.touch)
        self.people = UserLookup(core.database)
        self.issuers = IssuerLookup(core.database)
        self.rotation = Rotation(
            families=self.scoped,
            hasher=core.hasher,
            box=core.box,
            life=self.life,
            alarm=self._alarm,
        )
        self.identifier = Identifier(
            operator_key=core.settings.operator_key.get_secret_value(),
            hasher=core.hasher,
            slow=core.slow,
            masters=self.masters,
            scoped=self.scoped,
            rotation=self.rotation,
            bearers=SignedTokens(
                issuers=self.issuers,
                people=self._person,
                find_key=Jwks(self._read_key_set).find,
                clock=utc_now,
            ),
            used=self._used,
        )
        self.remac = Remac(core.database)
        core.hasher.outdated = self.remac.note
        # What is written a little later, in the background.
        self.lazily = (self.used_masters, self.used_scoped, self.remac)
        self.open_api_keys = core.open(self._api_keys)
        self._open_users = core.open(users)
        self._open_reuse_alarm = core.open(self._reuse_alarm)

    def _used(self, principal: Principal) -> None:
        notes = self.used_masters if principal.is_master else self.used_scoped
        notes.note(principal.kid)

    def _api_keys(self, work: UnitOfWork) -> ApiKeyService:
        return ApiKeyService(
            families=KeyFamilyRepository(work.session),
            users=self._build_users(work),
            hasher=self._core.hasher,
            box=self._core.box,
            recorder=work,
            kick=self._kick,
            life=self.life,
        )

    def _reuse_alarm(self, work: UnitOfWork) -> ReuseAlarm:
        return ReuseAlarm(
            families=KeyFamilyRepository(work.session), recorder=work, kick=self._kick
        )

    async def _alarm(self, stored: StoredScopedKey, reuse: AuthReuseDetectedError) -> None:
        async with self._open_reuse_alarm() as alarm:
            await alarm.raise_alarm(stored, reuse)

    async def _read_key_set(self, url: str) -> bytes:
        headers = {"Accept": "application/json"}
        reply = await self._core.outside.fetch("GET", url, headers=headers)
        if reply.status != HTTPStatus.OK:
            raise OutboundError(f"The key set answers {reply.status}.")
        return reply.body

    async def _person(self, client_id: UUID, external_id: str) -> Person:
        found = await self.people.find(client_id, external_id)
        if found is None:
            async with self._open_users() as users:
                await users.ensure(client_id, [external_id])
            found = await self.people.find(client_id, external_id)
        if found is None:
            raise UnavailableError
        return Person(*found)
