"""Fixtures: one process's services, a second one beside it, and a client."""

from collections.abc import AsyncIterator

import pytest

from chatserver.kernel.principal import Principal
from tests.support.servers import Database
from tests.support.talk import Talk


@pytest.fixture
async def talk(database: Database) -> AsyncIterator[Talk]:
    made = Talk(database)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def second(database: Database) -> AsyncIterator[Talk]:
    """Another process on the same database."""
    made = Talk(database)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def master(talk: Talk) -> Principal:
    return await talk.client()
