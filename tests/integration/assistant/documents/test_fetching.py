"""Addresses: followed one judged hop at a time, and not read again when nothing changed."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from chatserver.assistant.documents.schemas import CreateDocuments, DocumentOut, DocumentPath
from tests.integration.assistant.documents.conftest import Library, furnish
from tests.support.documents import WordVectors
from tests.support.people import House
from tests.support.servers import Database

PAGE = (
    "<html><head><title>Care</title></head><body><article><h1>Care</h1><p>{}</p></article></body>"
)
TEXT = "Descale the kettle every second month, or more often where the water is hard."


class Site:
    def __init__(self) -> None:
        self.text = TEXT
        self.asked: list[tuple[str, str | None]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        match = request.headers.get("If-None-Match")
        self.asked.append((request.path, match))
        if request.path == "/moved":
            raise web.HTTPFound("/page")
        if request.path == "/inwards":
            raise web.HTTPFound("file:///etc/passwd")
        if request.path == "/round":
            raise web.HTTPFound("/round")
        if request.path == "/large":
            return web.Response(body=b"x" * (11 * 2**20))
        if request.path == "/gone":
            raise web.HTTPGone
        etag = f'"{hash(self.text)}"'
        if match == etag:
            raise web.HTTPNotModified
        return web.Response(
            text=PAGE.format(self.text), content_type="text/html", headers={"ETag": etag}
        )


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    app = web.Application()
    app.router.add_get("/{path:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0)
    await listening.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def reader(documents_database: Database, tmp_path: Path) -> AsyncIterator[Library]:
    house = House(
        replace(documents_database, files_dir=str(tmp_path / "files")),
        embedding_base_url="http://127.0.0.1:1",
        embedding_model="words",
        allow_private_addresses="true",
    )
    await house.start()
    yield await furnish(house, tmp_path, WordVectors())
    await house.close()


async def add(library: Library, url: str) -> DocumentOut:
    command = CreateDocuments(bot_id=library.bot_id, url=url)
    return await library.read((await library.parts.intake.add(library.master, command)).items[0])


async def test_a_page_is_followed_read_and_asked_for_again_only_if_it_changed(
    site: Site, reader: Library
) -> None:
    first = await add(reader, f"{site.url}/moved")
    assert (first.status, first.title, first.url) == ("ready", "Care", f"{site.url}/moved")
    assert (await reader.ask("how often to descale")).chunks[0].url == first.url

    async def again() -> DocumentOut:
        async with reader.parts.open_documents() as documents:
            queued = await documents.process(reader.master, DocumentPath(document_id=first.id))
        return await reader.read(queued)

    embedded = len(reader.vectors.texts)
    same = await again()
    assert (same.status, same.sha256) == ("ready", first.sha256)
    assert site.asked[-1][1] is not None
    assert len(reader.vectors.texts) <= embedded + 1  # the question alone

    site.text = "Descale the kettle every year."
    changed = await again()
    assert changed.sha256 != first.sha256
    (only,) = (await reader.ask("descale")).chunks
    assert "every year" in only.text


async def test_what_cannot_be_had_says_why(site: Site, reader: Library) -> None:
    said = {path: (await add(reader, f"{site.url}/{path}")).reason for path in
            ("inwards", "round", "large", "gone")}  # fmt: skip
    assert said == {
        "inwards": "address_refused",
        "round": "unreachable",
        "large": "too_large",
        "gone": "not_found",
    }


async def test_a_reading_that_no_worker_finished_is_closed(reader: Library) -> None:
    document = await reader.add("lost.txt", "Nobody reads this.")
    await reader.house.change("delete from job where client_id = :c", c=reader.master.client_id)
    await reader.parts.settler.settle()
    assert (await reader.get(document.id)).status == "queued"
    await reader.house.change(
        "update training_job set created_at = created_at - interval '1 minute'"
        " where client_id = :c",
        c=reader.master.client_id,
    )
    await reader.parts.settler.settle()
    lost = await reader.get(document.id)
    assert (lost.status, lost.reason) == ("failed", "worker_lost")
