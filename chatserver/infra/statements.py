"""Single statements under autocommit on a few raw connections: the hot paths' way to PostgreSQL.

The driver's own pool makes a future, a task and timers for every use: a small statement costs 18 us
of CPU, through the pool 51 (measured). So a connection that did its work without a fault goes back
on a stack here, and only one that did not goes the pool's way, which cleans it up or ends it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

COMMAND_S: Final = 6.0
CONNECT_S: Final = 3.0
# Firewalls forget connections that are silent for long: one that idled longer is not used again.
IDLE_S: Final = 600.0
CLOSE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStanding:
    """How full a pool is: connections in use and free, the most it opens, who waits for one."""

    busy: int
    idle: int
    limit: int
    waiting: int


class Statements:
    """At most `size` connections, opened when first needed; whoever finds none free waits in line.

    Each call is one statement. Raises what asyncpg raises.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int,
        settings: dict[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._size = size
        self._settings = settings
        self._clock = clock
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._opening = asyncio.Lock()
        self._places = asyncio.Semaphore(size)
        self._idle: list[tuple[Any, float]] = []
        self._is_closed = False

    async def fetch(
        self, statement: str, *values: object, within_s: float | None = None
    ) -> list[asyncpg.Record]:
        """Give all rows; `within_s` is for the statement alone, `COMMAND_S` unless given."""
        rows: list[asyncpg.Record] = await self._run("fetch", statement, values, within_s)
        return rows

    async def fetchrow(
        self, statement: str, *values: object, within_s: float | None = None
    ) -> asyncpg.Record | None:
        """Give the first row."""
        row: asyncpg.Record | None = await self._run("fetchrow", statement, values, within_s)
        return row

    async def fetchval(self, statement: str, *values: object, within_s: float | None = None) -> Any:  # noqa: ANN401 - whatever the column holds
        """Give the first column of the first row."""
        return await self._run("fetchval", statement, values, within_s)

    async def execute(self, statement: str, *values: object, within_s: float | None = None) -> str:
        """Run a statement; give what PostgreSQL says it did."""
        done: str = await self._run("execute", statement, values, within_s)
        return done

    async def _run(
        self, how: str, statement: str, values: tuple[object, ...], within_s: float | None
    ) -> Any:  # noqa: ANN401 - as the driver's method of that name
        async with self._places:
            connection = self._pop() or await (await self._open()).acquire()
            try:
                found = await getattr(connection, how)(statement, *values, timeout=within_s)
            except BaseException as error:
                await self._take_back(connection, error)
                raise
            await self._put(connection)
            return found

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        """Have a connection to oneself."""
        async with self._places:
            connection = self._pop() or await (await self._open()).acquire()
            try:
                yield connection
            except BaseException as error:
                await self._take_back(connection, error)
                raise
            await self._put(connection)

    def standing(self) -> PoolStanding:
        """Tell how full it is."""
        waiters = self._places._waiters or ()  # noqa: SLF001 - the semaphore doesn't tell
        free = self._places._value  # noqa: SLF001
        return PoolStanding(
            busy=self._size - free,
            idle=len(self._idle),
            limit=self._size,
            waiting=sum(1 for each in waiters if not each.done()),
        )

    async def close(self) -> None:
        """Close all of them, without waiting for the hopeless ones."""
        self._is_closed = True
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                while self._idle:
                    await self._let_go(self._idle.pop()[0])
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    def _pop(self) -> Any:  # noqa: ANN401 - the driver's proxy of a connection
        """Take the connection that was used last, if there is one that still stands."""
        while self._idle:
            connection, since = self._idle.pop()
            if not _stands(connection):
                continue
            if self._clock() - since <= IDLE_S:
                return connection
            connection.terminate()
        return None

    async def _put(self, connection: Any) -> None:  # noqa: ANN401
        if self._is_closed:
            await self._let_go(connection)
        else:
            self._idle.append((connection, self._clock()))

    async def _take_back(self, connection: Any, error: BaseException) -> None:  # noqa: ANN401
        # A fault of the statement leaves nothing behind under autocommit. Whatever else it was
        # (cancelled, timed out, cut off), the connection may be in the middle of something.
        if isinstance(error, asyncpg.PostgresError) and _stands(connection):
            await self._put(connection)
        else:
            await self._let_go(connection)

    async def _let_go(self, connection: Any) -> None:  # noqa: ANN401
        assert self._pool is not None  # noqa: S101 - it came from there
        await self._pool.release(connection)

    async def _open(self) -> "asyncpg.Pool[asyncpg.Record]":
        if self._pool is None:
            async with self._opening:
                if self._pool is None:
                    self._pool = await asyncpg.create_pool(
                        self._url,
                        min_size=1,
                        max_size=self._size,
                        command_timeout=COMMAND_S,
                        timeout=CONNECT_S,
                        max_inactive_connection_lifetime=IDLE_S,
                        reset=_keep,
                        server_settings=self._settings,
                    )
        return self._pool


def _stands(connection: Any) -> bool:  # noqa: ANN401 - the driver's proxy of a connection
    """Tell whether a connection is still open.

    One that PostgreSQL has closed is taken back by the driver's pool at that moment, behind our
    back, and from then on refuses even to be asked.
    """
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False


async def _keep(_: object) -> None:
    """Reset nothing: every call is one statement under autocommit, it leaves nothing behind.

    asyncpg's own reset costs a round trip at every release.
    """
