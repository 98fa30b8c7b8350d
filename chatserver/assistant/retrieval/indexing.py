"""Builds the vector indexes of large bots: one partial HNSW each, beside all work, by the migrator.

An index is DDL, and the application's role has rights to rows alone. Until an index is there and
valid, the bot is searched exactly: slower, never wrong.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from chatserver.assistant.retrieval.repository import EXACT_PARTS

# Before 0.8.4 a vacuum could damage such an index.
OLDEST_PGVECTOR: Final = (0, 8, 4)
LOCK_KEY: Final = 0x686E7377
BUILD_S: Final = 3600.0
MEMORY: Final = "512MB"

_DUE: Final = """
select i.client_id, i.bot_id, i.model_id, m.dimension
from bot_index i join embedding_model m on m.id = i.model_id
left join pg_index x on x.indexrelid = to_regclass(
  'public.hnsw_' || replace(i.bot_id::text, '-', '') || '_' || i.model_id)
where i.n_parts > $1 and ($2::uuid is null or i.bot_id = $2) and x.indisvalid is not true
order by i.n_parts
"""
# Of bots that are gone, embedded anew or small again; and what a broken build has left.
_ORPHANS: Final = """
select c.relname from pg_class c join pg_index x on x.indexrelid = c.oid
where x.indrelid = 'chunk_part'::regclass and starts_with(c.relname, 'hnsw_')
  and (not x.indisvalid or not exists (
    select from bot_index i where i.n_parts > $1 / 2
      and c.relname = 'hnsw_' || replace(i.bot_id::text, '-', '') || '_' || i.model_id))
"""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Due:
    client_id: UUID
    bot_id: UUID
    model_id: int
    dimension: int

    @property
    def name(self) -> str:
        return f"hnsw_{self.bot_id.hex}_{self.model_id}"

    @property
    def statement(self) -> str:
        # Nothing of this comes from a caller: ids and numbers of our own rows.
        return (
            f"create index concurrently if not exists {self.name} on chunk_part using hnsw"
            f" ((v::halfvec({int(self.dimension)})) halfvec_cosine_ops)"
            " with (m = 16, ef_construction = 64)"
            f" where client_id = '{self.client_id}' and bot_id = '{self.bot_id}'"
            f" and model_id = {int(self.model_id)}"
        )


class Indexer:
    """`url` is the migrator's."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def build_due(self, *, least: int = EXACT_PARTS, bot_id: UUID | None = None) -> int:
        """Build what is missing for bots with more than `least` parts; how many that were.

        Several processes may call it: one of them works, the others do nothing.
        """
        connection = await asyncpg.connect(self._url, timeout=5, command_timeout=BUILD_S)
        try:
            if not await connection.fetchval("select pg_try_advisory_lock($1)", LOCK_KEY):
                return 0
            if not await _is_sound(connection):
                return 0
            for row in await connection.fetch(_ORPHANS, least):
                await connection.execute(f"drop index concurrently if exists {row['relname']}")
            await connection.execute(f"set maintenance_work_mem = '{MEMORY}'")
            built = 0
            for row in await connection.fetch(_DUE, least, bot_id):
                due = Due(**row)
                await connection.execute(due.statement)
                log.info("vector_index_built", bot=str(due.bot_id), model=due.model_id)
                built += 1
            return built
        finally:
            await connection.close()


async def _is_sound(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    version = await connection.fetchval(
        "select extversion from pg_extension where extname = 'vector'"
    )
    parts = tuple(int(part) for part in str(version or "0").split(".") if part.isdigit())
    if parts >= OLDEST_PGVECTOR:
        return True
    log.warning("pgvector_too_old", version=version, needed="0.8.4")
    return False
