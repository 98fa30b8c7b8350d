"""Clients, users and keys on a real database, put together as the server does it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from chatserver.api_keys.errors import AuthExpiredError, AuthReuseDetectedError
from chatserver.api_keys.identity import Arrival, Identifier
from chatserver.api_keys.models import StoredScopedKey
from chatserver.api_keys.policies import KeyLife
from chatserver.api_keys.repository import KeyFamilyRepository, ScopedKeyLookup
from chatserver.api_keys.rotation import ReuseAlarm, Rotation
from chatserver.api_keys.schemas import LoggedIn, Login
from chatserver.api_keys.service import ApiKeyService
from chatserver.api_keys.tokens import Person, SignedTokens
from chatserver.clients.issuers import Issuers
from chatserver.clients.repository import (
    ClientKeyRepository,
    ClientRepository,
    IssuerLookup,
    IssuerRepository,
    MasterKeyLookup,
)
from chatserver.clients.schemas import ClientCreate
from chatserver.clients.service import ClientService, MasterKeyService
from chatserver.infra.addresses import Reach, target_of
from chatserver.infra.database import Database
from chatserver.infra.lazily import LazyNotes
from chatserver.infra.public_keys import PublicKey
from chatserver.infra.secrets import KeyHasher, SecretBox
from chatserver.infra.slow_hash import SlowHasher
from chatserver.infra.unit_of_work import UnitOfWork, Units
from chatserver.kernel.clock import utc_now
from chatserver.kernel.events import Committed
from chatserver.kernel.principal import Caller, Principal
from chatserver.realtime.ports import Closing
from chatserver.users.repository import UserLookup, UserRepository
from chatserver.users.service import UserService
from tests.support.servers import Database as Address

OPERATOR = Principal(caller=Caller.OPERATOR)
LIFE = KeyLife()


class Counted:
    """A look-up that counts how often the database is asked."""

    def __init__(self, lookup: ScopedKeyLookup) -> None:
        self._lookup = lookup
        self.queries = 0

    def __getattr__(self, name: str) -> Any:
        self.queries += 1
        return getattr(self._lookup, name)


class KeyHouse:
    """One node's worth of identity. A second one on the same database is a second node."""

    def __init__(self, address: Address, *, life: KeyLife = LIFE) -> None:
        self.database = Database(address.app_url, name="test")
        self.life = life
        self.closings: list[Closing] = []
        self.rechecked: list[UUID] = []
        self.told: list[Committed] = []
        self.hasher = KeyHasher(address.secrets.key_pepper)
        self.slow = SlowHasher(cost=4)
        self.lookup = ScopedKeyLookup(self.database, idle=life.idle)
        self.masters = MasterKeyLookup(self.database)
        self.counted = Counted(self.lookup)
        self.scoped_use = LazyNotes(self.lookup.touch)
        self.master_use = LazyNotes(self.masters.touch)
        self.box = SecretBox.from_text(["seal"])
        self.people = UserLookup(self.database)
        self.signing: dict[str, PublicKey] = {}
        self.rotation = Rotation(
            families=self.counted,
            hasher=self.hasher,
            box=self.box,
            life=life,
            alarm=self._alarm,
        )
        self.identifier = Identifier(
            operator_key=address.secrets.operator_key,
            hasher=self.hasher,
            slow=self.slow,
            masters=self.masters,
            scoped=self.lookup,
            rotation=self.rotation,
            bearers=SignedTokens(
                issuers=IssuerLookup(self.database),
                people=self._person,
                find_key=self._find_key,
                clock=utc_now,
            ),
            used=self._used,
        )
        units = Units(
            self.database,
            generation=lambda: 1,
            publish=self.told.extend,
            has_later=lambda _: False,
            ring=lambda: None,
        )
        self.open_clients = units.open(self._client_service)
        self.open_master_keys = units.open(self._master_keys)
        self.open_users = units.open(self._user_service)
        self.open_keys = units.open(self._keys)
        self.open_alarm = units.open(self._reuse_alarm)

    def _used(self, principal: Principal) -> None:
        (self.master_use if principal.is_master else self.scoped_use).note(principal.kid)

    def kick(self, closing: Closing) -> None:
        self.identifier.forget(closing)
        self.closings.append(closing)

    def _master_keys(self, work: UnitOfWork) -> MasterKeyService:
        return MasterKeyService(
            keys=ClientKeyRepository(work.session),
            hasher=self.hasher,
            slow=self.slow,
            recorder=work,
            kick=self.kick,
        )

    def _client_service(self, work: UnitOfWork) -> ClientService:
        return ClientService(
            clients=ClientRepository(work.session),
            keys=self._master_keys(work),
            issuers=Issuers(issuers=IssuerRepository(work.session), check_url=self._check_url),
            recorder=work,
            kick=self.kick,
            on_change={"room_deactivation": self._note_lifetimes},
        )

    async def _note_lifetimes(self, client_id: UUID) -> None:
        self.rechecked.append(client_id)

    def _user_service(self, work: UnitOfWork) -> UserService:
        return UserService(users=UserRepository(work.session))

    def _keys(self, work: UnitOfWork) -> ApiKeyService:
        return ApiKeyService(
            families=KeyFamilyRepository(work.session),
            users=self._user_service(work),
            hasher=self.hasher,
            box=self.box,
            recorder=work,
            kick=self.kick,
            life=self.life,
        )

    def _reuse_alarm(self, work: UnitOfWork) -> ReuseAlarm:
        return ReuseAlarm(families=KeyFamilyRepository(work.session), recorder=work, kick=self.kick)

    async def _alarm(self, stored: StoredScopedKey, reuse: AuthReuseDetectedError) -> None:
        async with self.open_alarm() as alarm:
            await alarm.raise_alarm(stored, reuse)

    async def _person(self, client_id: UUID, external_id: str) -> Person:
        async with self.open_users() as users:
            await users.ensure(client_id, [external_id])
        found = await self.people.find(client_id, external_id)
        assert found is not None
        return Person(*found)

    async def _find_key(self, url: str, kid: str | None, algorithm: str) -> PublicKey | None:
        return self.signing.get(kid or "")

    async def _check_url(self, url: str) -> None:
        target_of(url, Reach())

    async def new_client(self, name: str = "Acme") -> tuple[Principal, str]:
        """Make a client; give who its master key is, and the key."""
        async with self.open_clients() as clients:
            made = await clients.create(OPERATOR, ClientCreate(name=name))
        return await self.identifier.identify(made.master_key, door="rest"), made.master_key

    async def login(self, master: Principal, external_id: str = "alice", **more: Any) -> LoggedIn:
        async with self.open_keys() as keys:
            return await keys.login(master, Login(external_id=external_id, **more))

    async def connect(self, token: object) -> Principal:
        """Connect as a socket does, and forget what is handed out."""
        arrival = await self.identifier.connect(token)
        if arrival.in_limbo:
            raise AuthExpiredError  # good for a refresh, and for nothing that is asked for here
        return arrival.principal

    async def arrive(self, token: object, **more: Any) -> Arrival:
        """Connect as a socket does."""
        return await self.identifier.connect(token, **more)

    async def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        async with self.database.transaction() as session:
            found = await session.execute(text(statement), values)
            return [dict(row) for row in found.mappings()]

    async def change(self, statement: str, **values: Any) -> None:
        async with self.database.transaction() as session:
            await session.execute(text(statement), values)

    async def plan(self, statement: str) -> str:
        """Explain a statement as if the tables were large."""
        async with self.database.transaction() as session:
            await session.execute(text("set local enable_seqscan = off"))
            found = await session.execute(text(f"explain {statement}"))
            return "\n".join(found.scalars())

    async def close(self) -> None:
        self.slow.close()
        await self.database.close()


@pytest.fixture
async def house(database: Address) -> AsyncIterator[KeyHouse]:
    made = KeyHouse(database)
    yield made
    await made.close()
