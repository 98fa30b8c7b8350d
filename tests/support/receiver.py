"""A webhook receiver on this machine, and a client's server with the worker's part beside it."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self
from uuid import UUID

from aiohttp import web
from standardwebhooks import Webhook

from chatserver.deliveries.schemas import DeliveryOut, DeliveryRef, Explained, GetLedger, Ledger
from chatserver.kernel.principal import Principal
from chatserver.reactions import LATER
from chatserver.webhooks.endpoints.models import CHANNEL
from chatserver.webhooks.endpoints.schemas import (
    CreatedEndpoint,
    CreateEndpoint,
    EndpointOut,
    EndpointRef,
    ListDeliveries,
)
from tests.support.nodes import eventually
from tests.support.servers import Database
from tests.support.talk import Talk
from workers.deliveries import Lane
from workers.outbox import Dispatcher

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Got:
    """One request as it came."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path = path
        self.headers = headers
        self.body = body

    @property
    def fact(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def seq(self) -> int:
        return int(self.headers["webhook-event-seq"])

    def verify(self, secret: str) -> Any:
        """Check it with the public library; raises when the signature is wrong."""
        return Webhook(secret).verify(self.body, self.headers)


class Receiver:
    """Answers 200 at every path, unless it was told something else for one."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[Got] = []
        self.answers: dict[str, Answer] = {}
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 22)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.got.append(Got(request.path, dict(request.headers), await request.read()))
        path = request.path
        self.running[path] += 1
        self.most[path] = max(self.most[path], self.running[path])
        try:
            answer = self.answers.get(path)
            return web.Response() if answer is None else await answer(request)
        finally:
            self.running[path] -= 1

    def answer(self, path: str, status: int, *, text: str = "", **headers: str) -> None:
        """Have a path answer with a status from now on."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}

        async def say(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status, text=text, headers=fields)

        self.answers[path] = say

    def heal(self, path: str) -> None:
        self.answers.pop(path, None)

    def at(self, path: str) -> list[Got]:
        return [got for got in self.got if got.path == path]

    async def until(self, path: str, count: int, *, within_s: float = 20) -> list[Got]:
        """Wait until so many requests came to a path."""
        await eventually(
            lambda: len(self.at(path)) >= count,
            within_s=within_s,
            why=f"{count} requests at {path}, not {len(self.at(path))}",
        )
        return self.at(path)

    def by_path(self) -> dict[str, list[Got]]:
        found: dict[str, list[Got]] = defaultdict(list)
        for got in self.got:
            found[got.path].append(got)
        return found


class Post:
    """The services of one process with what a worker does for webhooks."""

    def __init__(self, talk: Talk, receiver: Receiver, **lane: Any) -> None:
        self.talk = talk
        self.receiver = receiver
        self.hooks = talk.container.webhooks
        self.dispatcher = Dispatcher(
            talk.container.open(lambda work: work),
            LATER,
            poll_s=0.05,
            together=(self.hooks.plan,),
        )
        self.lane = Lane(
            channel=CHANNEL,
            queue=self.hooks.queue,
            sender=self.hooks.sender,
            notes=self.hooks.notes,
            **{"poll_s": 0.05, "sweep_s": 3600.0, **lane},
        )
        self.hooks.wake_here = self.lane.wake

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Dispatch and send in the background, and see both end."""
        tasks = [
            asyncio.create_task(self.dispatcher.run()),
            asyncio.create_task(self.lane.run()),
        ]
        try:
            yield
        finally:
            self.dispatcher.stop()
            await self.lane.stop(grace_s=5)
            async with asyncio.timeout(10):
                await asyncio.gather(*tasks)

    async def endpoint(self, who: Principal, path: str = "/hook", **more: Any) -> CreatedEndpoint:
        members = {"url": self.receiver.url + path, "events": ["message.created"]} | more
        async with self.hooks.open_endpoints() as endpoints:
            return await endpoints.create(who, CreateEndpoint.model_validate(members))

    async def shown(self, who: Principal, endpoint_id: UUID) -> EndpointOut:
        async with self.hooks.open_endpoints() as endpoints:
            return await endpoints.get(who, EndpointRef(id=endpoint_id))

    async def delivery(self, who: Principal, delivery_id: UUID) -> DeliveryOut:
        headers = self.hooks.headers[CHANNEL]
        async with self.hooks.open_deliveries() as deliveries:
            return await deliveries.get(who, DeliveryRef(id=delivery_id), headers)

    async def explained(self, who: Principal, delivery_id: UUID) -> Explained:
        async with self.hooks.open_deliveries() as deliveries:
            return await deliveries.explain(who, DeliveryRef(id=delivery_id))

    async def ledger(self, who: Principal) -> Ledger:
        async with self.hooks.open_deliveries() as deliveries:
            return await deliveries.ledger(who, GetLedger())

    async def deliveries(self, who: Principal, endpoint_id: UUID) -> list[DeliveryOut]:
        """An endpoint's deliveries, each with its attempts, the oldest first."""
        async with self.hooks.open_endpoints() as endpoints:
            page = await endpoints.deliveries(who, ListDeliveries(id=endpoint_id, limit=100))
        return [await self.delivery(who, each.id) for each in reversed(page.items)]

    async def states(self, endpoint_id: UUID) -> Counter[str]:
        rows = await self.talk.rows(
            "select state, count(*) as n from delivery where target_id = $1 group by state",
            endpoint_id,
        )
        return Counter({row["state"]: row["n"] for row in rows})

    async def settled(self, endpoint_id: UUID, count: int, *, within_s: float = 20) -> None:
        """Wait until so many deliveries of an endpoint have arrived."""

        async def arrived() -> bool:
            return (await self.states(endpoint_id))["delivered"] >= count

        await eventually(arrived, within_s=within_s, why=f"{count} delivered")

    async def advance(self, seconds: float) -> None:
        """Let time pass, as far as deliveries and targets can tell: PostgreSQL owns it."""
        await self.talk.run(
            "update delivery set next_at = next_at - make_interval(secs => $1),"
            " created_at = created_at - make_interval(secs => $1),"
            " expires_at = expires_at - make_interval(secs => $1),"
            " lease_until = lease_until - make_interval(secs => $1)",
            seconds,
        )
        await self.talk.run(
            "update delivery_target set open_until = open_until - make_interval(secs => $1),"
            " first_failure_at = first_failure_at - make_interval(secs => $1),"
            " since = since - make_interval(secs => $1),"
            " told_at = told_at - make_interval(secs => $1),"
            " warned_at = warned_at - make_interval(secs => $1),"
            " tokens_at = tokens_at - make_interval(secs => $1)",
            seconds,
        )
        await self.talk.run(
            "update webhook_secret set expires_at = expires_at - make_interval(secs => $1)", seconds
        )
        self.lane.wake()


async def clear_away(talk: Talk) -> None:
    """End what other tests left: the database is shared, and a lane takes whatever is due."""
    await talk.run(
        "update delivery set state = 'cancelled', settled_at = clock_timestamp()"
        " where settled_at is null"
    )
    await talk.run("delete from outbox")


@asynccontextmanager
async def posting(database: Database, **lane: Any) -> AsyncIterator[Post]:
    """A process of one's own that may reach this machine, and a receiver."""
    talk = Talk(database, allow_private_addresses=True)
    await talk.start()
    try:
        await clear_away(talk)
        async with Receiver() as receiver:
            yield Post(talk, receiver, **lane)
    finally:
        await talk.stop()
