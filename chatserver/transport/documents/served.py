"""Serves `/openapi.json` and `/asyncapi.json`, written once, at start, and the pages about them."""

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
    app.router.add_get("/openapi.json", _serving(openapi(registry)))
    app.router.add_get("/asyncapi.json", _serving(asyncapi(registry)))
    Pages(lambda: asyncapi(registry)).attach(app)


def _serving(document: dict[str, Any]) -> Handler:
    body = orjson.dumps(document)
    tag = hashlib.sha256(body).hexdigest()[:32]

    async def serve(request: web.Request) -> web.Response:
        request[QUIET] = True
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
