"""A house with a tenant, its people, and everything in it indexed."""

from collections.abc import AsyncIterator

import pytest

from tests.support.files import Shelf
from tests.support.people import House
from tests.support.servers import Database


@pytest.fixture
async def shelf(database: Database) -> AsyncIterator[Shelf]:
    async with Shelf(House(database)) as made:
        yield made
