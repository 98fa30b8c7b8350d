"""One process and one database for all of these tests; each makes a tenant of its own."""

import base64
import hmac
import io
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import aiohttp
import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from chatserver.kernel.clock import utc_now
from chatserver.kernel.principal import Principal
from chatserver.transport.answers import answers
from chatserver.webhooks.sources.door import InboundDoor
from chatserver.webhooks.sources.running import WaitingError
from chatserver.webhooks.sources.schemas import (
    EventDetails,
    EventList,
    EventOut,
    EventPath,
    SourceCreate,
    SourceCreated,
)
from tests.support.people import House
from tests.support.servers import Database, Servers

SECRET = "It's a Secret to Everybody"


@pytest.fixture(scope="module")
def shared(servers: Servers) -> Iterator[Database]:
    made = servers.fresh_database()
    yield made
    servers.drop(made)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(shared: Database) -> AsyncIterator[House]:
    made = House(shared, allow_private_addresses="true")
    await made.start()
    await made.container.limiter.start()
    yield made
    await made.container.limiter.stop()
    await made.close()


class Shop:
    """A tenant, and a vendor that sends it webhooks over HTTP."""

    def __init__(
        self, house: House, master: Principal, http: aiohttp.ClientSession, url: str
    ) -> None:
        self.house = house
        self.master = master
        self.http = http
        self.url = url

    async def source(self, slug: str = "shop", **more: Any) -> SourceCreated:
        values: dict[str, Any] = {"scheme": "github", "secrets": [SECRET], **more}
        async with self.house.container.sources.open_sources() as sources:
            return await sources.create(
                self.master, SourceCreate.model_validate({"slug": slug, **values})
            )

    async def send(
        self,
        payload: Any,
        *,
        slug: str = "shop",
        name: str | None = None,
        secret: str = SECRET,
        client: str | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, Any], float]:
        """Send as GitHub does; the status, the answer and how many seconds it took."""
        body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
        all_headers = {
            "Content-Type": "application/json",
            "X-GitHub-Delivery": name or secrets.token_hex(8),
            "X-Hub-Signature-256": "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex(),
            **{key.replace("_", "-"): value for key, value in headers.items()},
        }
        path = f"/webhooks/{client or self.master.client_slug}/{slug}"
        began = utc_now()
        async with self.http.post(
            self.url + path, data=io.BytesIO(body), headers=all_headers
        ) as answer:
            said = orjson.loads(await answer.read())
            return answer.status, said, (utc_now() - began).total_seconds()

    async def took(self, payload: Any, **more: Any) -> UUID:
        status, said, _ = await self.send(payload, **more)
        assert status == 200, said
        return UUID(said["id"])

    async def run(self, event_id: UUID) -> bool:
        """Do what the worker does; False: it has to come again."""
        try:
            await self.house.container.sources.runner.run(event_id)
        except WaitingError:
            return False
        return True

    async def handle(self, payload: Any, **more: Any) -> EventDetails:
        """Send an event and run its rules."""
        event_id = await self.took(payload, **more)
        await self.run(event_id)
        return await self.event(event_id)

    async def event(self, event_id: UUID) -> EventDetails:
        [row] = await self.house.rows(
            "select source_id from inbound_event where id = :id", id=event_id
        )
        async with self.house.container.sources.open_history() as history:
            return await history.get_event(
                self.master, EventPath(id=row["source_id"], event_id=event_id)
            )

    async def events(self, source_id: UUID, **more: Any) -> list[EventOut]:
        async with self.house.container.sources.open_history() as history:
            page = await history.list_events(
                self.master, EventList.model_validate({"id": str(source_id), **more})
            )
        return page.items

    async def messages(self, external_id: str) -> list[dict[str, Any]]:
        return await self.house.rows(
            "select m.content, m.sender, m.sender_id, m.details, m.mentions from message m"
            " join room r on r.id = m.room_id"
            " where r.client_id = :client and r.external_id = :name order by m.seq",
            client=self.master.client_id,
            name=external_id,
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(house: House) -> AsyncIterator[str]:
    """The inbound door alone, on a port of its own."""
    app = web.Application(middlewares=[answers()])
    InboundDoor(house.container.sources.reception, public_url=None).attach(app)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest_asyncio.fixture(loop_scope="module")
async def shop(house: House, door: str, http: aiohttp.ClientSession) -> Shop:
    return Shop(house, await house.tenant(f"Shop {secrets.token_hex(4)}"), http, door)


def basic(secret: str) -> str:
    return f"Basic {base64.b64encode(secret.encode()).decode()}"
