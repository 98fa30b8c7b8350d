"""The documents as the server serves them."""

import re
from html.parser import HTMLParser

import pytest
from openapi_spec_validator import validate

from tests.support.rest import running


async def test_both_are_served_to_everyone_and_kept_until_they_change() -> None:
    async with running() as door:
        for path, member in (("/openapi.json", "openapi"), ("/asyncapi.json", "asyncapi")):
            status, document, response = await door.ask("GET", path, None)
            assert status == 200
            assert member in document
            assert response.headers["Cache-Control"] == "no-cache"
            tag = {"If-None-Match": response.headers["ETag"]}
            assert (await door.ask("GET", path, None, headers=tag))[0] == 304
            assert (await door.ask("HEAD", path, None))[0] == 200


async def test_what_is_served_is_valid() -> None:
    async with running() as door:
        _, document, _ = await door.ask("GET", "/openapi.json", None)
    validate(document)


class Resources(HTMLParser):
    """What a page loads, and the nonces that it shows for that."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.nonces: set[str | None] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        address = named.get("src") or (named.get("href") if tag == "link" else None)
        if address is not None:
            self.loaded.append(address)
        if tag in {"script", "style"} or named.get("rel") == "stylesheet":
            self.nonces.add(named.get("nonce"))
        assert not [name for name in named if name.startswith("on") or name == "style"]


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/asyncapi", "/docs/errors"])
async def test_a_page_is_whole_without_the_internet_and_runs_nothing_else(path: str) -> None:
    async with running() as door:
        async with door.http.get(path) as response:
            text = await response.text()
        async with door.http.get(path) as response:
            policy = response.headers["Content-Security-Policy"]
            again = response.headers["Cache-Control"]
            other = await response.text()
        found = Resources()
        found.feed(other)
        (nonce,) = found.nonces
        assert nonce
        assert nonce not in text
        assert again == "no-store"
        directives = dict(each.strip().partition(" ")[::2] for each in policy.split(";"))
        assert directives["default-src"] == "'none'"
        assert directives["style-src"] == f"'nonce-{nonce}'"
        assert directives.get("script-src", f"'nonce-{nonce}'") == f"'nonce-{nonce}'"
        assert "unsafe" not in policy
        assert not re.search(r"https?://", policy)
        for address in found.loaded:
            if address.startswith("data:"):
                continue
            async with door.http.get("/" + address) as asset:
                assert asset.status == 200
                assert asset.content_type in {"text/javascript", "text/css"}
                assert "immutable" in asset.headers["Cache-Control"]
                assert len(await asset.read()) > 100_000
        assert "SwaggerUIBundle" in other or "Redoc.init" in other or "script-src" not in directives


async def test_assets_are_packed_for_whoever_unpacks_and_plain_for_others() -> None:
    async with running() as door:
        async with door.http.get("/docs") as page:
            found = re.search(r'href="(docs/assets/\w+/swagger-ui\.css)"', await page.text())
        assert found is not None
        address = "/" + found[1]
        async with door.http.get(address, headers={"Accept-Encoding": "gzip"}) as packed:
            assert packed.headers["Content-Encoding"] == "gzip"
            text = await packed.read()
        async with door.http.get(address, headers={"Accept-Encoding": "identity"}) as plain:
            assert "Content-Encoding" not in plain.headers
            assert await plain.read() == text
        for wrong in ("/docs/assets/0/swagger-ui.css", address.replace(".css", ".map")):
            assert (await door.ask("GET", wrong, None))[0] == 404
