"""Where a fault is rehearsed: nodes, clients of two tenants under load, and what may be hurt."""

import asyncio
import random
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp

from tests.chaos.checker import Judge, Truth, Verdict
from tests.chaos.swarm import Swarm
from tests.support.clients import Answer, Api
from tests.support.nodes import Cluster, Node, eventually
from tests.support.proxy import Proxy
from tests.support.servers import Database, Servers

HEALED_S = 30.0
# The server's own drain is shorter than this.
GONE_S = 40.0
# How many log in or connect at once: fewer than a node lets in.
AT_ONCE = 16
UNAVAILABLE = 503

T = TypeVar("T")


@dataclass
class Tenant:
    """`rooms` are those that the load goes to; every user is in each of them."""

    canary: str
    api: Api
    users: list[str]
    keys: dict[str, str]
    rooms: list[str] = field(default_factory=list)


@dataclass
class Readiness:
    """What a node said of itself, and when, counted from the start of the load."""

    at: float
    node: str
    status: int
    body: dict[str, Any]


class Stage:
    """Made by `on_stage`. Every node reaches Redis through a line of its own: `lines[node]`."""

    def __init__(
        self, servers: Servers, database: Database, cluster: Cluster, swarm: Swarm, seed: int
    ) -> None:
        self.servers = servers
        self.database = database
        self.cluster = cluster
        self.swarm = swarm
        self.random = random.Random(seed)
        self.nodes: list[Node] = []
        self.lines: dict[str, Proxy] = {}
        self.tenants: list[Tenant] = []
        self.canaries: dict[str, str] = {}
        self.states: list[Readiness] = []
        self.memory: dict[str, list[int]] = {}
        self.recovered_s = 0.0
        self.started = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        self._sends: set[asyncio.Task[Any]] = set()
        self._number = 0

    async def build(
        self, http: aiohttp.ClientSession, *, users: int, rooms: int, stock: int
    ) -> None:
        """Two tenants with everyone of each in the same rooms, spread over the nodes."""
        operator = Api(http, self.nodes[0].url, self.database.secrets.operator_key)
        for number in range(2):
            canary = f"canary-{number}-{secrets.token_hex(4)}"
            made = await settled(partial(operator.post, "/clients", {"name": canary}))
            api = Api(http, self.nodes[0].url, made["master_key"])
            names = [f"{canary}-u{at}" for at in range(users)]
            everyone = [*names, *(f"{canary}-s{at}" for at in range(stock))]
            logins = await self._some_at_once(
                settled(partial(api.post, f"/users/{name}/login", {})) for name in everyone
            )
            keys = {name: login["key"] for name, login in zip(everyone, logins, strict=True)}
            tenant = Tenant(canary, api, names, keys)
            for _ in range(rooms):
                body = {"type": "group", "member_ids": list(keys)}
                tenant.rooms.append((await settled(partial(api.post, "/rooms", body)))["id"])
            self.tenants.append(tenant)
            await self._some_at_once(
                # Every third one begins by polling, as a browser does.
                self.add(
                    tenant,
                    name,
                    "reference" if at < users else "stock",
                    at,
                    key=key,
                    transports=None if at % 3 == 0 else ["websocket"],
                    # Every second one that only listens asks to be recovered.
                    recovery=at >= users and at % 2 == 1,
                )
                for at, (name, key) in enumerate(keys.items())
            )
        await self.connected(HEALED_S + len(self.canaries) / 20)

    async def _some_at_once(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        places = asyncio.Semaphore(AT_ONCE)

        async def one(each: Coroutine[Any, Any, T]) -> T:
            async with places:
                return await each

        return list(await asyncio.gather(*(one(each) for each in work)))

    async def add(
        self,
        tenant: Tenant,
        name: str,
        kind: str = "reference",
        node: int = 0,
        *,
        key: str | None = None,
        transports: Sequence[str] | None = ("websocket",),
        recovery: bool = False,
    ) -> None:
        if key is None:
            login = partial(tenant.api.post, f"/users/{name}/login", {})
            key = (await settled(login))["key"]
            tenant.keys[name] = key
        self.canaries[name] = tenant.canary
        url = self.nodes[node % len(self.nodes)].url
        more = {"transports": transports, "recovery": recovery}
        await self.swarm.do(kind, client=name, url=url, key=key, **more)

    async def connected(self, within_s: float = HEALED_S) -> None:
        async def all_are() -> bool:
            return bool(await self.swarm.do("connected") == len(self.canaries))

        await eventually(all_are, within_s=within_s, why="every client is connected")

    async def send(self, tenant: Tenant, room: str | None = None, user: str | None = None) -> Any:
        """Let a reference client send until it has an answer that stays."""
        room = room or self.random.choice(tenant.rooms)
        user = user or self.random.choice(tenant.users)
        return (await self.send_named(tenant, room, user))[1]

    async def send_named(self, tenant: Tenant, room: str, user: str) -> tuple[str, Any]:
        """Send, and give the client_msg_id and the answer."""
        self._number += 1
        cmid = f"{user}-{self._number}"
        content = f"{tenant.canary} {self._number}"
        answer = await self.swarm.do("send", client=user, room=room, content=content, cmid=cmid)
        return cmid, answer

    def load(self, rate: float) -> None:
        """Begin to send, at random, so many messages a second."""
        loop = asyncio.get_running_loop()
        self.started = time.monotonic()
        self._tasks = [loop.create_task(self._load(rate)), loop.create_task(self._watch())]

    async def calm(self) -> None:
        """Send nothing more, and wait until what was sent has its answer."""
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        if self._sends:
            async with asyncio.timeout(GONE_S):
                await asyncio.gather(*self._sends)

    async def verdict(self, *, within_s: float = HEALED_S, rewound: bool = False) -> Verdict:
        """Wait until everyone has everything (I14), close all clients and judge."""
        began = time.monotonic()
        missing: list[str] = []

        async def all_have_all() -> bool:
            missing[:] = await self._missing()
            return not missing

        late = ""
        try:
            await self.connected(within_s)
            await self._say_the_last_word()
            await eventually(all_have_all, within_s=within_s)
        except AssertionError:
            late = f"I14: after {within_s:.0f} s {missing[:5] or 'not all are connected'}"
        self.recovered_s = time.monotonic() - began
        await self.swarm.do("close")
        truth = await Truth.read(self.database.admin_url)
        verdict = Judge(truth, self.canaries, rewound=rewound).judge(self.swarm.read())
        if late:
            verdict.faults.append(late)
        return verdict

    async def _say_the_last_word(self) -> None:
        """Who only listens, and was away for a moment, is told by it where a room's log ends."""
        truth = await Truth.read(self.database.admin_url)
        for tenant in self.tenants:
            for room, members in truth.members.items():
                if talkers := sorted(members & set(tenant.users)):
                    assert (await self.send(tenant, room, talkers[0]))["ok"]

    async def _missing(self) -> list[str]:
        truth = await Truth.read(self.database.admin_url)
        heads = await self.swarm.do("heads")
        return [
            f"{name} has {heads[name].get(room, 0)} of {truth.last_seqs[room]} in {room}"
            for room, members in truth.members.items()
            for name in members & heads.keys()
            if heads[name].get(room, 0) != truth.last_seqs[room]
        ]

    async def _load(self, rate: float) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(rate))
            send = asyncio.create_task(self.send(self.random.choice(self.tenants)))
            self._sends.add(send)
            send.add_done_callback(self._sends.discard)

    async def _watch(self) -> None:
        """Ask each node every half second how it is, and how much memory it holds (I5, I13)."""
        while True:
            await asyncio.gather(*(self._look(node) for node in self.nodes))
            await asyncio.sleep(0.5)

    async def _look(self, node: Node) -> None:
        at = time.monotonic() - self.started
        status, body = await node.health()
        self.states.append(Readiness(at, node.name, status, body))
        self.memory.setdefault(node.name, []).append(resident_bytes(node.pid))

    def unready_s(self, node: str) -> float:
        """How long a node that ran said it was unready."""
        looks = [state for state in self.states if state.node == node]
        return sum(later.at - look.at for look, later in pairwise(looks) if look.status == 503)

    def grown_bytes(self) -> int:
        return max((max(seen) - seen[0] for seen in self.memory.values() if seen), default=0)


async def settled(ask: Callable[[], Coroutine[Any, Any, Answer]]) -> Any:
    """Ask again for as long as the server is too busy; a machine that is is no fault of its."""
    answer = await ask()
    while answer.status == UNAVAILABLE:
        await asyncio.sleep(answer.body["retry_after_ms"] / 1000)
        answer = await ask()
    return answer.ok()


def resident_bytes(pid: int) -> int:
    """0 when the process is not there now."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(found.group(1)) * 1024 if found else 0


@asynccontextmanager
async def on_stage(
    servers: Servers,
    history: Path,
    *,
    seed: int,
    nodes: int = 2,
    users: int = 4,
    rooms: int = 3,
    stock: int = 2,
    redis_url: str | None = None,
) -> AsyncIterator[Stage]:
    """`redis_url`: of a Redis Cluster, which every node reaches without a line that can be hurt."""
    database = servers.fresh_database()
    cluster = Cluster(database)
    redis = urlsplit(servers.valkey.url)
    assert redis.hostname is not None
    assert redis.port is not None
    try:
        async with AsyncExitStack() as stack:
            swarm = await stack.enter_async_context(Swarm(history))
            timeout = aiohttp.ClientTimeout(total=30)
            http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
            stage = Stage(servers, database, cluster, swarm, seed)
            for name in "abcd"[:nodes]:
                line = await stack.enter_async_context(Proxy(redis.hostname, redis.port))
                stage.lines[name] = line
                queue = f"redis://127.0.0.1:{line.port}/0"
                urls = {"REDIS_URL": redis_url or queue, "QUEUE_REDIS_URL": queue}
                stage.nodes.append(cluster.node(name, **urls))
            await asyncio.gather(*(node.start() for node in stage.nodes))
            await stage.build(http, users=users, rooms=rooms, stock=stock)
            yield stage
    finally:
        cluster.close()
        servers.drop(database)
