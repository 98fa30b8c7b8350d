"""A container of services on a real database, and short ways to have people do things in it."""

import secrets
from typing import Any
from uuid import UUID

from sqlalchemy import text

from chatserver.api_keys.schemas import LoggedIn, Login
from chatserver.bootstrap import Container
from chatserver.chat.schemas import PostMessage, Sent
from chatserver.clients.schemas import ClientCreate
from chatserver.kernel.events import Committed
from chatserver.kernel.principal import Caller, Principal
from chatserver.realtime.ports import Closing
from chatserver.rooms.schemas import CreateRoom, RoomOut
from chatserver.settings import Settings
from chatserver.users.schemas import UserPut
from tests.support.servers import Database

OPERATOR = Principal(caller=Caller.OPERATOR)


class Heard:
    """A broadcaster that keeps what it is told."""

    def __init__(self) -> None:
        self.facts: list[Committed] = []
        self.closings: list[Closing] = []

    def publish(self, facts: Any) -> None:
        self.facts.extend(facts)

    def close(self, closing: Closing) -> None:
        self.closings.append(closing)


class House:
    """What a server process has, without its doors."""

    def __init__(self, address: Database, **more: str) -> None:
        self.address = address
        environment = {name.lower(): value for name, value in address.settings().items()} | more
        self.settings = Settings(_env_file=None, **environment)  # type: ignore[arg-type]
        self.container = Container(self.settings)
        self.heard = Heard()
        self.container.broadcaster = self.heard

    async def start(self) -> None:
        await self.container.start()

    async def close(self) -> None:
        await self.container.stop()

    async def tenant(self, name: str = "Acme") -> Principal:
        """Make a client; give who its master key is."""
        async with self.container.open_clients() as clients:
            made = await clients.create(OPERATOR, ClientCreate(name=name))
        return await self.container.identifier.identify(made.master_key, door="rest")

    async def person(self, master: Principal, name: str, **profile: Any) -> Principal:
        """Make a user with a key; give who the key is."""
        async with self.container.open_users() as users:
            await users.put(master, UserPut(external_id=name, **profile))
        issued = await self.login(master, name)
        return await self.container.identifier.identify(issued.key, door="rest")

    async def login(self, master: Principal, name: str, **more: Any) -> LoggedIn:
        async with self.container.open_api_keys() as keys:
            return await keys.login(master, Login(external_id=name, **more))

    async def room(self, owner: Principal, *others: str, **more: Any) -> RoomOut:
        values: dict[str, Any] = {"type": "group", **more}
        async with self.container.open_rooms() as rooms:
            return await rooms.create(owner, CreateRoom(member_ids=list(others), **values))

    async def say(self, who: Principal, room_id: UUID, content: str, **more: Any) -> Sent:
        command = PostMessage(
            room_id=room_id, content=content, client_msg_id=secrets.token_hex(8), **more
        )
        return await self.container.chat.post(who, command)

    async def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        async with self.container.database.transaction() as session:
            found = await session.execute(text(statement), values)
            return [dict(row) for row in found.mappings()]

    async def change(self, statement: str, **values: Any) -> None:
        async with self.container.database.transaction() as session:
            await session.execute(text(statement), values)
