"""PostgreSQL: pools, timeouts, and one translation of its outages."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import asyncpg
import orjson
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from chatserver.kernel.errors import UnavailableError

ACQUIRE_S: Final = 2.0
COMMAND_S: Final = 6.0
CONNECT_S: Final = 3.0

# A statement that waits longer than these is no use to anyone who waits for the answer.
TIMEOUTS: Final = {
    "statement_timeout": "5000",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
}
# 08 connection, 57P admin shutdown and crash, 53 resources, 55P03 lock timeout, 57014 statement
# timeout, 40 serialization and deadlock, 25P03 idle in transaction: none of them a bug of ours.
_PASSING: Final = ("08", "57P", "53", "55P03", "57014", "40", "25P03")


def engine_url(url: str) -> str:
    """Give the URL that SQLAlchemy takes for asyncpg."""
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


class RawPool:
    """Raw connections for single statements under autocommit, opened when first needed."""

    def __init__(self, url: str, *, size: int, settings: dict[str, str]) -> None:
        self._url = url
        self._size = size
        self._settings = settings
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> "asyncpg.Pool[asyncpg.Record]":
        if self._pool is None:
            async with self._opening:
                if self._pool is None:
                    self._pool = await asyncpg.create_pool(
                        self._url,
                        min_size=1,
                        max_size=self._size,
                        command_timeout=COMMAND_S,
                        timeout=CONNECT_S,
                        max_inactive_connection_lifetime=600,
                        reset=_keep,
                        server_settings=self._settings,
                    )
        return self._pool

    async def close(self) -> None:
        if self._pool is not None:
            try:
                async with asyncio.timeout(2):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()


class Database:
    """The pools of one process: sessions for services, raw connections for the hot paths.

    Reads and the group commit have raw connections of their own: whoever catches up after an
    outage must not make senders wait.
    """

    def __init__(
        self, url: str, *, name: str, pool_size: int = 10, fast_pool_size: int = 4
    ) -> None:
        self._url = url
        self._settings = {"application_name": name, **TIMEOUTS}
        self._reads = RawPool(url, size=fast_pool_size, settings=self._settings)
        self._writes = RawPool(url, size=fast_pool_size, settings=self._settings)
        self.engine: AsyncEngine = create_async_engine(
            engine_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=ACQUIRE_S,
            pool_pre_ping=True,
            pool_recycle=1800,
            json_serializer=lambda value: orjson.dumps(value).decode(),
            json_deserializer=orjson.loads,
            connect_args={
                "server_settings": self._settings,
                "command_timeout": COMMAND_S,
                "timeout": CONNECT_S,
            },
        )
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    async def fast(self) -> "asyncpg.Pool[asyncpg.Record]":
        """Give the raw connections for reads of one statement."""
        return await self._reads.open()

    async def writing(self) -> "asyncpg.Pool[asyncpg.Record]":
        """Give the raw connections of the group commit."""
        return await self._writes.open()

    def pool(self, *, size: int, settings: Mapping[str, str]) -> RawPool:
        """Give a pool of raw connections with settings of their own; the caller closes it."""
        return RawPool(self._url, size=size, settings={**self._settings, **settings})

    async def connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        """Open a connection of one's own, outside the pools; the caller closes it."""
        return await asyncpg.connect(
            self._url,
            timeout=CONNECT_S,
            command_timeout=COMMAND_S,
            server_settings=self._settings,
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Open a session and a transaction; leaving the block commits.

        Raises:
            UnavailableError: PostgreSQL is away, too slow, or the pool is exhausted.
        """
        with outages():
            async with self.sessions() as session, session.begin():
                yield session

    async def close(self) -> None:
        """Close every connection, without waiting for the hopeless ones."""
        await asyncio.gather(self._reads.close(), self._writes.close())
        await self.engine.dispose()


async def _keep(_: object) -> None:
    """Reset nothing: every call is one statement under autocommit, it leaves nothing behind.

    asyncpg's own reset costs a round trip at every release.
    """


@contextmanager
def outages() -> Iterator[None]:
    """Turn whatever says "PostgreSQL can't do this now" into `unavailable`; a bug stays a bug."""
    try:
        yield
    except (
        PoolTimeoutError,
        InterfaceError,
        asyncpg.InterfaceError,
        # What the driver says when the server ends a session just as a statement begins.
        asyncpg.InternalClientError,
        OSError,
        TimeoutError,
    ) as error:
        raise UnavailableError from error
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or ""
        if error.connection_invalidated or state.startswith(_PASSING):
            raise UnavailableError from error
        raise
    except asyncpg.PostgresError as error:
        if is_passing(error):
            raise UnavailableError from error
        raise


def is_passing(error: asyncpg.PostgresError) -> bool:
    """Tell an outage from a fault of the statement."""
    return (error.sqlstate or "").startswith(_PASSING)
