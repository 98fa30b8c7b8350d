"""The Engine.IO server underneath: python-engineio's, with our sockets and no waiting for peers."""

import math
from collections.abc import Awaitable, Callable
from typing import Any, Final

import engineio
import structlog
from aiohttp import web
from engineio import exceptions, packet

from chatserver.realtime.driver import AddressOf, driver, remote_of
from chatserver.realtime.engine_socket import EngineSocket
from chatserver.realtime.queue import OutQueue

log = structlog.get_logger(__name__)

MAX_FRAME: Final = 256 * 1024
DRAINING_RETRY_S: Final = 1


class EngineServer(engineio.AsyncServer):
    """Calls `message`, `violated` and `full`, which whoever stands above it sets."""

    start_service_task: bool
    message: Callable[[str, str | bytes], Any]
    violated: Callable[[str, str], None]
    full: Callable[[str], None]
    admits: Callable[[str], Awaitable[float]]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._async = driver(self.max_http_buffer_size)
        self.draining = False
        self.refused = 0
        self._address_of: AddressOf = remote_of

    def reads_addresses_with(self, address_of: AddressOf) -> None:
        """Believe what our own proxies say of an address, and nobody else."""
        self._address_of = address_of
        self._async = driver(self.max_http_buffer_size, address_of)

    def create_queue(self, *_: Any, **__: Any) -> OutQueue:
        return OutQueue()

    async def handle_request(self, request: web.Request) -> web.StreamResponse:
        if self.draining and "sid" not in request.query:
            return web.Response(
                status=503, text="draining", headers={"Retry-After": str(DRAINING_RETRY_S)}
            )
        if "j" in request.query:  # JSONP: a sid in a script's address
            return web.Response(status=400, text="JSONP is not served")
        if "sid" not in request.query and request.method == "GET":
            retry_after_s = await self.admits(self._address_of(request))
            if retry_after_s:
                return _later(retry_after_s)
        response: web.StreamResponse = await super().handle_request(request)
        return response

    async def refuse(self, environ: dict[str, Any], message: str) -> web.StreamResponse:
        response: web.StreamResponse = await self._make_response(
            self._bad_request(message), environ
        )
        return response

    async def disconnect(self, sid: str | None = None) -> None:
        for socket in list(self.sockets.values()) if sid is None else [self.sockets.get(sid)]:
            if socket is not None:
                await socket.close()
        if sid is not None:
            self.sockets.pop(sid, None)

    async def _handle_connect(
        self, environ: dict[str, Any], transport: str, jsonp_index: int | None = None
    ) -> Any:
        """Do as stock, with our socket: it names its own class and offers no other way."""
        if self.start_service_task:
            self.start_service_task = False
            self.service_task_handle = self.start_background_task(self._service_task)
        sid = self.generate_id()
        socket = EngineSocket(self, sid)
        self.sockets[sid] = socket
        opening = {
            "sid": sid,
            "upgrades": self._upgrades(sid, transport),
            "pingTimeout": int(self.ping_timeout * 1000),
            "pingInterval": int(self.ping_interval * 1000),
            "maxPayload": self.max_http_buffer_size,
        }
        socket.queue.put_nowait(packet.Packet(packet.OPEN, opening))
        await self._trigger_event("connect", sid, environ, run_async=False)
        socket.schedule_ping()
        if transport == "websocket":
            return await socket.handle_get_request(environ)
        socket.connected = True
        try:
            return self._ok(await socket.poll(), jsonp_index=jsonp_index)
        except exceptions.QueueEmpty:
            return self._bad_request()

    def _log_error_once(self, message: str, message_key: str) -> None:  # noqa: ARG002 - stock
        # Stock writes what strangers sent, session ids included, at level ERROR.
        self.refused += 1
        log.debug("engine_request_refused", key=message_key)


def _later(retry_after_s: float) -> web.Response:
    # A page of any origin may read it: it says nothing about anybody.
    headers = {"Retry-After": str(math.ceil(retry_after_s)), "Access-Control-Allow-Origin": "*"}
    return web.Response(status=503, text="Too many connect at once.", headers=headers)
