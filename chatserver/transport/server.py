"""aiohttp's server, with our limits and our form for what isn't even HTTP."""

from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from chatserver.kernel.errors import DomainError
from chatserver.transport.answers import finish, give_up, refuse
from chatserver.transport.errors import MalformedRequestError
from chatserver.transport.tracing import trace_of

# No access log of aiohttp's (it has queries and headers), no unpacking of what we refuse anyway.
_OPTIONS: Final[dict[str, Any]] = {
    "access_log": None,
    "auto_decompress": False,
    "keepalive_timeout": 75.0,
    "lingering_time": 3.0,
    "max_line_size": 8190,
    "max_field_size": 8190,
}

log = structlog.get_logger()


class Runner(web.AppRunner):
    """Runs an application like `web.AppRunner`; unreadable requests are answered as ours are."""

    def __init__(self, app: web.Application, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(app, **(_OPTIONS | options))

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001 - there is no other way to choose the protocol
        )


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Protocol(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes what was sent
    ) -> web.StreamResponse:
        trace = trace_of({})
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("request_failed", trace_id=trace.trace_id, exc_info=exc)
        else:
            log.info("request_malformed", trace_id=trace.trace_id, reason=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("The answer has begun; nothing can follow it.")
        response = (
            give_up(trace.trace_id)
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR
            else refuse(self._said(status), trace.trace_id)
        )
        finish(response, trace)
        response.force_close()
        return response

    @staticmethod
    def _said(status: int) -> DomainError:
        if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            return MalformedRequestError("The headers are too large.")
        return MalformedRequestError()
