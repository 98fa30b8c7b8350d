"""A node of the realtime engine with a log in memory and a door that believes names."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid5

import aiohttp
import orjson
import socketio
from aiohttp import web

from chatserver.kernel.errors import (
    DomainError,
    ErrorKind,
    EventUnknownError,
    PayloadInvalidError,
    UnavailableError,
)
from chatserver.kernel.events import NO_EFFECT, Committed, Effect
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Caller, Principal
from chatserver.realtime.engine import Realtime
from chatserver.realtime.hub import Views
from chatserver.realtime.ports import (
    Accepted,
    Changes,
    Handshake,
    Refused,
    Seat,
    Subscriptions,
)
from chatserver.realtime.publisher import BusSettings
from chatserver.transport.refusals import bug, refusal

CLIENT = UUID("018f0000-0000-7000-8000-00000000c11e")
_NAMES = UUID("018f0000-0000-7000-8000-000000000001")
ROOM_TYPES = frozenset({"room.updated", "member.joined", "member.left", "room.deleted"})
VIEWS = Views(
    "/chat",
    {"/rooms": ROOM_TYPES, "/notifications": frozenset({"notification.created"})},
)


def user_id(name: str) -> UUID:
    return uuid5(_NAMES, name)


def principal(name: str) -> Principal:
    return Principal(
        caller=Caller.USER, client_id=CLIENT, user_id=user_id(name), external_id=name, kid=name
    )


class Truth:
    """The log: rooms with their facts and members. `away` makes every call fail."""

    def __init__(self) -> None:
        self.facts: dict[UUID, list[Committed]] = defaultdict(list)
        self.members: dict[UUID, dict[UUID, int]] = defaultdict(dict)
        self.versions: dict[UUID, int] = defaultdict(int)
        self.away = False
        self.hidden: set[tuple[UUID, int]] = set()
        self.reads = 0
        self.delay_s = 0.0
        self.turns = 0

    def commit(
        self,
        room: UUID,
        type: str = "message.created",  # noqa: A002
        *,
        effect: Effect = NO_EFFECT,
        audience: tuple[UUID, ...] = (),
        text: str = "",
    ) -> Committed:
        seq = len(self.facts[room]) + 1
        body = orjson.dumps(
            {"v": 1, "type": type, "id": uuid7(), "room_id": room, "seq": seq, "data": text}
        )
        fact = Committed(
            client_id=CLIENT,
            room_id=room,
            seq=seq,
            type=type,
            body=body,
            effect=effect,
            audience=audience,
        )
        self.facts[room].append(fact)
        for user in effect.entered:
            self.members[room][user] = seq
            self.versions[user] += 1
        for user in effect.left:
            self.members[room].pop(user, None)
            self.versions[user] += 1
        return fact

    def join(self, room: UUID, *names: str) -> Committed:
        users = tuple(user_id(name) for name in names)
        return self.commit(room, "member.joined", effect=Effect(entered=users), audience=users)

    def leave(self, room: UUID, *names: str) -> Committed:
        users = tuple(user_id(name) for name in names)
        return self.commit(room, "member.left", effect=Effect(left=users), audience=users)

    async def read(self, room_id: UUID, *, after_seq: int, limit: int) -> list[Committed]:
        await self._answer()
        return [
            fact
            for fact in self.facts.get(room_id, [])[after_seq : after_seq + limit]
            if (room_id, fact.seq) not in self.hidden
        ]

    async def heads(self, room_ids: Sequence[UUID]) -> dict[UUID, int]:
        await self._answer()
        return {room: len(self.facts[room]) for room in room_ids if room in self.facts}

    async def subscriptions(self, user_id: UUID) -> Subscriptions:
        found = Subscriptions(
            self.versions[user_id],
            {
                room: Seat(len(self.facts[room]), members[user_id])
                for room, members in self.members.items()
                if user_id in members
            },
        )
        await self._answer()
        return found

    async def changes(self, *, within_s: float) -> Changes:
        await self._answer()
        rooms = {room: len(facts) for room, facts in self.facts.items()}
        return Changes(rooms, dict(self.versions))

    async def _answer(self) -> None:
        self.reads += 1
        if self.away:
            raise ConnectionError("the log is away")
        for _ in range(self.turns):
            await asyncio.sleep(0)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)


class Always:
    """A leader that leads, or never does."""

    def __init__(self, leading: bool = True) -> None:
        self.leading = leading

    async def leads(self) -> bool:
        return self.leading

    async def resign(self) -> None:
        return


class UnknownPersonError(DomainError):
    kind = ErrorKind.UNAUTHENTICATED
    code = "auth.invalid"
    title = "Nobody has this key."


class NamingDoor:
    """A token is a name. Commands: `echo`, `slow`, `crash`, and what a test adds."""

    def __init__(self) -> None:
        self.accepted: list[tuple[str, Any]] = []
        self.ran: list[tuple[str, Any]] = []
        self.commands: dict[str, Any] = {}
        self.passed_on: frozenset[str] = frozenset()
        self.accepting_s = 0.0
        self.fault: Exception | None = None

    async def accept(
        self, namespace: str, handshake: Handshake, auth: object, first: Principal | None
    ) -> Accepted:
        await asyncio.sleep(self.accepting_s)
        if self.fault is not None:
            raise self.fault
        self.accepted.append((namespace, auth))
        token = auth.get("token") if isinstance(auth, dict) else None
        if not token:
            raise Refused(refusal(UnknownPersonError(), "trace"))
        found = principal(token.partition("#")[0])
        if first is not None and first.user_id != found.user_id:
            raise Refused(refusal(UnknownPersonError(), "trace"))
        return Accepted(principal=found)

    async def answer(
        self, principal: Principal, namespace: str, event: str, payload: object
    ) -> bytes:
        self.ran.append((event, payload))
        try:
            known = event in {"echo", "slow", *self.commands}
            if known and not isinstance(payload, dict):
                raise PayloadInvalidError.of("$", "must be one JSON object")
            if event == "echo":
                return orjson.dumps({"ok": True, "data": payload})
            if event == "slow":
                assert isinstance(payload, dict)
                await asyncio.sleep(payload["s"])
                return orjson.dumps({"ok": True, "data": payload})
            if event in self.commands:
                return orjson.dumps({"ok": True, "data": await self.commands[event](payload)})
            raise EventUnknownError
        except DomainError as error:
            return orjson.dumps({"ok": False, "error": refusal(error, "trace")})

    def refuse(self, error: Exception) -> dict[str, Any]:
        if isinstance(error, DomainError):
            return refusal(error, "trace")
        if isinstance(error, ConnectionError):
            return refusal(UnavailableError(), "trace")
        return bug("trace")

    def welcome(self, principal: Principal, session_id: str) -> dict[str, Any]:
        return {"session_id": session_id, "user": {"user_id": principal.external_id}}


class Node:
    """`http` is for clients: python-engineio's own does not always close the one that it makes."""

    def __init__(
        self, realtime: Realtime, door: NamingDoor, url: str, http: aiohttp.ClientSession
    ) -> None:
        self.realtime = realtime
        self.door = door
        self.url = url
        self.http = http


@asynccontextmanager
async def node(
    truth: Truth,
    redis_url: str,
    node_id: str = "a",
    *,
    leads: bool = True,
    heartbeat_s: float = 2.0,
    list_every_s: float = 5.0,
    sharded: bool | None = None,
    furnish: Callable[[web.Application, Realtime, NamingDoor], None] = lambda *_: None,
    **options: Any,
) -> AsyncIterator[Node]:
    door = NamingDoor()
    realtime = Realtime(
        door=door,
        truth=truth,
        leader=Always(leads),
        bus=BusSettings(url=redis_url, key=b"k" * 32, prefix="test", sharded=sharded),
        node_id=node_id,
        views=VIEWS,
        **options,
    )
    realtime.bus._heartbeat_s = heartbeat_s
    realtime.repair._list_every_s = list_every_s
    app = web.Application()
    furnish(app, realtime, door)
    realtime.attach(app)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    await realtime.start()
    async with aiohttp.ClientSession() as http:
        try:
            yield Node(realtime, door, f"http://127.0.0.1:{port}", http)
        finally:
            await realtime.stop(within_s=1)
            await runner.cleanup()


class Person:
    """A stock client in one namespace, and what it has seen."""

    def __init__(self, name: str, namespace: str = "/chat") -> None:
        self.name = name
        self.namespace = namespace
        self.events: list[tuple[str, Any]] = []
        self.client = socketio.AsyncClient(reconnection=False)
        self.client.on("*", self._note, namespace=namespace)

    async def _note(self, event: str, *args: Any) -> None:
        assert len(args) == 1
        self.events.append((event, args[0]))

    async def connect(self, at: Node, *transports: str) -> "Person":
        self.client.eio.http, self.client.eio.external_http = at.http, True
        await self.client.connect(
            at.url,
            auth={"token": self.name},
            namespaces=[self.namespace],
            transports=list(transports or ("websocket",)),
        )
        await until(lambda: any(event == "session.ready" for event, _ in self.events))
        return self

    async def call(self, event: str, payload: Any, timeout: float = 5) -> Any:  # noqa: ASYNC109
        return await self.client.call(event, payload, namespace=self.namespace, timeout=timeout)

    def seqs(self, room: UUID) -> list[int]:
        return [
            fact["seq"]
            for _, fact in self.events
            if fact.get("room_id") == str(room) and "seq" in fact
        ]

    async def leave(self) -> None:
        await self.client.disconnect()


async def until(condition: Any, within_s: float = 5.0) -> None:
    """Wait for something to become true."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)
