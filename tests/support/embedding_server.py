"""An endpoint that speaks OpenAI's embeddings, with the manners that such endpoints have."""

from dataclasses import dataclass, field
from typing import Any, Self

import orjson
from aiohttp import web

from tests.support.documents import WordVectors


@dataclass
class EmbeddingServer:
    """Listens on a free port. `failures` are statuses that are answered first, one a request."""

    dimension: int = 32
    failures: list[int] = field(default_factory=list)
    # Whether `dimensions` is known; many servers refuse it.
    shortens: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    url: str = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/embeddings", self._embed)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _embed(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        self.requests.append(asked)
        self.keys.append(request.headers.get("Authorization", ""))
        if self.failures:
            status = self.failures.pop(0)
            return web.json_response({"error": {}}, status=status, headers={"Retry-After": "0"})
        if "dimensions" in asked and not self.shortens:
            return web.json_response({"error": {"message": "unknown field"}}, status=400)
        vectors = WordVectors()
        vectors.dimension = asked.get("dimensions", self.dimension)
        rows = await vectors.embed(asked["input"])
        data = [
            {"object": "embedding", "index": place, "embedding": (row * 3).tolist()}
            for place, row in enumerate(rows)
        ]
        # In any order: `index` says which is which.
        body = {"object": "list", "data": data[::-1], "model": asked["model"], "usage": {}}
        return web.Response(body=orjson.dumps(body), content_type="application/json")
