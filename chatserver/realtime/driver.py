"""How aiohttp's requests reach the engine: the whole body, and the caller's true address."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from aiohttp import web
from engineio.async_drivers import aiohttp as stock

from chatserver.realtime.ports import Handshake

BODY_S: Final = 10.0


class Body:
    """A request's body that has arrived already; reading it gives all of it."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    async def read(self, _: int = -1) -> bytes:
        return self.content


AddressOf: TypeAlias = Callable[[web.Request], str]


def remote_of(request: web.Request) -> str:
    """Tell the address at the other end of the line, whatever it says of itself."""
    return request.remote or ""


def translator(limit: int, address_of: AddressOf) -> Any:
    """Make the stock driver's `translate_request`, but for bodies that come in pieces."""

    async def translate_request(request: web.Request) -> dict[str, Any]:
        environ: dict[str, Any] = stock.translate_request(request)
        environ["REMOTE_ADDR"] = address_of(request)
        if request.method == "POST":
            body = await _read(request, limit)
            environ["wsgi.input"] = Body(body)
            environ["CONTENT_LENGTH"] = str(len(body))
        return environ

    return translate_request


async def _read(request: web.Request, limit: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=len(body))
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error
    return bytes(body)


def driver(limit: int, address_of: AddressOf = remote_of) -> dict[str, Any]:
    """Give the stock aiohttp driver with our reading of requests."""
    return {**stock._async, "translate_request": translator(limit, address_of)}


def handshake_of(environ: dict[str, Any]) -> Handshake:
    """Give what a peer said of itself when it opened its connection."""
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    return Handshake(headers, environ["REMOTE_ADDR"], headers.get("origin"))
