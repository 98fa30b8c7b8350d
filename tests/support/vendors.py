"""Somebody who sends webhooks to an inbound source, over HTTP as vendors do."""

import base64
import hmac
import secrets
from typing import Any

import orjson

from tests.support.clients import Answer, Api

PASSWORD = "shop:open sesame"
BASIC_SOURCE: dict[str, Any] = {
    "scheme": "basic",
    "secrets": [PASSWORD, "shop:another one"],
    "dedupe": {"header": "x-id"},
}


class Vendor:
    """Sends to `/webhooks/{client_slug}/{slug}`; `api` only says where the server is."""

    def __init__(self, api: Api, client_slug: str, slug: str) -> None:
        self._api = api
        self.path = f"/webhooks/{client_slug}/{slug}"

    async def send(self, body: bytes, headers: dict[str, str]) -> Answer:
        async with self._api._session.post(
            self._api._url + self.path, data=body, headers=headers
        ) as answer:
            said = orjson.loads(await answer.read())
            return Answer(answer.status, said, dict(answer.headers))

    async def basic(self, payload: Any, *, name: str | None = None) -> Answer:
        password = base64.b64encode(PASSWORD.encode()).decode()
        return await self.send(
            orjson.dumps(payload),
            {
                "Authorization": f"Basic {password}",
                "Content-Type": "application/json",
                "X-Id": name or secrets.token_hex(8),
            },
        )

    async def github(self, secret: str, event: str, payload: Any, *, name: str = "") -> Answer:
        body = orjson.dumps(payload)
        return await self.send(
            body,
            {
                "Content-Type": "application/json",
                "X-GitHub-Delivery": name or secrets.token_hex(8),
                "X-GitHub-Event": event,
                "X-Hub-Signature-256": f"sha256={_mac(secret, body).hex()}",
            },
        )

    async def shopify(self, secret: str, topic: str, payload: Any, *, name: str = "") -> Answer:
        body = orjson.dumps(payload)
        return await self.send(
            body,
            {
                "Content-Type": "application/json",
                "X-Shopify-Topic": topic,
                "X-Shopify-Webhook-Id": name or secrets.token_hex(8),
                "X-Shopify-Hmac-Sha256": base64.b64encode(_mac(secret, body)).decode(),
            },
        )


def _mac(secret: str, body: bytes) -> bytes:
    return hmac.digest(secret.encode(), body, "sha256")
