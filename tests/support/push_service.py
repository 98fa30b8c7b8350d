"""A push service and the browsers behind it: takes what is pushed, and refuses on command.

What browsers read is opened by the reference implementation, not by our own code.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import http_ece
import jwt
import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec

from chatserver.infra.web_push import bytes_of, point_of, text_of


@dataclass(slots=True)
class Browser:
    """One subscription. `name` is the end of its endpoint."""

    name: str
    service: "PushService"
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    auth: bytes = field(default_factory=lambda: secrets.token_bytes(16))

    @property
    def endpoint(self) -> str:
        return f"{self.service.url}/push/{self.name}"

    @property
    def subscription(self) -> dict[str, Any]:
        """What `PushSubscription.toJSON()` gives."""
        keys = {"p256dh": text_of(point_of(self.key.public_key())), "auth": text_of(self.auth)}
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": keys}

    def read(self) -> list[dict[str, Any]]:
        """Open what came, as the browser does."""
        return [
            orjson.loads(
                http_ece.decrypt(
                    body, private_key=self.key, auth_secret=self.auth, version="aes128gcm"
                )
            )
            for name, _, body in self.service.taken
            if name == self.name
        ]


@dataclass(slots=True)
class PushService:
    """What it took: (browser, headers, body); what it answers, by browser or to all (`*`)."""

    url: str = ""
    public_key: str = ""
    taken: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def browser(self, name: str) -> Browser:
        return Browser(name, self)

    async def push(self, request: web.Request) -> web.Response:
        """Take a message, unless it is to be refused or is not signed as it must be."""
        name, body = request.match_info["name"], await request.read()
        self.asked.append(name)
        if len(body) > 4096:
            return web.Response(status=413)
        if not self._is_signed(request.headers.get("Authorization", "")):
            return web.Response(status=403)
        if "TTL" not in request.headers:
            return web.Response(status=400)
        status = self.answers.get(name, self.answers.get("*", 201))
        if status == 201:
            self.taken.append((name, dict(request.headers), body))
        return web.Response(status=status, headers=self.headers)

    def _is_signed(self, authorization: str) -> bool:
        scheme, _, rest = authorization.partition(" ")
        members = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
        if scheme != "vapid" or members.get("k") != self.public_key:
            return False
        key = ec.EllipticCurvePublicKey.from_encoded_point(
            ec.SECP256R1(), bytes_of(self.public_key)
        )
        try:
            claims = jwt.decode(members["t"], key, algorithms=["ES256"], audience=self.url)
        except jwt.PyJWTError:
            return False
        return str(claims["sub"]).startswith(("mailto:", "https://"))


@asynccontextmanager
async def push_service() -> AsyncIterator[PushService]:
    """Serve on a free port. `public_key` must be told: it is what browsers subscribed with."""
    made = PushService()
    app = web.Application()
    app.router.add_post("/push/{name}", made.push)
    async with TestServer(app) as server:
        made.url = str(server.make_url("")).rstrip("/")
        yield made
