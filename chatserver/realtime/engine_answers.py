"""What Engine.IO answers over HTTP, word for word as the reference server, and who may ask."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import orjson
from aiohttp import web

Origins: TypeAlias = str | Sequence[str] | Callable[[str], bool] | None

TRANSPORT_UNKNOWN: Final = (0, "Transport unknown")
SESSION_UNKNOWN: Final = (1, "Session ID unknown")
BAD_METHOD: Final = (2, "Bad handshake method")
BAD_REQUEST: Final = (3, "Bad request")
FORBIDDEN: Final = (4, "Forbidden")
BAD_VERSION: Final = (5, "Unsupported protocol version")


def refused(error: tuple[int, str]) -> web.Response:
    code, message = error
    return web.Response(
        status=403 if error is FORBIDDEN else 400,
        body=orjson.dumps({"code": code, "message": message}),
        content_type="application/json",
    )


def payload(body: bytes) -> web.Response:
    """Answer a poll."""
    return web.Response(
        body=body,
        headers={"Content-Type": "text/plain; charset=UTF-8", "Cache-Control": "no-store"},
    )


def taken() -> web.Response:
    """Answer a POST."""
    return web.Response(body=b"ok", content_type="text/html")


class OriginRule:
    """Which pages may connect: `*` all, None the server's own, otherwise a list or a function.

    An empty list allows none. Whoever sends no Origin is no page, and is let in.
    """

    def __init__(self, allowed: Origins, *, credentials: bool = False) -> None:
        self._allowed = [allowed] if isinstance(allowed, str) else allowed
        self._credentials = credentials

    def admits(self, request: web.Request) -> bool:
        origin = request.headers.get("Origin")
        if origin is None:
            return True
        allowed = self._allowed
        if allowed is None:
            return origin == f"{request.scheme}://{request.host}"
        if callable(allowed):
            return bool(allowed(origin))
        return "*" in allowed or origin in allowed

    def describe(self, request: web.Request, response: web.StreamResponse) -> None:
        """Tell a browser that its page may read the answer."""
        origin = request.headers.get("Origin")
        if origin is None or response.prepared:
            return
        headers = response.headers
        headers["Access-Control-Allow-Origin"] = origin
        headers["Vary"] = "Origin"
        if self._credentials:
            headers["Access-Control-Allow-Credentials"] = "true"

    def preflight(self, request: web.Request) -> web.Response:
        response = web.Response(status=204)
        self.describe(request, response)
        response.headers["Access-Control-Allow-Methods"] = "OPTIONS, GET, POST"
        asked = request.headers.get("Access-Control-Request-Headers")
        if asked is not None:
            response.headers["Access-Control-Allow-Headers"] = asked
        return response
