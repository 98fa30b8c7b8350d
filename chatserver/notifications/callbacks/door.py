"""The way in for mail providers: `POST /callbacks/{provider_id}`, outside of the API's prefix.

Nobody logs in here; what comes is signed, or refused.
"""

from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

import orjson
from aiohttp import web

from chatserver.kernel.opening import Open
from chatserver.notifications.callbacks.errors import CallbackRefusedError
from chatserver.notifications.callbacks.service import CallbackService
from chatserver.transport.answers import json_answer
from chatserver.transport.bodies import read_bytes

PATH: Final = "/callbacks/{provider_id}"
MAX_BODY: Final = 256 * 1024


class CallbackDoor:
    """`lost` is told of a delivery that turned out not to have arrived."""

    def __init__(
        self, callbacks: Open[CallbackService], lost: Callable[[UUID], Awaitable[object]]
    ) -> None:
        self._callbacks = callbacks
        self._lost = lost

    def attach(self, app: web.Application) -> None:
        app.router.add_post(PATH, self.answer)

    async def answer(self, request: web.Request) -> web.Response:
        """Take an event; 200 says that it is committed, now or before (`duplicate`).

        Raises:
            CallbackRefusedError, CallbackHopelessError, UnavailableError
        """
        try:
            provider_id = UUID(request.match_info["provider_id"])
            body = orjson.loads(await read_bytes(request, most=MAX_BODY))
        except ValueError as error:
            raise CallbackRefusedError from error
        async with self._callbacks() as callbacks:
            told = await callbacks.take(provider_id, body)
        if told.is_lost and told.delivery_id is not None:
            await self._lost(told.delivery_id)
        said = {"duplicate": told.duplicate, "known": told.delivery_id is not None}
        return json_answer(orjson.dumps(said))
