"""Which life of the database this is, and which of all processes has a role.

The generation rises when a failover or a restore may have lost writes: clients that are ahead of
the log then reload instead of taking new facts for old ones.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

import asyncpg
import structlog
from sqlalchemy import BigInteger, Column, Integer
from sqlmodel import Field, SQLModel

from chatserver.infra.database import Database, outages
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.tables import time_column

log = structlog.get_logger()

LOOK_S: Final = 10.0
LOOK_AGAIN_S: Final = 1.0
ANSWER_S: Final = 3.0


class ClusterGeneration(SQLModel, table=True):
    """One row: the (system identifier, timeline) that was seen last, and its number."""

    __tablename__ = "cluster_generation"

    singleton: bool = Field(default=True, primary_key=True)
    generation: int = Field(sa_column=Column(Integer, nullable=False))
    system_identifier: int = Field(sa_column=Column(BigInteger, nullable=False))
    timeline: int = Field(sa_column=Column(BigInteger, nullable=False))
    since: datetime = Field(default=None, sa_column=time_column(default_now=True))


class Generation:
    """The generation as this process knows it; `changed` is called when it becomes another."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._number = 0
        self._watching: asyncio.Task[None] | None = None
        self.changed: Callable[[], None] = lambda: None

    def __call__(self) -> int:
        """Give the number.

        Raises:
            UnavailableError: PostgreSQL was not reached yet.
        """
        if not self._number:
            raise UnavailableError
        return self._number

    async def start(self) -> None:
        """Read it, if PostgreSQL is there, and look again from time to time."""
        await self._look()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def _watch(self) -> None:
        pause = LOOK_S if self._number else LOOK_AGAIN_S
        while True:
            await asyncio.sleep(pause)
            pause = LOOK_S if await self._look() else LOOK_AGAIN_S

    async def _look(self) -> bool:
        try:
            with outages():
                pool = await self._database.fast()
                found: int = await pool.fetchval(
                    "select cluster_generation_now()", within_s=ANSWER_S
                )
        except UnavailableError:
            return False
        if self._number not in {0, found}:
            log.warning("cluster_generation_changed", was=self._number, now=found)
            self._number = found
            self.changed()
        self._number = found
        return True


class AdvisoryLeader:
    """One role for one process of the whole cluster: a session lock on a connection of its own."""

    def __init__(self, database: Database, role: int) -> None:
        self._database = database
        self._role = role
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def leads(self) -> bool:
        """Take the lead if it is free, or keep it; losing the connection loses it.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        try:
            with outages():
                if self._connection is not None:
                    # The lock is the session's: as long as that answers, it is still ours.
                    return bool(await self._connection.fetchval("select true", timeout=ANSWER_S))
                connection = await self._database.connect()
                taken: bool = await connection.fetchval(
                    "select pg_try_advisory_lock($1)", self._role, timeout=ANSWER_S
                )
        except UnavailableError:
            await self.resign()
            raise
        if taken:
            self._connection = connection
        else:
            await connection.close(timeout=ANSWER_S)
        return taken

    async def resign(self) -> None:
        """Let another process lead."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            connection.terminate()
