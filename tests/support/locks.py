"""Holding rows as a slow session does, and seeing who waits for them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from tests.support.nodes import eventually
from tests.support.servers import Database


@asynccontextmanager
async def room_held(database: Database, room_id: str) -> AsyncIterator[None]:
    """Hold the room's row; leaving the block lets go of it."""
    connection = await asyncpg.connect(database.admin_url)
    try:
        async with connection.transaction():
            await connection.execute("select 1 from room where id = $1 for update", room_id)
            yield
    finally:
        await connection.close()


async def waiting_for_locks(database: Database, count: int) -> None:
    """Wait until so many sessions of the database wait for a lock: only then they overlap."""
    connection = await asyncpg.connect(database.admin_url)
    try:

        async def enough() -> bool:
            found = await connection.fetchval(
                "select count(*) from pg_stat_activity"
                " where datname = current_database() and wait_event_type = 'Lock'"
            )
            return bool(found >= count)

        await eventually(enough, within_s=1.5, why=f"{count} sessions wait for a lock")
    finally:
        await connection.close()


async def scalar(database: Database, query: str, *arguments: object) -> int:
    """Ask the database itself for a number."""
    found: int = await value(database, query, *arguments)
    return found


async def value(database: Database, query: str, *arguments: object) -> Any:
    """Ask the database itself for one value."""
    connection = await asyncpg.connect(database.admin_url)
    try:
        return await connection.fetchval(query, *arguments)
    finally:
        await connection.close()
