"""What stands outside and is told of us: a collector of OpenTelemetry, and one of Sentry."""

import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Told:
    """A span as it came."""

    name: str
    trace: str
    id: str
    parent: str
    service: str
    attributes: dict[str, Any]
    is_error: bool
    took_s: float


@dataclass
class Collector:
    """Keeps all that it is sent; `raw` as bytes, for whoever looks for what must not be there."""

    url: str = ""
    spans: list[Told] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    @property
    def dsn(self) -> str:
        return self.url.replace("http://", "http://public@") + "/1"

    def named(self, name: str) -> list[Told]:
        return [span for span in self.spans if span.name == name]

    def of_trace(self, trace: str) -> list[Told]:
        return [span for span in self.spans if span.trace == trace]

    async def take_traces(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        self.raw.append(body)
        sent = ExportTraceServiceRequest.FromString(body)
        for resource in sent.resource_spans:
            of_process = {each.key: _value(each.value) for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Told(
                            name=span.name,
                            trace=span.trace_id.hex(),
                            id=span.span_id.hex(),
                            parent=span.parent_span_id.hex(),
                            service=str(of_process["service.name"]),
                            attributes={it.key: _value(it.value) for it in span.attributes},
                            is_error=span.status.code == 2,
                            took_s=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                        )
                    )
        return web.Response(body=b"", content_type="application/x-protobuf")

    async def take_envelope(self, request: web.Request) -> web.Response:
        body = await request.read()
        encoding = request.headers.get("Content-Encoding")
        if encoding == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        elif encoding == "deflate":
            body = zlib.decompress(body)
        self.raw.append(body)
        # An envelope: a line of headers, then a header and a body for each item.
        lines = body.split(b"\n")
        at = 1
        while at + 1 < len(lines):
            if orjson.loads(lines[at]).get("type") == "event":
                self.errors.append(orjson.loads(lines[at + 1]))
            at += 2
        return web.json_response({})


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Listen on a free port until the end of the block."""
    made = Collector()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/traces", made.take_traces)
    app.router.add_post("/api/1/envelope/", made.take_envelope)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()
