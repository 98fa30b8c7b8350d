"""Which pages may call us from a browser: all of them, without cookies.

At the preflight the tenant is unknown, so a client's own list of origins is enforced after the
authentication (`credentials.check_origin`).
"""

from collections.abc import Sequence
from typing import Final

import aiohttp_cors
from aiohttp import hdrs, web

ANY: Final = "*"
METHODS: Final = "GET, HEAD, POST, PUT, PATCH, DELETE"
EXPOSED: Final = (
    "X-Request-Id",
    "Retry-After",
    "Idempotency-Replayed",
    "RateLimit",
    "RateLimit-Policy",
)
# Browsers cap it lower; a change of ours must not take a day to be seen.
MAX_AGE_S: Final = 600


def allow(app: web.Application, origins: Sequence[str]) -> None:
    """Let pages of `origins` (`*` = all) use the routes added so far, and read every refusal."""
    options = aiohttp_cors.ResourceOptions(  # type: ignore[no-untyped-call]
        allow_credentials=False,
        expose_headers=EXPOSED,
        allow_headers=ANY,
        allow_methods=ANY,
        max_age=MAX_AGE_S,
    )
    cors = aiohttp_cors.setup(app, defaults=dict.fromkeys(origins, options))
    for resource in list(app.router.resources()):
        cors.add(resource)
    everyone = ANY in origins

    async def complete(request: web.Request, response: web.StreamResponse) -> None:
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None:
            return
        headers = response.headers
        if request.match_info.route.resource is None and (everyone or origin in origins):
            # An unknown path or method has no resource, and a page must be able to read that too.
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ", ".join(EXPOSED)
        if hdrs.ACCESS_CONTROL_ALLOW_ORIGIN not in headers:
            return
        if everyone:
            headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = ANY
        else:
            headers.add(hdrs.VARY, hdrs.ORIGIN)
        if hdrs.ACCESS_CONTROL_ALLOW_METHODS in headers:
            headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = METHODS

    app.on_response_prepare.append(complete)
