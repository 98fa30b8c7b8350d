"""A local HTTP server that speaks Mailgun's protocol, as far as we do."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass(slots=True)
class MailgunServer:
    """What it took, what it answers, and the events that it tells when asked."""

    url: str = ""
    key: str = "key-right"
    answer: tuple[int, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    # `drop`: takes the mail and goes away; `hang`: takes it and never answers.
    fault: str | None = None
    taken: list[dict[str, bytes]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)

    def _is_known(self, request: web.Request) -> bool:
        pair = base64.b64encode(f"api:{self.key}".encode()).decode()
        return request.headers.get("Authorization") == f"Basic {pair}"

    async def messages(self, request: web.Request) -> web.StreamResponse:
        if not self._is_known(request):
            return web.Response(status=401, text="Forbidden")
        form = await request.post()
        fields: dict[str, bytes] = {}
        for name, value in form.items():
            if isinstance(value, web.FileField):
                with value.file:
                    fields[name] = value.file.read()
            else:
                fields[name] = value.encode() if isinstance(value, str) else bytes(value)
        if self.answer is not None:
            status, body = self.answer
            return web.json_response(body, status=status, headers=self.headers)
        self.taken.append(fields)
        if self.fault == "drop":
            assert request.transport is not None
            request.transport.close()
        if self.fault == "hang":
            await asyncio.sleep(3600)
        return web.json_response({"id": "<42@mg.example.org>", "message": "Queued. Thank you."})

    async def list_events(self, request: web.Request) -> web.StreamResponse:
        if not self._is_known(request):
            return web.Response(status=401, text="Forbidden")
        self.asked.append(dict(request.query))
        return web.json_response({"items": self.events})


@asynccontextmanager
async def mailgun_server() -> AsyncIterator[MailgunServer]:
    made = MailgunServer()
    app = web.Application()
    app.router.add_post("/v3/mg.example.org/messages.mime", made.messages)
    app.router.add_get("/v3/mg.example.org/events", made.list_events)
    server = TestServer(app)
    await server.start_server()
    made.url = str(server.make_url("")).rstrip("/")
    try:
        yield made
    finally:
        await server.close()
