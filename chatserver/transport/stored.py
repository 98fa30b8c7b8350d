"""Links to the local disk, answered by the server itself: what a presigned URL is to S3."""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from chatserver.infra.storage import ObjectChangedError, ObjectMissingError, disposition
from chatserver.infra.storage_disk import LINK_PATH, DiskStore, Permission
from chatserver.kernel.errors import PayloadInvalidError, RouteNotFoundError
from chatserver.transport.errors import MalformedRequestError, MediaTypeError, SlowBodyError

# A phone on a train sends 32 KiB/s; who sends less for a while holds a connection for nothing.
PART_S: Final = 15.0
LEAST_PER_S: Final = 16 * 1024
SLACK_S: Final = 30.0


class StoredDoor:
    """`PUT` and `GET` of `/storage/{token}`. The token is the only credential."""

    def __init__(self, store: DiskStore) -> None:
        self._store = store

    def attach(self, app: web.Application) -> None:
        path = LINK_PATH + "{token}"
        app.router.add_put(path, self._keep)
        app.router.add_get(path, self._give)

    def _permission(self, request: web.Request, method: str) -> Permission:
        given = self._store.permitted(request.match_info["token"])
        if given is None or given.method != method:
            raise RouteNotFoundError("The link is not right, or has expired.")
        return given

    async def _keep(self, request: web.Request) -> web.Response:
        given = self._permission(request, "PUT")
        if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            raise MediaTypeError("Send the content uncompressed.")
        if request.content_type != given.content_type:
            raise MediaTypeError(f"This link takes {given.content_type}.")
        if request.content_length != given.size:
            raise PayloadInvalidError.of("$", f"this link takes just {given.size} bytes")
        try:
            async with asyncio.timeout(SLACK_S + given.size / LEAST_PER_S):
                await self._store.keep(
                    given.key, _body(request, given.size), sha256=given.sha256, replace=False
                )
        except TimeoutError as error:
            raise SlowBodyError from error
        except ObjectChangedError as error:
            said = "has another checksum, or was uploaded before"
            raise PayloadInvalidError.of("$", said) from error
        except (web.RequestPayloadError, ConnectionError) as error:
            raise MalformedRequestError("The body ends in the middle.") from error
        return web.Response(status=HTTPStatus.OK)

    async def _give(self, request: web.Request) -> web.StreamResponse:
        given = self._permission(request, "GET")
        found = await self._store.stat(given.key)
        if found is None:
            raise RouteNotFoundError("There is no such file any more.")
        response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: given.content_type,
                hdrs.CONTENT_LENGTH: str(found.size),
                hdrs.CONTENT_DISPOSITION: disposition(given.name),
                hdrs.CACHE_CONTROL: "private, no-store",
                "X-Content-Type-Options": "nosniff",
                # Should a browser show it all the same: nothing in it runs or loads.
                "Content-Security-Policy": "default-src 'none'; sandbox",
                "Cross-Origin-Resource-Policy": "cross-origin",
            }
        )
        try:
            chunks = self._store.stream(given.key)
            first = await anext(chunks, b"")
        except ObjectMissingError as error:
            raise RouteNotFoundError("There is no such file any more.") from error
        await response.prepare(request)
        if request.method == hdrs.METH_HEAD:
            await response.write_eof()
            return response
        async with asyncio.timeout(SLACK_S + found.size / LEAST_PER_S):
            await response.write(first)
            async for chunk in chunks:
                await response.write(chunk)
            await response.write_eof()
        return response


async def _body(request: web.Request, size: int) -> AsyncIterator[bytes]:
    left = size
    while True:
        async with asyncio.timeout(PART_S):
            part = await request.content.readany()
        if not part:
            break
        left -= len(part)
        if left < 0:
            raise PayloadInvalidError.of("$", f"this link takes just {size} bytes")
        yield part
    if left:
        raise MalformedRequestError("The body ends in the middle.")
