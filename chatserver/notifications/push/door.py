"""`GET /push/vapid-key`: what a browser needs to subscribe, for everybody."""

from typing import Final

from aiohttp import web

from chatserver.notifications.push.service import PushKeys

PATH: Final = "/push/vapid-key"


class VapidDoor:
    def __init__(self, keys: PushKeys) -> None:
        self._keys = keys

    def attach(self, app: web.Application) -> None:
        app.router.add_get(PATH, self.show)

    async def show(self, _: web.Request) -> web.Response:
        """Give the public key: the `applicationServerKey` of `PushManager.subscribe()`.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        return web.json_response(
            {"public_key": await self._keys.public_key()},
            headers={"Cache-Control": "public, max-age=3600"},
        )
