"""How Alembic reaches the database: by the migrator's URL, handed over by `chatserver migrate`."""

import asyncio

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from chatserver.infra.migrations import LOCK_TIMEOUT_MS
from chatserver.tables import METADATA

OURS = text("select pg_try_advisory_lock(hashtext('chatserver.migrate'))")


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        compare_type=True,
        # One after the other, so that no lock outlives its own step, and what is done stays done.
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_online(url: str) -> None:
    # Who waits for a lock makes everyone behind him wait, too: less than the server's own patience
    # (`TIMEOUTS`), then `migrate` lets them pass and tries again.
    engine = create_async_engine(
        url,
        poolclass=pool.NullPool,
        connect_args={"server_settings": {"lock_timeout": str(LOCK_TIMEOUT_MS)}},
    )
    async with engine.connect() as connection:
        # One after the other, however many are started at once; the second finds all done. It asks
        # again instead of waiting: an index that is built concurrently waits for whoever waits.
        while not (await connection.execute(OURS)).scalar_one():
            await connection.commit()
            await asyncio.sleep(0.2)
        await connection.commit()
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


asyncio.run(run_online(context.config.attributes["url"]))
