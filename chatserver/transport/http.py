"""The REST door: finds the operation of a route, asks the registry, and says what came of it."""

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import orjson
import structlog
from aiohttp import hdrs, web

from chatserver.infra.audit import ADDRESS
from chatserver.kernel.errors import (
    ErrorKind,
    PayloadInvalidError,
)
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import (
    Answer,
    EventStream,
    Followed,
    Lines,
    Request,
    UploadedFile,
    UploadRequest,
)
from chatserver.transport import bodies, idempotency, uploads
from chatserver.transport.answers import (
    EVENTS,
    OPERATION,
    PRINCIPAL,
    TOLD,
    TRACE,
    events_answer,
    json_answer,
    lines_answer,
)
from chatserver.transport.credentials import (
    Identify,
    Network,
    Sender,
    caller_of,
    check_origin,
    refuse_key_in_query,
    token_of,
)
from chatserver.transport.limits import Gate, Told
from chatserver.transport.registry import Operation, Registry, Route, admit, parse, run

PREFIX: Final = "/api/v1"
# These take their values from the query, the others from the body.
QUERY_METHODS: Final = frozenset({"GET", "DELETE"})

# What follows on the (JSON) answer of an operation that is `Followed`.
Follow: TypeAlias = Callable[[Principal, dict[str, Any]], Awaitable[EventStream]]


class RestDoor:
    """All routes of a registry, under `/api/v1`."""

    def __init__(
        self,
        registry: Registry,
        *,
        identify: Identify,
        store: idempotency.Store,
        trusted_proxies: Sequence[Network] = (),
        gate: Gate | None = None,
        follow: Follow | None = None,
    ) -> None:
        self.follow = follow
        self._registry = registry
        self._identify = identify
        self._store = store
        self._trusted_proxies = trusted_proxies
        self._gate = gate

    def attach(self, app: web.Application) -> None:
        """Add the routes. Fixed paths come first: `/rooms/all` is no room called `all`."""
        for route in sorted(self._registry.routes, key=_specific_first):
            entry = _Entry(self, route, self._registry.operations[route.operation])
            path = PREFIX + route.path
            if route.method == hdrs.METH_GET:
                app.router.add_get(path, entry.answer, expect_handler=_go_on)
            else:
                app.router.add_route(route.method, path, entry.answer, expect_handler=_go_on)

    async def admitted(self, request: web.Request, operation: Operation) -> Principal:
        """Tell who asks, and that he may."""
        sender = Sender(
            address=caller_of(request, self._trusted_proxies),
            origin=request.headers.get(hdrs.ORIGIN),
            client_slug=request.headers.get("X-Client"),
        )
        ADDRESS.set(sender.address)
        principal = await self._identify(token_of(request), sender)
        request[PRINCIPAL] = principal
        structlog.contextvars.bind_contextvars(client=principal.client_slug)
        if self._gate is not None:
            await self._count(self._gate, request, principal, operation)
        check_origin(principal, sender.origin)
        admit(operation, principal)
        return principal

    @staticmethod
    async def _count(
        gate: Gate, request: web.Request, principal: Principal, operation: Operation
    ) -> None:
        await gate.book.load(principal.client_id)
        buckets = gate.buckets(principal, "requests", operation.name)
        request[TOLD] = Told(lambda: gate.levels(buckets))
        await gate.spend(principal, buckets, operation.name)

    async def once(
        self,
        request: web.Request,
        principal: Principal,
        sent: dict[str, Any],
        entry: "_Entry",
        files: tuple[UploadedFile, ...] = (),
        *,
        as_text: bool = False,
    ) -> web.Response:
        """Run an operation; with an `Idempotency-Key` only if its key is new."""
        asked = entry.parsed(request.match_info, sent, as_text=as_text)
        if isinstance(asked, UploadRequest):
            asked = asked.with_files(files)
            # What was sent under a key is the content, too.
            sent = sent | {"files": [[each.name, each.sha256.hex()] for each in files]}
        key = idempotency.key_of(request)
        if key is None:
            return await entry.run(principal, asked)
        use = idempotency.use_of(
            principal, key, method=request.method, path=request.path, sent=sent
        )
        return await idempotency.once(
            self._store, use, request[TRACE].trace_id, lambda: entry.run(principal, asked)
        )


class _Entry:
    """One route and the operation behind it."""

    def __init__(self, door: RestDoor, route: Route, operation: Operation) -> None:
        self._door = door
        self._route = route
        self._operation = operation
        self._as_text = route.method in QUERY_METHODS
        self._takes_files = issubclass(operation.request, UploadRequest)
        self._known = frozenset(operation.request.model_fields) if self._as_text else frozenset()
        self._missing = next(
            (error for error in operation.errors if error.kind is ErrorKind.NOT_FOUND),
            None,
        )

    async def answer(self, request: web.Request) -> web.Response:
        request[OPERATION] = self._operation.name
        refuse_key_in_query(request, self._known)
        principal = await self._door.admitted(request, self._operation)
        if self._takes_files and request.content_type == uploads.FORM:
            async with uploads.read_form(request) as (sent, files):
                _refuse_doubles(request, sent)
                return await self._door.once(request, principal, sent, self, files)
        # Members of a DELETE may stand in a JSON body instead: some are too long for an address.
        as_text = self._as_text and not (
            request.method == hdrs.METH_DELETE and request.can_read_body
        )
        sent = await self._sent(request, as_text=as_text)
        response = await self._door.once(request, principal, sent, self, as_text=as_text)
        return await self._followed(request, principal, response)

    async def _followed(
        self, request: web.Request, principal: Principal, response: web.Response
    ) -> web.Response:
        """Go on with server-sent events for whoever asks for them; also when it is a repeat."""
        follow = self._door.follow
        if (
            follow is None
            or not issubclass(self._operation.response, Followed)
            or EVENTS not in request.headers.get(hdrs.ACCEPT, "")
            or response.status >= HTTPStatus.BAD_REQUEST
            or not isinstance(response.body, bytes)
        ):
            return response
        said = orjson.loads(response.body)
        if said.get("message_id") is None:
            return response
        return events_answer(await follow(principal, said))

    async def _sent(self, request: web.Request, *, as_text: bool) -> dict[str, Any]:
        query = bodies.read_query(request)
        if as_text:
            await bodies.refuse_body(request)
            sent: dict[str, Any] = dict(query)
        else:
            for name in query:
                raise PayloadInvalidError.of(bodies.printable(name), "is not taken from the query")
            sent = await bodies.read_object(request)
        _refuse_doubles(request, sent)
        return sent

    def parsed(self, members: dict[str, str], sent: dict[str, Any], *, as_text: bool) -> Request:
        """Check what was sent; an id in the path that can't be one names nothing: not found."""
        try:
            return parse(self._operation.request, sent | dict(members), as_text=as_text)
        except PayloadInvalidError as error:
            wrong = {issue["field"].partition(".")[0] for issue in error.issues}
            if wrong.isdisjoint(members) or self._missing is None:
                raise
            raise self._missing from None

    async def run(self, principal: Principal, asked: Request) -> web.Response:
        given = await run(self._operation, principal, asked)
        if isinstance(given, EventStream):
            return events_answer(given)
        if isinstance(given, Lines):
            return lines_answer(given)
        return json_answer(given.as_json(), self._status(given))

    def _status(self, given: Answer) -> int:
        if self._route.status == HTTPStatus.CREATED and given.is_repeat:
            return HTTPStatus.OK
        if (
            self._route.status == HTTPStatus.ACCEPTED
            and isinstance(given, Followed)
            and not given.goes_on
        ):
            return HTTPStatus.CREATED
        return self._route.status


def _refuse_doubles(request: web.Request, sent: dict[str, Any]) -> None:
    for name in request.match_info:
        if name in sent:
            raise PayloadInvalidError.of(name, "stands in the path already")


async def _go_on(request: web.Request) -> None:
    # An expectation that we don't know may be ignored; aiohttp would answer 417 in plain text.
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # it does not belong to the answer


def _specific_first(route: Route) -> tuple[list[bool], str]:
    # aiohttp makes one resource only of routes that are added one after the other.
    return [part.startswith("{") for part in route.path.split("/")], route.path
