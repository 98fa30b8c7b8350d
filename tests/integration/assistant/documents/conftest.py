"""A client with a bot, on a database of all these tests, and a model that is as fast as nothing."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from chatserver.assistant.bots.schemas import CreateBot
from chatserver.assistant.documents.schemas import CreateDocuments, DocumentOut, DocumentPath
from chatserver.assistant.retrieval.schemas import Retrieved
from chatserver.kernel.principal import Principal
from chatserver.wiring.documents import DocumentsParts
from tests.support.documents import WordVectors, file_of
from tests.support.people import House
from tests.support.servers import Database, Servers


@pytest.fixture(scope="session")
def documents_database(servers: Servers) -> Database:
    return servers.fresh_database()


@dataclass
class Library:
    """One client's bot, and short ways to fill and to ask it."""

    house: House
    master: Principal
    bot_id: UUID
    vectors: WordVectors
    directory: Path

    @property
    def parts(self) -> DocumentsParts:
        return self.house.container.documents

    async def add(self, name: str, content: bytes | str, **more: Any) -> DocumentOut:
        """Upload a file, without its being read."""
        raw = content.encode() if isinstance(content, str) else content
        command = CreateDocuments(bot_id=more.pop("bot_id", self.bot_id), **more).with_files(
            (file_of(self.directory, name, raw),)
        )
        return (await self.parts.intake.add(self.master, command)).items[0]

    async def read(self, document: DocumentOut) -> DocumentOut:
        """Read it here, as a worker would."""
        await self.parts.read_here(self.master.client_id, document.id)
        return await self.get(document.id)

    async def learn(self, name: str, content: bytes | str, **more: Any) -> DocumentOut:
        return await self.read(await self.add(name, content, **more))

    async def get(self, document_id: UUID) -> DocumentOut:
        async with self.parts.open_documents() as documents:
            return await documents.get(self.master, DocumentPath(document_id=document_id))

    async def ask(self, question: str, limit: int = 5, **more: Any) -> Retrieved:
        return await self.parts.retrieval.search(
            self.master.client_id, [self.bot_id], question, limit, **more
        )

    async def count(self, table: str, where: str = "client_id = :client") -> int:
        rows = await self.house.rows(
            f"select count(*) as n from {table} where {where}", client=self.master.client_id
        )
        return int(rows[0]["n"])

    async def index(self) -> dict[str, Any]:
        (row,) = await self.house.rows(
            "select n_chunks, n_terms, n_parts, configs, model_id from bot_index"
            " where bot_id = :bot",
            bot=self.bot_id,
        )
        return row


async def furnish(house: House, directory: Path, vectors: WordVectors) -> Library:
    embedders = house.container.documents.embedders
    embedders._remote[vectors.name, None] = vectors  # type: ignore[assignment]
    master = await house.tenant(f"c-{secrets.token_hex(4)}")
    async with house.container.documents.open_bots() as bots:
        made = await bots.create(master, CreateBot(name="Helper"))
    return Library(house, master, made.id, vectors, directory)


@pytest.fixture
async def library(documents_database: Database, tmp_path: Path) -> AsyncIterator[Library]:
    house = House(
        documents_database, embedding_base_url="http://127.0.0.1:1", embedding_model="words"
    )
    await house.start()
    yield await furnish(house, tmp_path, WordVectors())
    await house.close()
