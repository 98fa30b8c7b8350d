"""A local HTTP server that speaks Mailgun's protocol, as far as we do."""

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from typing import Any, Final

from aiohttp import web
from aiohttp.test_utils import TestServer

# What an event says more of an address that does not exist.
HARD: Final[dict[str, Any]] = {
    "severity": "permanent",
    "reason": "bounce",
    "delivery-status": {"code": 550, "message": "5.1.1 no such user"},
}


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
    # What asking for events is answered with instead.
    events_status: int = 200

    def happened(self, kind: str, *, age_s: float = 0.0, **members: Any) -> None:
        """Let something have become of the last mail that it took."""
        mail = message_from_bytes(self.taken[-1]["message"])
        self.events.append(
            {
                "event": kind,
                "id": secrets.token_hex(8),
                "timestamp": time.time() - age_s,
                "recipient": self.taken[-1]["to"].decode(),
                "message": {"headers": {"message-id": str(mail["Message-ID"]).strip("<>")}},
                "user-variables": {"delivery_id": self.taken[-1]["v:delivery_id"].decode()},
            }
            | members
        )

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
        if self.events_status != 200:
            return web.json_response({"message": "not now"}, status=self.events_status)
        items = self.events
        if (name := request.query.get("message-id")) is not None:
            items = [it for it in items if it["message"]["headers"]["message-id"] == name]
        if (begin := request.query.get("begin")) is not None:
            first = parsedate_to_datetime(begin).timestamp()
            items = [it for it in items if it["timestamp"] >= first]
        limit = int(request.query.get("limit", "100"))
        at = int(request.match_info.get("page", "0"))
        next_page = f"{self.url}/v3/mg.example.org/events/{at + limit}?limit={limit}"
        return web.json_response({"items": items[at : at + limit], "paging": {"next": next_page}})


@asynccontextmanager
async def mailgun_server() -> AsyncIterator[MailgunServer]:
    made = MailgunServer()
    app = web.Application()
    app.router.add_post("/v3/mg.example.org/messages.mime", made.messages)
    app.router.add_get("/v3/mg.example.org/events", made.list_events)
    app.router.add_get("/v3/mg.example.org/events/{page}", made.list_events)
    server = TestServer(app)
    await server.start_server()
    made.url = str(server.make_url("")).rstrip("/")
    try:
        yield made
    finally:
        await server.close()
