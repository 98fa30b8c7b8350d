"""The outermost layer of the HTTP door: every request gets an answer of ours, and a log line."""

import math
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, TypeAlias

import orjson
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from chatserver.infra import tracing
from chatserver.infra.token_buckets import Level
from chatserver.kernel.errors import (
    DomainError,
    MethodNotAllowedError,
    PayloadTooLargeError,
    RouteNotFoundError,
)
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import EventStream, Lines, Table
from chatserver.transport import refusals
from chatserver.transport.errors import (
    MalformedRequestError,
    MediaTypeError,
    OriginRefusedError,
    SlowBodyError,
)
from chatserver.transport.limits import Told, limit_field, policy_field
from chatserver.transport.tracing import Trace, parent_of, trace_of

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

TRACE: Final = web.RequestKey("trace", Trace)
Standing: TypeAlias = Callable[[web.Request], list[Level]]
# Told of each answer: the operation, the status, and how many seconds it took.
Measured: TypeAlias = Callable[[str, int, float], None]
# What is left to the caller, told when the answer is written.
TOLD: Final = web.RequestKey("told", Told)
PRINCIPAL: Final = web.RequestKey("principal", Principal)
# What a request came to, named as in the documents.
OPERATION: Final = web.RequestKey("operation", str)
# Set by handlers that balancers and probes call all day.
QUIET: Final = web.RequestKey("quiet", bool)

PROBLEM: Final = "application/problem+json"
LINES: Final = "application/x-ndjson"
TABLE: Final = "text/csv"
EVENTS: Final = "text/event-stream"
_OF_STATUS: Final[dict[int, type[DomainError]]] = {
    HTTPStatus.FORBIDDEN: OriginRefusedError,  # only aiohttp-cors says it
    HTTPStatus.NOT_FOUND: RouteNotFoundError,
    HTTPStatus.METHOD_NOT_ALLOWED: MethodNotAllowedError,
    HTTPStatus.REQUEST_TIMEOUT: SlowBodyError,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: PayloadTooLargeError,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: MediaTypeError,
}

log = structlog.get_logger()


def json_answer(body: bytes, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def lines_answer(lines: Lines) -> web.Response:
    """Answer one JSON object a line, sent while it is read. A broken one ends without its end."""
    if isinstance(lines, Table):
        return web.Response(body=aiter(lines), content_type=TABLE, charset="utf-8")
    return web.Response(body=aiter(lines), content_type=LINES)


def events_answer(events: EventStream) -> web.Response:
    """Answer with server-sent events; nothing on the way may gather them."""
    headers = {hdrs.CACHE_CONTROL: "no-cache", "X-Accel-Buffering": "no"}
    return web.Response(body=aiter(events), content_type=EVENTS, headers=headers)


def refuse(error: DomainError, trace_id: str) -> web.Response:
    """Answer a refusal as `application/problem+json`, with the headers that belong to it."""
    return _problem(refusals.problem(refusals.refusal(error, trace_id), error.title))


def give_up(trace_id: str) -> web.Response:
    """Answer that something broke here; the caller must have logged it."""
    return _problem(refusals.problem(refusals.bug(trace_id), "Internal error."))


def answers(
    *,
    bypass: tuple[str, ...] = (),
    standing: Standing | None = None,
    measured: Measured = lambda _, __, ___: None,
) -> Middleware:
    """Make the middleware. Paths that begin with one of `bypass` answer for themselves.

    `standing` tells the limits of a caller of whom no more is known than his address.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        if bypass and request.path.startswith(bypass):
            return await handler(request)
        traced = tracing.span("request", parent=parent_of(request.headers), kind="server")
        trace = request[TRACE] = trace_of(request.headers, traced.trace_id)
        started = time.monotonic()
        with (
            structlog.contextvars.bound_contextvars(
                request_id=trace.request_id, trace_id=trace.trace_id
            ),
            traced as span,
        ):
            response = await _answered(request, handler, trace.trace_id)
            finish(response, trace)
            _tell_limits(request, response, standing)
            took_s = time.monotonic() - started
            operation = request.get(OPERATION, "")
            measured(operation, response.status, took_s)
            span.rename(operation or "request")
            span.tell(status=response.status)
            if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                span.fails(str(response.status))
            _log(request, response.status, took_s)
        return response

    return answer


async def _answered(request: web.Request, handler: Handler, trace_id: str) -> web.StreamResponse:
    try:
        return await handler(request)
    except DomainError as error:
        return refuse(error, trace_id)
    except web.HTTPException as error:
        return _translated(request, error, trace_id)
    except Exception:
        log.exception("request_failed")
        return give_up(trace_id)


def _translated(request: web.Request, error: web.HTTPException, trace_id: str) -> web.Response:
    if error.status == HTTPStatus.FORBIDDEN and _is_plain_question(request):
        return web.Response(status=HTTPStatus.NO_CONTENT, headers={hdrs.ALLOW: _methods(request)})
    # What aiohttp and aiohttp-cors say by themselves; their texts quote the request.
    if error.status < HTTPStatus.BAD_REQUEST:
        raise error
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("request_failed", exc_info=error)
        return give_up(trace_id)
    response = refuse(_OF_STATUS.get(error.status, MalformedRequestError)(), trace_id)
    if isinstance(error, web.HTTPMethodNotAllowed):
        response.headers[hdrs.ALLOW] = ", ".join(sorted(error.allowed_methods))
    return response


def _is_plain_question(request: web.Request) -> bool:
    """OPTIONS as HTTP has it: not a browser's preflight, which is all that aiohttp-cors knows."""
    asked = hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers and hdrs.ORIGIN in request.headers
    return request.method == hdrs.METH_OPTIONS and not asked


def _methods(request: web.Request) -> str:
    return ", ".join(sorted({route.method for route in request.match_info.route.resource or ()}))


def _problem(said: dict[str, Any]) -> web.Response:
    response = web.Response(body=orjson.dumps(said), status=said["status"], content_type=PROBLEM)
    if said["retry_after_ms"] is not None:
        response.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(said["retry_after_ms"] / 1000)))
    if response.status == HTTPStatus.UNAUTHORIZED:
        response.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="chatserver"'
    return response


def finish(response: web.StreamResponse, trace: Trace) -> None:
    """Set the headers that every answer has."""
    if response.prepared:
        return  # a stream or an upgrade has sent its headers already
    response.headers[hdrs.SERVER] = "chatserver"
    response.headers["X-Request-Id"] = trace.request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")


def _tell_limits(
    request: web.Request, response: web.StreamResponse, standing: Standing | None
) -> None:
    if standing is None or response.prepared or request.get(QUIET):
        return
    told = request.get(TOLD)
    levels = standing(request) if told is None else told.levels()
    response.headers["RateLimit-Policy"] = policy_field(levels)
    response.headers["RateLimit"] = limit_field(levels)


def _log(request: web.Request, status: int, seconds: float) -> None:
    # The pattern and not the path: neither ids nor queries belong into a log.
    resource = request.match_info.route.resource
    principal = request.get(PRINCIPAL)
    write = log.debug if request.get(QUIET) and status < HTTPStatus.BAD_REQUEST else log.info
    write(
        "http_request",
        method=request.method,
        route=resource.canonical if resource is not None else None,
        status=status,
        ms=round(seconds * 1000, 1),
        client=principal.client_slug if principal is not None else None,
    )
