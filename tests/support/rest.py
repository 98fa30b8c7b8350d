"""A small REST door of example operations, and a way to talk to it byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import aiohttp
from aiohttp import web
from pydantic import BaseModel, Field

from chatserver.infra.idempotency import Held, Kept, KeyUse
from chatserver.kernel.errors import (
    DomainError,
    ErrorKind,
    RateLimitedError,
    UnavailableError,
)
from chatserver.kernel.paging import Page, PageRequest
from chatserver.kernel.principal import Caller, Principal, Scope
from chatserver.kernel.wire import Answer, Empty, ExternalId, Id, Request, ShortText
from chatserver.transport import cors
from chatserver.transport.answers import answers
from chatserver.transport.credentials import Sender
from chatserver.transport.documents import served
from chatserver.transport.http import RestDoor
from chatserver.transport.idempotency import Store
from chatserver.transport.registry import (
    MASTER,
    OPERATOR,
    FactSpec,
    Registry,
    Route,
    operation,
)
from chatserver.transport.server import Runner

CLIENT = UUID("019a9c1e-0000-7000-8000-00000000000c")
SOME_ID = "019a9c1e-0000-7000-8000-000000000001"


class KeyMissingError(DomainError):
    """No key was sent."""

    kind = ErrorKind.UNAUTHENTICATED
    code = "example.key_missing"
    title = "Send a key."


class BoxNotFoundError(DomainError):
    """There is no such box, or it belongs to somebody else."""

    kind = ErrorKind.NOT_FOUND
    code = "example.not_found"
    title = "There is no such box."


class BoxFullError(DomainError):
    kind = ErrorKind.CONFLICT
    code = "example.full"
    title = "The box is full."


class BoxRef(Request):
    box_id: Id


class ListBoxes(PageRequest):
    colour: ShortText | None = Field(default=None, description="Only boxes of this | that colour.")
    is_open: bool | None = None


class MakeBox(Request):
    """A new box."""

    name: ShortText
    owner: ExternalId | None = None
    things: tuple[str, ...] = Field(default=(), strict=False)


class ChangeBox(Request):
    box_id: Id
    name: ShortText | None = None


class PutThing(Request):
    box_id: Id
    thing: ExternalId
    count: int = Field(default=1, ge=1, le=9)


class Box(Answer):
    id: UUID
    name: str


class MadeBox(Answer):
    box: Box
    was_there: bool

    @property
    def is_repeat(self) -> bool:
        return self.was_there


class BoxFact(BaseModel):
    box: Box


@dataclass
class Boxes:
    """The example's service: `fails` is raised by the next call, `gate` holds it back."""

    made: list[str] = field(default_factory=list)
    callers: list[Principal] = field(default_factory=list)
    fails: BaseException | None = None
    gate: asyncio.Event | None = None

    @operation("box.make", MakeBox, MadeBox, scope=Scope.ROOMS_WRITE, errors=(BoxFullError,))
    async def make(self, principal: Principal, request: MakeBox) -> MadeBox:
        """Make a box.

        A box of the same name is answered as it is.
        """
        self.callers.append(principal)
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        was_there = request.name in self.made
        self.made.append(request.name)
        return MadeBox(box=Box(id=UUID(SOME_ID), name=request.name), was_there=was_there)

    @operation("box.list", ListBoxes, Page[Box], scope=Scope.ROOMS_READ)
    async def list_boxes(self, principal: Principal, request: ListBoxes) -> Page[Box]:
        """List boxes."""
        name = f"{request.colour}/{request.is_open}"
        return Page.of([Box(id=UUID(SOME_ID), name=name)], request, 1)

    @operation("box.all", PageRequest, Page[Box], callers=MASTER)
    async def list_all(self, principal: Principal, request: PageRequest) -> Page[Box]:
        """List every box."""
        return Page.of([], request, 0)

    @operation("box.get", BoxRef, Box, errors=(BoxNotFoundError,))
    async def get(self, principal: Principal, request: BoxRef) -> Box:
        """Show a box."""
        if self.fails is not None:
            raise self.fails
        if str(request.box_id) != SOME_ID:
            raise BoxNotFoundError
        return Box(id=request.box_id, name="found")

    @operation("box.change", ChangeBox, Box, errors=(BoxNotFoundError,))
    async def change(self, principal: Principal, request: ChangeBox) -> Box:
        """Rename a box."""
        self.made.append(request.name or "")
        return Box(id=request.box_id, name=request.name or "unchanged")

    @operation("box.put", PutThing, Box, errors=(BoxNotFoundError,))
    async def put(self, principal: Principal, request: PutThing) -> Box:
        """Put a thing into a box."""
        return Box(id=request.box_id, name=f"{request.count} {request.thing}")

    @operation("box.drop", BoxRef, Empty, errors=(BoxNotFoundError,))
    async def drop(self, principal: Principal, request: BoxRef) -> Empty:
        """Throw a box away."""
        self.made.clear()
        return Empty()

    @operation("box.count", Request, Empty, callers=OPERATOR)
    async def count(self, principal: Principal, request: Request) -> Empty:
        """Do nothing, for the operator."""
        self.callers.append(principal)
        return Empty()


_BOX = "/boxes/{box_id}"
ROUTES = (
    Route(method="GET", path=_BOX, operation="box.get"),
    Route(method="POST", path="/boxes", operation="box.make", status=201),
    Route(method="GET", path="/boxes", operation="box.list"),
    Route(method="GET", path="/boxes/all", operation="box.all"),
    Route(method="PATCH", path=_BOX, operation="box.change"),
    Route(method="DELETE", path=_BOX, operation="box.drop"),
    Route(method="PUT", path=_BOX + "/things/{thing}", operation="box.put"),
    Route(method="POST", path="/count", operation="box.count"),
)
FACTS = (
    FactSpec(
        "box.made", ("/boxes", "/shelves"), BoxFact, sequenced=True, summary="A box was made."
    ),
    FactSpec("box.shaken", ("/shelves",), BoxFact, sequenced=False, summary="A box was shaken."),
    FactSpec("box.hello", ("/boxes",), Box, sequenced=False, summary="Hello.", enveloped=False),
)


def example_registry(boxes: Boxes | None = None) -> Registry:
    registry = Registry(auth_errors=(KeyMissingError,))
    registry.add(boxes or Boxes(), namespaces=("/boxes",), routes=ROUTES)
    registry.add_facts(*FACTS)
    return registry


PRINCIPALS = {
    "operator": Principal(caller=Caller.OPERATOR),
    "master": Principal(caller=Caller.MASTER, client_id=CLIENT, client_slug="acme"),
    "alice": Principal(
        caller=Caller.USER,
        client_id=CLIENT,
        client_slug="acme",
        external_id="alice",
        scopes=frozenset(Scope),
    ),
    "alice2": Principal(
        caller=Caller.USER,
        client_id=CLIENT,
        client_slug="acme",
        external_id="alice",
        kid="another",
        scopes=frozenset(Scope),
    ),
    "bob": Principal(
        caller=Caller.USER,
        client_id=CLIENT,
        client_slug="acme",
        external_id="bob",
        scopes=frozenset({Scope.ROOMS_READ}),
    ),
    "browser": Principal(
        caller=Caller.MASTER,
        client_id=CLIENT,
        client_slug="acme",
        origins=("https://app.example",),
    ),
}


@dataclass
class KnownCallers:
    """Knows the example callers by name: the token is the name."""

    senders: list[Sender] = field(default_factory=list)

    async def __call__(self, token: str | None, sender: Sender) -> Principal:
        self.senders.append(sender)
        if token == "down":
            raise UnavailableError
        if token == "flood":
            raise RateLimitedError(retry_after_ms=1500)
        if token not in PRINCIPALS:
            raise KeyMissingError
        return PRINCIPALS[token]


class KeptInMemory:
    """A `Store` that keeps nothing: for tests that send no key."""

    async def begin(self, use: KeyUse) -> Held | Kept:
        raise UnavailableError

    async def keep(self, held: Held, status: int, body: bytes) -> None: ...

    async def release(self, held: Held) -> None: ...


@dataclass
class Door:
    """A running server of the example."""

    boxes: Boxes
    callers: KnownCallers
    http: aiohttp.ClientSession
    host: str
    port: int

    async def ask(
        self, method: str, path: str, who: str | None = "alice", **more: Any
    ) -> tuple[int, Any, "aiohttp.ClientResponse"]:
        """Give status, JSON and the whole response."""
        headers = dict(more.pop("headers", {}))
        if who is not None:
            headers.setdefault("Authorization", f"Bearer {who}")
        async with self.http.request(method, path, headers=headers, **more) as response:
            body = await response.json(content_type=None) if await response.read() else None
            return response.status, body, response

    async def send_raw(self, *parts: bytes, wait_s: float = 5.0) -> bytes:
        """Send bytes as they are, with pauses; everything that comes until the server closes."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.1)
            async with asyncio.timeout(wait_s):
                return await reader.read()
        finally:
            writer.close()


Attach = Callable[[web.Application], None]


@asynccontextmanager
async def running(
    *,
    store: Store | None = None,
    origins: tuple[str, ...] = ("*",),
    attach: Attach | None = None,
    bypass: tuple[str, ...] = (),
) -> AsyncIterator[Door]:
    """Serve the example on a free port, as the program serves the real thing."""
    boxes, callers = Boxes(), KnownCallers()
    registry = example_registry(boxes)
    app = web.Application(middlewares=[answers(bypass=bypass)])
    RestDoor(registry, identify=callers, store=store or KeptInMemory()).attach(app)
    served.attach(app, registry)
    if attach is not None:
        attach(app)
    cors.allow(app, origins)
    runner = Runner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        async with aiohttp.ClientSession(f"http://{host}:{port}") as http:
            yield Door(boxes, callers, http, host, port)
    finally:
        await runner.cleanup()
