"""Bots and training sources in another application's database: read, and reported on."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from chatserver.assistant.bots.errors import BotElsewhereError
from chatserver.assistant.bots.schemas import BotPath, CreateBot, ListBots
from chatserver.assistant.dashboard import database as dashboard
from chatserver.assistant.documents.errors import DocumentNotFoundError
from chatserver.assistant.training.schemas import QueueSources
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.ids import uuid7
from tests.integration.assistant.documents.conftest import Library
from tests.support.documents import WordVectors
from tests.support.people import House
from tests.support.servers import Database, Servers

TABLES = """
create table chatserver_bot (id uuid primary key, client_id uuid not null, name text not null,
  instructions text, model text, temperature float8, retrieval jsonb,
  updated_at timestamptz not null default clock_timestamp(), deleted_at timestamptz);
create table chatserver_source (id uuid primary key, client_id uuid not null, bot_id uuid not null,
  kind text not null, name text not null, title text, url text, text text, storage_key text,
  status text, reason text, chunks int, status_at timestamptz, deleted_at timestamptz);
"""


class Other:
    """The other application: it owns its database, and knows nothing of ours."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def run(self, statement: str, *values: Any) -> list[Any]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    async def bot(self, client_id: UUID, name: str) -> UUID:
        made = uuid7()
        await self.run(
            "insert into chatserver_bot (id, client_id, name) values ($1, $2, $3)",
            made,
            client_id,
            name,
        )
        return made

    async def source(self, client_id: UUID, bot_id: UUID, text: str) -> UUID:
        made = uuid7()
        await self.run(
            "insert into chatserver_source (id, client_id, bot_id, kind, name, title, text)"
            " values ($1, $2, $3, 'text', 'a.txt', 'A note', $4)",
            made,
            client_id,
            bot_id,
            text,
        )
        return made


@pytest.fixture
def theirs(servers: Servers) -> Database:
    return servers.empty_database()


@pytest.fixture
async def both(
    documents_database: Database,
    theirs: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[Library, Other]]:
    monkeypatch.setattr(dashboard, "FRESH_S", 0.0)
    other = Other(theirs.admin_url)
    connection = await asyncpg.connect(theirs.admin_url)
    await connection.execute(TABLES)
    await connection.close()
    house = House(
        replace(documents_database, files_dir=str(tmp_path / "files")),
        embedding_base_url="http://127.0.0.1:1",
        embedding_model="words",
        dashboard_database_url=theirs.admin_url,
    )
    await house.start()
    vectors = WordVectors()
    house.container.documents.embedders._remote["words", None] = vectors  # type: ignore[assignment]
    master = await house.tenant(f"c-{secrets.token_hex(4)}")
    bot = await other.bot(master.client_id, "Theirs")
    yield Library(house, master, bot, vectors, tmp_path), other
    await house.close()


async def names(library: Library) -> list[str]:
    async with library.parts.open_bots() as bots:
        return [each.name for each in (await bots.list_bots(library.master, ListBots())).items]


async def test_bots_are_read_there_and_changed_there_alone(both: tuple[Library, Other]) -> None:
    library, other = both
    assert await names(library) == ["Theirs"]
    await other.run(
        "update chatserver_bot set name = 'Renamed', updated_at = clock_timestamp() where id = $1",
        library.bot_id,
    )
    assert await names(library) == ["Renamed"]
    with pytest.raises(BotElsewhereError):
        async with library.parts.open_bots() as bots:
            await bots.create(library.master, CreateBot(name="x"))
    await other.run("update chatserver_bot set deleted_at = clock_timestamp()")
    assert await names(library) == []


async def test_a_source_is_read_and_its_state_written_back(both: tuple[Library, Other]) -> None:
    library, other = both
    text = "The kettle of the dashboard is green."
    source = await other.source(library.master.client_id, library.bot_id, text)
    queued = await library.parts.queue(library.master, QueueSources(source_ids=[source]))
    assert [each.source_id for each in queued.items] == [source]
    await library.parts.read_here(library.master.client_id, source)

    assert (await library.ask("which kettle")).chunks[0].text == text
    (row,) = await other.run("select status, reason, chunks from chatserver_source")
    assert tuple(row) == ("ready", None, 1)
    await other.run("update chatserver_source set text = 'The kettle is red by now.'")
    await library.parts.queue(library.master, QueueSources(source_ids=[source]))
    await library.parts.read_here(library.master.client_id, source)
    (only,) = (await library.ask("which kettle")).chunks
    assert "red" in only.text
    # Nothing of ours was made there.
    tables = await other.run("select tablename from pg_tables where schemaname = 'public'")
    assert {row["tablename"] for row in tables} == {"chatserver_bot", "chatserver_source"}


async def test_nobody_queues_what_is_another_clients(both: tuple[Library, Other]) -> None:
    library, other = both
    stranger = await library.house.tenant(f"c-{secrets.token_hex(4)}")
    source = await other.source(library.master.client_id, library.bot_id, "secret")
    for who, ids in ((stranger, [source]), (library.master, [source, uuid7()])):
        with pytest.raises(DocumentNotFoundError):
            await library.parts.queue(who, QueueSources(source_ids=ids))
    # A source of theirs that names a bot of ours: not theirs to fill.
    smuggled = await other.source(stranger.client_id, library.bot_id, "smuggled")
    with pytest.raises(DocumentNotFoundError):
        await library.parts.queue(stranger, QueueSources(source_ids=[smuggled]))
    assert await library.count("document") == 0


async def test_what_it_said_last_holds_while_it_is_away(both: tuple[Library, Other]) -> None:
    library, other = both
    source = await other.source(library.master.client_id, library.bot_id, "A blue kettle.")
    await library.parts.queue(library.master, QueueSources(source_ids=[source]))
    away = library.parts.dashboard
    assert away is not None
    await away.close()
    away._pool = None
    away._url = "postgresql://x:y@127.0.0.1:1/z"

    assert await names(library) == ["Theirs"]
    async with library.parts.open_bots() as bots:
        assert (await bots.get(library.master, BotPath(bot_id=library.bot_id))).name == "Theirs"
    await library.parts.read_here(library.master.client_id, source)
    assert (await library.ask("kettle")).chunks[0].text == "A blue kettle."
    with pytest.raises(UnavailableError):
        await library.parts.queue(library.master, QueueSources(source_ids=[source]))
