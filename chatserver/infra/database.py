"""PostgreSQL: pools, timeouts, and one translation of its outages."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, cast

import asyncpg
import orjson
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import NullPool, QueuePool

from chatserver.infra.statements import COMMAND_S, CONNECT_S, PoolStanding, Statements
from chatserver.kernel.errors import UnavailableError

ACQUIRE_S: Final = 2.0

# A statement that waits longer than these is no use to anyone who waits for the answer.
TIMEOUTS: Final = {
    "statement_timeout": "5000",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
}
# 08 connection, 57P admin shutdown and crash, 53 resources, 55P03 lock timeout, 57014 statement
# timeout, 40 serialization and deadlock, 25P03 idle in transaction: none of them a bug of ours.
# How often PostgreSQL could not serve this process, and why; for metrics.
OUTAGES: Final[Counter[str]] = Counter()
_PASSING: Final = ("08", "57P", "53", "55P03", "57014", "40", "25P03")


def engine_url(url: str) -> str:
    """Give the URL that SQLAlchemy takes for asyncpg."""
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


class Database:
    """The pools of one process: sessions for services, raw connections for the hot paths.

    Reads and the group commit have raw connections of their own: whoever catches up after an
    outage must not make senders wait.
    """

    def __init__(
        self, url: str, *, name: str, pool_size: int = 10, fast_pool_size: int = 4
    ) -> None:
        self._url = url
        self._pool_size = pool_size
        self._settings = {"application_name": name, **TIMEOUTS}
        self._reads = Statements(url, size=fast_pool_size, settings=self._settings)
        self._writes = Statements(url, size=fast_pool_size, settings=self._settings)
        self._arrivals = self.pool(
            size=fast_pool_size, settings={"plan_cache_mode": "force_generic_plan"}
        )
        shared: dict[str, Any] = {
            # An error's text goes into logs; what people wrote must not.
            "hide_parameters": True,
            "json_serializer": lambda value: orjson.dumps(value).decode(),
            "json_deserializer": orjson.loads,
            "connect_args": {
                "server_settings": self._settings,
                "command_timeout": COMMAND_S,
                "timeout": CONNECT_S,
            },
        }
        self.engine: AsyncEngine = create_async_engine(
            engine_url(url),
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=ACQUIRE_S,
            pool_pre_ping=True,
            pool_recycle=1800,
            **shared,
        )
        # For whoever keeps a connection: none of the pool's, and closed when it is given back.
        self.alone: AsyncEngine = create_async_engine(engine_url(url), poolclass=NullPool, **shared)
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    async def fast(self) -> Statements:
        """Give the raw connections for reads of one statement."""
        return self._reads

    async def writing(self) -> Statements:
        """Give the raw connections of the group commit."""
        return self._writes

    async def arriving(self) -> Statements:
        """Give the raw connections for what everyone asks who connects.

        Each of its statements is planned once: PostgreSQL would plan those that take lists anew
        each time, which costs several times what they do. Nothing with optional filters goes here.
        """
        return self._arrivals

    def pool(self, *, size: int, settings: Mapping[str, str]) -> Statements:
        """Give raw connections with settings of their own; the caller closes them."""
        return Statements(self._url, size=size, settings={**self._settings, **settings})

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Open a session and a transaction; leaving the block commits.

        Raises:
            UnavailableError: PostgreSQL is away, too slow, or the pool is exhausted.
        """
        with outages():
            async with self.sessions() as session, session.begin():
                yield session

    def standing(self) -> dict[str, PoolStanding]:
        """Tell how full each pool is."""
        pool = self.engine.pool
        # Typed as any pool; ours counts, and whoever waits for it counts nowhere.
        busy, idle = cast("QueuePool", pool).checkedout(), cast("QueuePool", pool).checkedin()
        return {
            "services": PoolStanding(busy=busy, idle=idle, limit=self._pool_size, waiting=0),
            "reads": self._reads.standing(),
            "writes": self._writes.standing(),
            "arrivals": self._arrivals.standing(),
        }

    async def close(self) -> None:
        """Close every connection, without waiting for the hopeless ones."""
        await asyncio.gather(self._reads.close(), self._writes.close(), self._arrivals.close())
        await asyncio.gather(self.engine.dispose(), self.alone.dispose())


class OneSession:
    """The connection of one session, for statements that are written for raw connections.

    What they read is of the session's own transaction.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def freeze(self) -> None:
        """Have all that is read from now on be of one moment; only as the very first statement."""
        await self._session.execute(
            text("set transaction isolation level repeatable read, read only")
        )

    async def fast(self) -> "asyncpg.Connection[asyncpg.Record]":
        connection = await self._session.connection()
        raw: asyncpg.Connection[asyncpg.Record] | None = (
            await connection.get_raw_connection()
        ).driver_connection
        assert raw is not None  # noqa: S101 - the session holds it
        return raw

    async def writing(self) -> "asyncpg.Connection[asyncpg.Record]":
        return await self.fast()

    async def arriving(self) -> "asyncpg.Connection[asyncpg.Record]":
        return await self.fast()


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
        OUTAGES[type(error).__name__] += 1
        raise UnavailableError from error
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or ""
        if error.connection_invalidated or state.startswith(_PASSING):
            OUTAGES[state or type(error).__name__] += 1
            raise UnavailableError from error
        raise
    except asyncpg.PostgresError as error:
        if is_passing(error):
            OUTAGES[error.sqlstate or type(error).__name__] += 1
            raise UnavailableError from error
        raise


def is_passing(error: asyncpg.PostgresError) -> bool:
    """Tell an outage from a fault of the statement."""
    return (error.sqlstate or "").startswith(_PASSING)
