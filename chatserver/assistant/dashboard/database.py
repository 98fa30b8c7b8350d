"""The database of another application that keeps bots and training sources: read, never migrated.

It must have `chatserver_bot` and `chatserver_source`, tables or views (docs/assistant.md has their
columns). All that is ever written there is the state of a source.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson
import structlog

from chatserver.infra.database import outages
from chatserver.kernel.errors import UnavailableError

FRESH_S: Final = 5.0
TIMEOUT_S: Final = 2.0
LONGEST_NAME: Final = 128

_BOTS: Final = """
select id, name, instructions, model, temperature, retrieval, updated_at from chatserver_bot
where client_id = $1 and deleted_at is null order by id
"""
_SOURCES: Final = """
select id, bot_id, kind, name, title, url, text, storage_key from chatserver_source
where client_id = $1 and id = any ($2::uuid[]) and deleted_at is null
"""
_REPORT: Final = """
update chatserver_source set status = $3, reason = $4, chunks = $5, status_at = clock_timestamp()
where client_id = $1 and id = $2
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Source:
    """A training source as it stands there."""

    id: UUID
    bot_id: UUID
    kind: str
    name: str
    title: str | None
    url: str | None
    text: str | None
    storage_key: str | None


class Dashboard:
    """Asks with a short patience: whatever it said last holds while it is away."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._asked: dict[UUID, float] = {}
        self._is_there = True

    async def all(self, client_id: UUID) -> Sequence[dict[str, Any]] | None:
        """Give a client's bots; None: it is away, or was asked a moment ago."""
        now = time.monotonic()
        if now - self._asked.get(client_id, -FRESH_S) < FRESH_S:
            return None
        self._asked[client_id] = now
        try:
            rows = await self._fetch(_BOTS, client_id)
        except UnavailableError as error:
            self._note(is_there=False, error=error)
            return None
        self._note(is_there=True)
        return [
            {
                "id": row["id"],
                "client_id": client_id,
                "name": row["name"][:LONGEST_NAME],
                "instructions": row["instructions"] or "",
                "model": row["model"],
                "temperature": row["temperature"],
                "retrieval": orjson.loads(row["retrieval"] or "{}"),
                "updated_at": row["updated_at"],
                "access": "everyone",
            }
            for row in rows
        ]

    async def sources(self, client_id: UUID, ids: Sequence[UUID]) -> list[Source]:
        """Give training sources; those that are unknown are left out.

        Raises:
            UnavailableError: it is away.
        """
        rows = await self._fetch(_SOURCES, client_id, list(ids))
        return [Source(**dict(row)) for row in rows]

    async def report(
        self, client_id: UUID, source_id: UUID, *, status: str, reason: str | None, chunks: int
    ) -> None:
        """Write back how a source is. While it is away that is lost; our own rows have it."""
        try:
            await self._fetch(_REPORT, client_id, source_id, status, reason, chunks)
        except UnavailableError as error:
            self._note(is_there=False, error=error)

    async def close(self) -> None:
        if self._pool is not None:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()

    async def _fetch(self, query: str, *values: Any) -> "list[asyncpg.Record]":  # noqa: ANN401
        with outages():
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=0,
                    max_size=2,
                    timeout=TIMEOUT_S,
                    command_timeout=TIMEOUT_S,
                    server_settings={"application_name": "chatserver"},
                )
            return list(await self._pool.fetch(query, *values))

    def _note(self, *, is_there: bool, error: Exception | None = None) -> None:
        if is_there != self._is_there:
            if is_there:
                log.info("dashboard_database_back")
            else:
                cause = type(error.__cause__ if error else None).__name__
                log.warning("dashboard_database_away", error=cause)
        self._is_there = is_there
