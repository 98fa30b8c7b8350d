"""`/docs`, `/redoc`, `/asyncapi` and `/docs/errors`: the documents for people.

Everything comes from here; nothing is fetched from elsewhere. A page is allowed what it needs and
no more: scripts and styles by a nonce of this one answer, calls to this server alone.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Final

from aiohttp import hdrs, web

from chatserver.transport import refusals
from chatserver.transport.answers import QUIET
from chatserver.transport.documents import catalogue
from chatserver.transport.documents.assets import (
    REDOC_SCRIPT,
    SWAGGER_SCRIPT,
    SWAGGER_STYLE,
    Assets,
)
from chatserver.transport.documents.asyncapi_page import STYLE, asyncapi_page
from chatserver.transport.documents.markup import Html, inline, join, tag

_POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_SWAGGER: Final = (
    # The styles of React go through the DOM, which no policy forbids; its pictures are in the CSS.
    "; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'"
)
_REDOC: Final = (
    # The index of its search is made by a worker that it writes itself.
    "; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'"
    "; worker-src blob:"
)
_STATIC: Final = "; style-src 'nonce-{nonce}'; img-src data:"
_START_SWAGGER: Final = Html(
    'SwaggerUIBundle({url:"openapi.json",dom_id:"#page",deepLinking:true,docExpansion:"none",'
    "filter:true,defaultModelsExpandDepth:0,displayOperationId:true,showExtensions:true,"
    'validatorUrl:"none",syntaxHighlight:{activated:false},tagsSorter:"alpha"})'
)
_START_REDOC: Final = (
    'Redoc.init("openapi.json",{{nonce:"{nonce}",hideDownloadButton:false,requiredPropsFirst:true,'
    'nativeScrollbars:true,theme:{{typography:{{fontFamily:"system-ui,sans-serif",'
    'headings:{{fontFamily:"system-ui,sans-serif"}}}}}}}},document.getElementById("page"))'
)


# ReDoc makes styles before it can be told the nonce: whatever it makes gets it here.
_NONCE_FOR_STYLES: Final = (
    "const make=Document.prototype.createElement;"
    "Document.prototype.createElement=function(name,options){{"
    'const made=make.call(this,name,options);if(name==="style")made.nonce="{nonce}";return made}}'
)


class Pages:
    """The four pages. `sockets` gives the AsyncAPI document when somebody looks."""

    def __init__(self, sockets: Callable[[], dict[str, Any]]) -> None:
        self._sockets = sockets
        self._assets = Assets()
        self._written: dict[str, Html] = {}

    def attach(self, app: web.Application) -> None:
        app.router.add_get("/docs", self._swagger)
        app.router.add_get("/redoc", self._redoc)
        app.router.add_get("/asyncapi", self._asyncapi)
        app.router.add_get("/docs/errors", self._errors)
        self._assets.attach(app)

    async def _swagger(self, request: web.Request) -> web.Response:
        nonce = _nonce()
        style = self._assets.address(SWAGGER_STYLE)
        script = self._assets.address(SWAGGER_SCRIPT)
        return _page(
            request,
            "REST API",
            head=Html(f'<link rel="stylesheet" nonce="{nonce}" href="{style}">'),
            body=join(
                tag("div", id="page"),
                tag("script", nonce=nonce, src=script),
                tag("script", _START_SWAGGER, nonce=nonce),
            ),
            policy=(_POLICY + _SWAGGER).format(nonce=nonce),
        )

    async def _redoc(self, request: web.Request) -> web.Response:
        nonce = _nonce()
        script = self._assets.address(REDOC_SCRIPT)
        return _page(
            request,
            "REST API",
            head=tag("style", Html("body{margin:0}"), nonce=nonce),
            body=join(
                tag("div", id="page"),
                tag("script", Html(_NONCE_FOR_STYLES.format(nonce=nonce)), nonce=nonce),
                tag("script", nonce=nonce, src=script),
                tag("script", Html(_START_REDOC.format(nonce=nonce)), nonce=nonce),
            ),
            policy=(_POLICY + _REDOC).format(nonce=nonce),
        )

    async def _asyncapi(self, request: web.Request) -> web.Response:
        return _static(request, "Commands and facts", await self._kept("asyncapi", self._about))

    async def _errors(self, request: web.Request) -> web.Response:
        return _static(request, "Errors", await self._kept("errors", _error_list))

    def _about(self) -> Html:
        return asyncapi_page(self._sockets())

    async def _kept(self, name: str, write: Callable[[], Html]) -> Html:
        if name not in self._written:
            self._written[name] = await asyncio.to_thread(write)
        return self._written[name]


def _nonce() -> str:
    return secrets.token_urlsafe(16)


def _static(request: web.Request, title: str, body: Html) -> web.Response:
    nonce = _nonce()
    return _page(
        request,
        title,
        head=tag("style", Html(STYLE), nonce=nonce),
        body=body,
        policy=(_POLICY + _STATIC).format(nonce=nonce),
    )


def _page(request: web.Request, title: str, *, head: Html, body: Html, policy: str) -> web.Response:
    request[QUIET] = True
    text = join(
        Html('<!doctype html><html lang="en"><head><meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        # Without one, browsers ask for a file that isn't there.
        Html('<link rel="icon" href="data:,">'),
        tag("title", f"chatserver: {title}"),
        head,
        Html("</head><body>"),
        body,
        Html("</body></html>"),
    )
    headers = {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        hdrs.CACHE_CONTROL: "no-store",
    }
    return web.Response(text=text, content_type="text/html", headers=headers)


def _error_list() -> Html:
    """List every code, each under the fragment that the `type` of a problem leads to."""
    bug = refusals.bug("")
    seen: set[str] = set()
    rows = []
    for error in catalogue.every_error():
        # Refinements of a refusal share its code, and an anchor stands once.
        is_first = error.code not in seen
        seen.add(error.code)
        rows.append(
            _error_row(
                error.code,
                catalogue.status_of(error),
                catalogue.meaning_of(error),
                retryable=catalogue.is_retryable(error),
                anchored=is_first,
            )
        )
    rows.append(
        _error_row(bug["code"], bug["status"], bug["message"], retryable=True, anchored=True)
    )
    head = tag("tr", *(tag("th", each) for each in ("Code", "Status", "Retry helps", "Meaning")))
    return join(
        tag("nav", tag("h2", tag("a", "REST", href="../docs"))),
        tag("main", tag("h1", "Errors"), tag("table", head, *rows)),
    )


def _error_row(code: str, status: int, meaning: str, *, retryable: bool, anchored: bool) -> Html:
    cells = (
        tag("td", tag("code", code)),
        tag("td", str(status)),
        tag("td", "yes" if retryable else "no"),
        tag("td", inline(meaning)),
    )
    return tag("tr", *cells, id=code) if anchored else tag("tr", *cells)
