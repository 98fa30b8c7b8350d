"""How Alembic reaches the database: with the migrator's URL, handed over by `chatserver migrate`."""

import asyncio

from alembic import context
from sqlalchemy import Connection, pool
from sqlalchemy.ext.asyncio import create_async_engine

from chatserver.tables import METADATA


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=METADATA, compare_type=True)
    with context.begin_transaction():
        context.run_migrations()


async def run_online(url: str) -> None:
    # A migration that waits for a lock makes everyone behind it wait too: give up soon, try again.
    engine = create_async_engine(
        url, poolclass=pool.NullPool, connect_args={"server_settings": {"lock_timeout": "5000"}}
    )
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


asyncio.run(run_online(context.config.attributes["url"]))
