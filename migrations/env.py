"""How Alembic reaches the database: by the migrator's URL, handed over by `chatserver migrate`."""

import asyncio

from alembic import context
from sqlalchemy import Connection, pool, text
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
        # One after the other, however many are started at once; the second finds all done.
        for statement in (
            "set lock_timeout = 0",
            "select pg_advisory_lock(hashtext('chatserver.migrate'))",
            "reset lock_timeout",
        ):
            await connection.execute(text(statement))
        await connection.commit()
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


asyncio.run(run_online(context.config.attributes["url"]))
