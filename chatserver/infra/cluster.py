"""Which life of the database this is, and which of all processes has a role.

The generation rises when a failover or a restore may have lost writes: clients that are ahead of
the log then reload instead of taking new facts for old ones.
"""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import datetime
from enum import IntEnum
from typing import Final

import structlog
from sqlalchemy import BigInteger, Column, Integer, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from chatserver.infra.database import Database, outages
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.tables import time_column
from chatserver.kernel.tasks import end

log = structlog.get_logger()

# For as long as this a node may not know that the database was restored beneath it.
LOOK_S: Final = 3.0
LOOK_AGAIN_S: Final = 1.0
ANSWER_S: Final = 3.0
# PostgreSQL must notice soon that a holder's machine is gone; by default that takes two hours.
_KEEPALIVE: Final = (
    "set tcp_keepalives_idle = 5",
    "set tcp_keepalives_interval = 2",
    "set tcp_keepalives_count = 3",
)
_TRY: Final = text("select pg_try_advisory_lock(:role)")


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
        await end(self._watching)

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


class Role(IntEnum):
    """What one process of the whole cluster does at a time; each is the number of a lock."""

    CHANGE_LIST = 0x63686174
    SCHEDULER = 0x63686174_73636864


class AdvisoryLeader:
    """One role for one process of the whole cluster: a session lock on a connection of its own.

    Whoever does all of the role's work through `connection` can't go on once the role is lost.
    """

    def __init__(self, database: Database, role: int) -> None:
        self._database = database
        self._role = role
        self.connection: AsyncConnection | None = None

    async def leads(self) -> bool:
        """Take the lead if it is free, or keep it; losing the connection loses it.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        try:
            with outages():
                async with asyncio.timeout(ANSWER_S):
                    if self.connection is not None:
                        # The lock is the session's: as long as that answers, it is still ours.
                        await self.connection.execute(text("select true"))
                        await self.connection.commit()
                        return True
                    return await self._take()
        except UnavailableError:
            await self.resign()
            raise

    async def _take(self) -> bool:
        connection = self.connection = await self._database.alone.connect()
        for setting in _KEEPALIVE:
            await connection.execute(text(setting))
        taken = await connection.execute(_TRY, {"role": self._role})
        is_ours = bool(taken.scalar_one())
        # The transaction that took the lock must not stay open.
        await connection.commit()
        if not is_ours:
            await self.resign()
        return is_ours

    async def resign(self) -> None:
        """Let another process lead."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it is gone, which is all that is wanted
                async with asyncio.timeout(ANSWER_S):
                    await connection.invalidate()
                    await connection.close()
