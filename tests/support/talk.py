"""The services of one process on a real database, without doors; what it would show is kept."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from chatserver.bootstrap import Container
from chatserver.chat.events import Draft, Outcome
from chatserver.chat.schemas import PostMessage, SendMessage, Sent
from chatserver.kernel.events import Committed
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import ALL_SCOPES, Caller, Principal
from chatserver.realtime.ports import Closing
from chatserver.rooms.schemas import CreatedRoom, CreateRoom, InviteMembers, MemberRef
from chatserver.settings import Settings
from tests.support.servers import Database


class Shown:
    """A `Broadcaster` that keeps what it is given."""

    def __init__(self) -> None:
        self.facts: list[Committed] = []
        self.closings: list[Closing] = []
        self._more = asyncio.Event()

    def publish(self, facts: Sequence[Committed]) -> None:
        self.facts.extend(facts)
        self._more.set()

    async def at_least(self, count: int) -> None:
        """Wait for what is shown a little later than it is answered."""
        async with asyncio.timeout(5):
            while len(self.facts) < count:
                self._more.clear()
                await self._more.wait()

    def close(self, closing: Closing) -> None:
        self.closings.append(closing)

    def of(self, room_id: UUID) -> list[dict[str, Any]]:
        """What was shown of a room, in that order."""
        return [orjson.loads(fact.body) for fact in self.facts if fact.room_id == room_id]


class Talk:
    """One process. A second one on the same database is a second node."""

    def __init__(self, database: Database, **settings: Any) -> None:
        self.container = Container(settings_of(database, **settings), name="test")
        self.shown = Shown()
        self.container.broadcaster = self.shown

    async def start(self) -> None:
        await self.container.start()

    async def stop(self) -> None:
        await self.container.stop()

    async def client(self, name: str = "acme", **settings: Any) -> Principal:
        """Make a client; gives its master key's principal."""
        client_id = uuid7()
        await self.run(
            "insert into client (id, slug, name, status, settings) values ($1, $2, $2, $3, $4)",
            client_id,
            name,
            "active",
            orjson.dumps(settings).decode(),
        )
        return Principal(caller=Caller.MASTER, client_id=client_id, client_slug=name)

    async def user(self, master: Principal, external_id: str) -> Principal:
        return (await self.users(master, external_id))[0]

    async def users(self, master: Principal, *names: str) -> list[Principal]:
        made = [
            Principal(
                caller=Caller.USER,
                client_id=master.client_id,
                user_id=uuid7(),
                external_id=name,
                scopes=ALL_SCOPES,
            )
            for name in names
        ]
        await self.run(
            "insert into app_user (id, client_id, external_id)"
            " select i, $3, e from unnest($1::uuid[], $2::text[]) as u (i, e)",
            [each.user_id for each in made],
            list(names),
            master.client_id,
        )
        return made

    async def room(
        self, owner: Principal, *members: Principal, kind: str = "group", **more: Any
    ) -> CreatedRoom:
        command = CreateRoom.model_validate(
            {"type": kind, "member_ids": [each.external_id for each in members]} | more
        )
        async with self.container.open_rooms() as rooms:
            return await rooms.create(owner, command)

    async def invite(self, who: Principal, room_id: UUID, *people: Principal) -> None:
        command = InviteMembers(room_id=room_id, user_ids=[each.external_id for each in people])
        async with self.container.open_members() as members:
            await members.invite(who, command)

    async def remove(self, who: Principal, room_id: UUID, person: Principal) -> None:
        command = MemberRef(room_id=room_id, user_id=person.external_id)
        async with self.container.open_members() as members:
            await members.remove(who, command)

    async def send(self, who: Principal, room_id: UUID, content: str = "hi", **more: Any) -> Sent:
        members = {"room_id": room_id, "content": content, "client_msg_id": uuid7().hex} | more
        if who.is_user:
            return await self.container.chat.send(who, SendMessage.model_validate(members))
        return await self.container.chat.post(who, PostMessage.model_validate(members))

    async def store(self, *drafts: Draft, wait: bool = False) -> list[Outcome]:
        """Call the database function itself."""
        return await self.container.messages.store(drafts, wait=wait)

    async def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        pool = await self.container.database.fast()
        return [dict(row) for row in await pool.fetch(statement, *values)]

    async def run(self, statement: str, *values: Any) -> None:
        pool = await self.container.database.fast()
        await pool.execute(statement, *values)

    async def log(self, room_id: UUID) -> list[dict[str, Any]]:
        """A room's log as it is stored."""
        return await self.rows("select * from room_event where room_id = $1 order by seq", room_id)


def settings_of(database: Database, **more: Any) -> Settings:
    members: dict[str, Any] = {
        name.lower(): value for name, value in database.settings().items()
    } | more
    return Settings(_env_file=None, **members)


def draft_of(
    who: Principal, room_id: UUID, client_msg_id: str, content: str = "hi", **more: Any
) -> Draft:
    """A draft as the service makes it; a master key's is the system's."""
    members: dict[str, Any] = {
        "client_id": who.client_id,
        "room_id": room_id,
        "user_id": who.user_id if who.is_user else None,
        "sender": "user" if who.is_user else "system",
        "sender_id": who.external_id or None,
        "sender_key": str(who.user_id) if who.is_user else "system:api",
        "client_msg_id": client_msg_id,
        "body_hash": content.encode(errors="surrogatepass"),
        "content": content,
        "reply_to": None,
        "attachments": [],
        "mentions": [],
        "metadata": {},
    }
    return Draft(**(members | more))


@asynccontextmanager
async def holding(database: Database, room_id: UUID) -> AsyncIterator[None]:
    """Keep a room's row locked from another session."""
    connection = await asyncpg.connect(database.app_url)
    try:
        async with connection.transaction():
            await connection.execute("select 1 from room where id = $1 for update", room_id)
            yield
    finally:
        await connection.close()
