"""Identity on a real database: the server's own container, and short ways to log in and connect."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from chatserver.api_keys.errors import AuthExpiredError
from chatserver.api_keys.identity import Arrival
from chatserver.api_keys.lookups import ScopedKeyLookup
from chatserver.api_keys.policies import KeyLife
from chatserver.api_keys.schemas import LoggedIn
from chatserver.clients.schemas import ClientCreate
from chatserver.infra.addresses import Reach, target_of
from chatserver.infra.public_keys import PublicKey
from chatserver.infra.slow_hash import SlowHasher
from chatserver.kernel.principal import Principal
from tests.support.people import OPERATOR, House
from tests.support.servers import Database as Address

__all__ = ["LIFE", "OPERATOR", "Counted", "KeyHouse", "house"]

LIFE = KeyLife()


class Counted:
    """A look-up that counts how often the database is asked."""

    def __init__(self, lookup: ScopedKeyLookup) -> None:
        self._lookup = lookup
        self.queries = 0

    def __getattr__(self, name: str) -> Any:
        self.queries += 1
        return getattr(self._lookup, name)


class KeyHouse(House):
    """One node's worth of identity. A second one on the same database is a second node.

    It is never started: nothing runs in the background. bcrypt is cheap, and no address is looked
    up in the DNS.
    """

    def __init__(self, address: Address, *, grace: timedelta = LIFE.grace) -> None:
        super().__init__(address)
        container = self.container
        # Nobody watches the generation here.
        container.generation._number = 1
        container.slow.close()
        container.slow = SlowHasher(cost=4)
        self.counted = Counted(container.credentials.scoped)
        self.signing: dict[str, PublicKey] = {}
        container.credentials.life = replace(LIFE, grace=grace)
        container.credentials.rotation._life = container.credentials.life
        container.credentials.rotation._families = self.counted
        self.identifier = container.identifier
        self.identifier._slow = container.slow
        bearers: Any = self.identifier._bearers
        bearers._find_key = self._find_key
        outside: Any = container.outside
        outside.check = self._check_url
        self.rotation = container.credentials.rotation
        self.database = container.database
        self.hasher = container.hasher
        self.lookup = container.credentials.scoped
        self.masters = container.credentials.masters
        self.people = container.credentials.people
        self.scoped_use = container.credentials.used_scoped
        self.master_use = container.credentials.used_masters
        self.closings = self.heard.closings
        self.told = self.heard.facts
        self.open_clients = container.open_clients
        self.open_master_keys = container.open_master_keys
        self.open_tokens = container.open_tokens
        self.open_users = container.open_users
        self.open_keys = container.open_api_keys

    async def _find_key(self, url: str, kid: str | None, algorithm: str) -> PublicKey | None:
        return self.signing.get(kid or "")

    async def _check_url(self, url: str) -> None:
        target_of(url, Reach())

    async def new_client(self, name: str = "Acme") -> tuple[Principal, str]:
        """Make a client; give who its master key is, and the key."""
        async with self.open_clients() as clients:
            made = await clients.create(OPERATOR, ClientCreate(name=name))
        return await self.identifier.identify(made.master_key, door="rest"), made.master_key

    async def login(self, master: Principal, name: str = "alice", **more: Any) -> LoggedIn:
        return await super().login(master, name, **more)

    async def connect(self, token: object) -> Principal:
        """Connect as a socket does, and forget what is handed out."""
        arrival = await self.identifier.connect(token)
        if arrival.in_limbo:
            raise AuthExpiredError  # good for a refresh, and for nothing that is asked for here
        return arrival.principal

    async def arrive(self, token: object, **more: Any) -> Arrival:
        """Connect as a socket does."""
        return await self.identifier.connect(token, **more)

    async def plan(self, statement: str) -> str:
        """Explain a statement as if the tables were large."""
        async with self.database.transaction() as session:
            await session.execute(text("set local enable_seqscan = off"))
            found = await session.execute(text(f"explain {statement}"))
            return "\n".join(found.scalars())


@pytest.fixture
async def house(database: Address) -> AsyncIterator[KeyHouse]:
    made = KeyHouse(database)
    yield made
    await made.close()
