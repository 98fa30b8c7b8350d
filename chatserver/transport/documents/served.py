"""Serves `/openapi.json`, `/asyncapi.json`, written when somebody first asks, and their pages."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import orjson
from aiohttp import hdrs, web

from chatserver.transport.answers import QUIET, json_answer
from chatserver.transport.documents.asyncapi import asyncapi
from chatserver.transport.documents.openapi import openapi
from chatserver.transport.documents.pages import Pages
from chatserver.transport.registry import Registry

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.Response]]


def attach(app: web.Application, registry: Registry) -> None:
    """Add the paths of documents and pages; the registry must be complete by now."""
    app.router.add_get("/openapi.json", _serving(lambda: openapi(registry)))
    app.router.add_get("/asyncapi.json", _serving(lambda: asyncapi(registry)))
    Pages(lambda: asyncapi(registry)).attach(app)


def _serving(describe: Callable[[], dict[str, Any]]) -> Handler:
    writing: asyncio.Task[tuple[bytes, str]] | None = None

    def write() -> tuple[bytes, str]:
        body = orjson.dumps(describe())
        return body, hashlib.sha256(body).hexdigest()[:32]

    async def serve(request: web.Request) -> web.Response:
        nonlocal writing
        request[QUIET] = True
        if writing is None:
            # Half a second of work, which a start should not wait for, nor a busy loop.
            writing = asyncio.create_task(asyncio.to_thread(write))
        body, tag = await asyncio.shield(writing)
        known = request.if_none_match or ()
        if any(each.value in {tag, "*"} for each in known):
            response = web.Response(status=304)
        else:
            response = json_answer(body)
        response.etag = tag
        # Callers may keep it but must ask whether it is still the same.
        response.headers[hdrs.CACHE_CONTROL] = "no-cache"
        return response

    return serve
