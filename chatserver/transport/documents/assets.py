"""The scripts and styles of Swagger UI and ReDoc, from an installed package that carries both.

The package is only read, never imported: nothing of it runs here.
"""

import asyncio
import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web

from chatserver.kernel.errors import RouteNotFoundError
from chatserver.transport.answers import QUIET

CARRIER: Final = "fastapi_offline"
SWAGGER_SCRIPT: Final = "swagger-ui-bundle.js"
SWAGGER_STYLE: Final = "swagger-ui.css"
REDOC_SCRIPT: Final = "redoc.standalone.js"
_KINDS: Final = {
    SWAGGER_SCRIPT: "text/javascript",
    SWAGGER_STYLE: "text/css",
    REDOC_SCRIPT: "text/javascript",
}
PATH: Final = "/docs/assets/"
# ReDoc shows its maker's logo from the maker's server; here nothing comes from elsewhere.
_ELSEWHERE: Final = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_NOTHING: Final = b"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>"
# The address changes with the content.
_FOR_EVER: Final = "public, max-age=31536000, immutable"
# A few KiB more than the best, in a third of the time.
_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, kept as it goes over the wire."""

    packed: bytes
    kind: str


class Assets:
    """The files by name. Each is read and packed when somebody first asks for it."""

    def __init__(self) -> None:
        self._folder = _folder()
        self._made: dict[str, asyncio.Task[Asset]] = {}

    def attach(self, app: web.Application) -> None:
        app.router.add_get(PATH + "{version}/{name}", self._give)

    def address(self, name: str) -> str:
        """Say where a file is, relative to the root: it may be served below another path."""
        return f"{PATH.lstrip('/')}{_version(self._folder)}/{name}"

    async def _give(self, request: web.Request) -> web.Response:
        request[QUIET] = True
        name = request.match_info["name"]
        if name not in _KINDS or request.match_info["version"] != _version(self._folder):
            raise RouteNotFoundError
        if name not in self._made:
            self._made[name] = asyncio.create_task(asyncio.to_thread(_packed, self._folder / name))
        asset = await asyncio.shield(self._made[name])
        response = web.Response(content_type=asset.kind, charset="utf-8")
        if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
            response.body = asset.packed
            response.headers[hdrs.CONTENT_ENCODING] = "gzip"
        else:
            response.body = await asyncio.to_thread(gzip.decompress, asset.packed)
        response.headers[hdrs.VARY] = hdrs.ACCEPT_ENCODING
        response.headers[hdrs.CACHE_CONTROL] = _FOR_EVER
        return response


def _packed(file: Path) -> Asset:
    content = file.read_bytes().replace(_ELSEWHERE, _NOTHING)
    return Asset(gzip.compress(content, _LEVEL, mtime=0), _KINDS[file.name])


@cache
def _folder() -> Path:
    # Finding a top-level package does not run it.
    found = find_spec(CARRIER)
    if found is None or not found.submodule_search_locations:
        msg = f"The package {CARRIER} is missing; install chatserver with its dependencies."
        raise RuntimeError(msg)
    return Path(found.submodule_search_locations[0]) / "static"


@cache
def _version(folder: Path) -> str:
    """Tell one set of files from another, by their sizes: they are never edited in place."""
    sizes = [f"{name}:{(folder / name).stat().st_size}" for name in _KINDS]
    return hashlib.sha256(" ".join(sizes).encode()).hexdigest()[:12]
