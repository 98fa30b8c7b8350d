"""A database that each of these tests finds empty."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from sqlalchemy import text

from chatserver.infra.database import Database
from chatserver.infra.unit_of_work import UnitOfWork, Units
from chatserver.kernel.opening import Open
from tests.support.recycling import Recycler
from tests.support.servers import Database as Address

Rows: TypeAlias = list[dict[str, Any]]
Eventually: TypeAlias = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


@pytest.fixture
def address(recycler: Recycler) -> Iterator[Address]:
    lent = recycler.lend()
    yield lent
    recycler.take_back(lent)


@pytest.fixture
async def database(address: Address) -> AsyncIterator[Database]:
    opened = Database(address.app_url, name="test", pool_size=5)
    yield opened
    await opened.close()


@pytest.fixture
def open_work(database: Database) -> Open[UnitOfWork]:
    units = Units(
        database,
        generation=lambda: 1,
        publish=lambda _: None,
        has_later=lambda _: False,
        ring=lambda: None,
    )
    return units.open(lambda work: work)


@pytest.fixture
def read(database: Database) -> Callable[[str], Awaitable[Rows]]:
    async def rows(statement: str) -> Rows:
        async with database.transaction() as session:
            found = await session.execute(text(statement))
            return [dict(row) for row in found.mappings()]

    return rows


@pytest.fixture
def eventually() -> Eventually:
    """Ask again and again until the answer is true; the time limit is generous on purpose."""

    async def wait(ask: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(30):
            while True:
                if answer := await ask():
                    return answer
                await asyncio.sleep(0.02)

    return wait


@asynccontextmanager
async def running(work: Awaitable[None], stop: Callable[[], Any]) -> AsyncIterator[None]:
    """Run something in the background for the length of the block, and see it end."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        stopped = stop()
        if asyncio.iscoroutine(stopped):
            await stopped
        async with asyncio.timeout(15):
            await task
