"""One database for all of these tests; each makes a client of its own in it."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from chatserver.assistant.bots.models import Bot
from chatserver.kernel.principal import Principal
from tests.support.answers import Studio
from tests.support.language_model import LanguageModelServer
from tests.support.servers import Database, Servers


@pytest.fixture(scope="session")
def assistant_database(servers: Servers) -> Database:
    return servers.fresh_database()


@pytest.fixture
async def provider() -> AsyncIterator[LanguageModelServer]:
    async with LanguageModelServer() as server:
        yield server


@dataclass
class Scene:
    """A client with two people, a bot, and a room in which it sits."""

    studio: Studio
    master: Principal
    alice: Principal
    bob: Principal
    bot: Bot
    room: UUID


async def scene_of(studio: Studio, *, kind: str = "assistant", **bot: Any) -> Scene:
    """Make a client with its people; what other tests left undone is forgotten."""
    await studio.talk.run("delete from job")
    master = await studio.talk.client(f"c-{secrets.token_hex(4)}")
    alice, bob = await studio.talk.users(master, "alice", "bob")
    made = await studio.bot(master, **bot)
    room = await studio.talk.room(alice, bob, kind=kind)
    await studio.seat(made, room.id)
    return Scene(studio, master, alice, bob, made, room.id)


async def _with_model(
    database: Database, provider: LanguageModelServer, **settings: Any
) -> AsyncIterator[Scene]:
    studio = Studio(
        database,
        openai_base_url=provider.url,
        openai_api_key="sk-test-0123456789abcdef",
        **settings,
    )
    await studio.start()
    try:
        yield await scene_of(studio)
    finally:
        provider.gate.set()
        await studio.stop()


@pytest.fixture
async def scene(
    assistant_database: Database, provider: LanguageModelServer
) -> AsyncIterator[Scene]:
    """A studio whose model is the provider, without a worker as yet."""
    async for made in _with_model(assistant_database, provider):
        yield made


@pytest.fixture
async def impatient(
    assistant_database: Database, provider: LanguageModelServer
) -> AsyncIterator[Scene]:
    """One that waits for its provider for half a second, and for a whole answer for three."""
    limits = {"answer_first_token_s": 0.6, "answer_token_s": 0.6, "answer_whole_s": 3}
    async for made in _with_model(assistant_database, provider, **limits):
        yield made


@pytest.fixture
async def extracts(assistant_database: Database) -> AsyncIterator[Scene]:
    """A studio without a model."""
    studio = Studio(assistant_database)
    await studio.start()
    try:
        yield await scene_of(studio)
    finally:
        await studio.stop()
