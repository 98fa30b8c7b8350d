"""A whole process without doors, on a database of one's own, as the application role."""

from collections.abc import AsyncIterator

import pytest

from tests.support.people import House
from tests.support.servers import Database


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    made = House(database)
    await made.start()
    yield made
    await made.close()
