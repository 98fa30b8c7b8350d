"""The two legs of a search, each with client and bot before any ranking; and the receipts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from chatserver.assistant.retrieval.policies import Candidate
from chatserver.infra.database import Database, outages

# Up to so many parts of a bot each is looked at: exact, and faster than an index with a filter.
EXACT_PARTS: Final = 50_000
POOL: Final = 6
# As `reading/chunking.py` cuts them.
CHUNK_TOKENS: Final = 512
PART_TOKENS: Final = 128
# Plans are made for the very bot: a partial index is of no use to a plan that fits all.
SETTINGS: Final = {
    "plan_cache_mode": "force_custom_plan",
    "jit": "off",
    "hnsw.ef_search": "200",
    "hnsw.iterative_scan": "relaxed_order",
    "hnsw.max_scan_tuples": "40000",
}
LEXICAL: Final = 100
NEAREST: Final = 200
RECEIPT_CANDIDATES: Final = 50

_STANDING: Final = """
select i.bot_id, i.model_id, m.dimension, i.n_chunks, i.n_parts, i.configs,
  coalesce(x.indisvalid and x.indisready, false) as has_index
from bot_index i join embedding_model m on m.id = i.model_id
left join pg_index x on x.indexrelid = to_regclass(
  'public.hnsw_' || replace(i.bot_id::text, '-', '') || '_' || i.model_id)
where i.client_id = $1 and i.bot_id = any ($2::uuid[])
"""

# BM25 with k1 = 1.2 and b = 0.75, over the words of the question as OR, in two steps. A word in
# more than one of twenty passages (`most`) is frequent: it says little, its postings cost most. So
# rare words choose the candidates, and frequent ones only rank these; in how many passages a
# frequent word is, is guessed by the candidates. Fewer than two rare words: all of them choose.
_LEX: Final = """
with stats as (
  select n_chunks::float8 as n, greatest(n_terms, 1)::float8 / greatest(n_chunks, 1) as avg_terms,
    greatest(n_chunks * 0.05, 50)::bigint as most
  from bot_index where client_id = $1 and bot_id = $2),
query_term as materialized (
  select distinct lexeme from unnest($4::text[]) as cfg,
    unnest(to_tsvector(cfg::regconfig, $3::text)) limit 64),
probe as materialized (
  select q.lexeme, t.chunk_id, t.tf, t.n_terms
  from query_term q cross join stats s cross join lateral (
    select chunk_id, tf, n_terms from chunk_term
    where client_id = $1 and bot_id = $2 and lexeme = q.lexeme limit s.most + 1) t),
seen as materialized (
  select lexeme, count(*) > s.most as is_frequent
  from probe cross join stats s group by lexeme, s.most),
few as materialized (select count(*) filter (where not is_frequent) < 2 as is_so from seen),
hit as materialized (
  select p.lexeme, p.chunk_id, p.tf, p.n_terms
  from probe p join seen using (lexeme) where not is_frequent
  union all
  select t.lexeme, t.chunk_id, t.tf, t.n_terms
  from few cross join seen join chunk_term t using (lexeme)
  where few.is_so and seen.is_frequent and t.client_id = $1 and t.bot_id = $2),
idf as materialized (
  select lexeme, ln(1 + (greatest(n - count(*), 0) + 0.5::float8) / (count(*) + 0.5::float8)) as w
  from hit, stats group by lexeme, n),
candidate as materialized (
  select h.chunk_id,
    sum(idf.w * h.tf * 2.2::float8 / (h.tf + 1.2::float8
      * (0.25::float8 + 0.75::float8 * h.n_terms / s.avg_terms))) as score
  from hit h join idf using (lexeme) cross join stats s
  group by h.chunk_id order by score desc, h.chunk_id limit {lexical}),
often as materialized (
  select seen.lexeme, c.chunk_id, t.tf, t.n_terms
  from few cross join seen cross join candidate c cross join lateral (
    select tf, n_terms from chunk_term where client_id = $1 and bot_id = $2
      and lexeme = seen.lexeme and chunk_id = c.chunk_id offset 0) t
  where not few.is_so and seen.is_frequent),
often_idf as (
  select lexeme, ln(1 + (greatest(n - df, 0) + 0.5::float8) / (df + 0.5::float8)) as w from (
    select lexeme, s.n,
      greatest(s.most, s.n * count(*) / (select count(*) from candidate)) as df
    from often cross join stats s group by lexeme, s.n, s.most) guessed),
lex as (
  select chunk_id, sum(score) as score from (
    select chunk_id, score from candidate
    union all
    select o.chunk_id, i.w * o.tf * 2.2::float8 / (o.tf + 1.2::float8
      * (0.25::float8 + 0.75::float8 * o.n_terms / s.avg_terms))
    from often o join often_idf i using (lexeme) cross join stats s) weighed
  group by chunk_id)
"""
_ALONE: Final = """
select chunk_id, 0::float8 as cosine, score as bm25, (select max(w) from idf) as rarest from lex
"""
# The best part speaks for its chunk.
_MERGED: Final = """
, nearest as materialized (
  select chunk_id, {distance} as d from chunk_part
  where client_id = $1 and bot_id = $2 and model_id = $6
  order by {order} limit {nearest}),
sem as (select chunk_id, 1 - min(d) as score from nearest group by chunk_id)
select coalesce(lex.chunk_id, sem.chunk_id) as chunk_id,
  greatest(coalesce(sem.score, 0), 0)::float8 as cosine, coalesce(lex.score, 0) as bm25,
  (select max(w) from idf) as rarest
from lex full join sem using (chunk_id)
"""
_WORDS: Final = _LEX.format(lexical=LEXICAL) + _ALONE
_BOTH: Final = _LEX + _MERGED
_CHUNKS: Final = """
select c.id, c.document_id, c.bot_id, d.indexed_version, d.title, d.url, c.char_start, c.char_end,
  c.page_start, c.page_end, c.heading, c.body
from chunk c join document d on d.client_id = c.client_id and d.id = c.document_id
where c.client_id = $1 and c.bot_id = any ($2::uuid[]) and c.id = any ($3::uuid[])
  and d.deleted_at is null
"""
_EXIST: Final = """
select c.id from chunk c join document d on d.client_id = c.client_id and d.id = c.document_id
where c.client_id = $1 and c.id = any ($2::uuid[]) and d.deleted_at is null
"""
_KEEP: Final = """
insert into retrieval (id, client_id, bot_ids, user_id, query, model_id, legs, weight, top,
  candidates, timings, is_whole)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb, $11::jsonb, $12)
"""
_RECEIPT: Final = """
select id, bot_ids, query, model_id, legs, weight, top, is_whole, candidates, timings, created_at
from retrieval where client_id = $1 and id = $2 and $3 = any (bot_ids)
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a bot's search stands on. `is_exact`: every part is looked at."""

    bot_id: UUID
    model_id: int
    dimension: int
    n_chunks: int
    n_parts: int
    configs: tuple[str, ...]
    has_index: bool

    @property
    def tokens(self) -> int:
        """How many tokens its passages have at most."""
        return min(self.n_chunks * CHUNK_TOKENS, self.n_parts * PART_TOKENS)

    @property
    def is_exact(self) -> bool:
        return self.n_parts <= EXACT_PARTS or not self.has_index


def nearest_first(dimension: int, *, is_exact: bool) -> tuple[str, str]:
    """Give the distance and the order of the vector leg; "+ 0" keeps indexes out of it."""
    if is_exact:
        distance = f"(v <=> $5::halfvec({dimension}))"
        return distance, f"{distance} + 0"
    distance = f"((v::halfvec({dimension})) <=> $5::halfvec({dimension}))"
    return distance, distance


def statement(standing: Standing) -> str:
    """Give the statement for a bot, with a vector for the question."""
    distance, order = nearest_first(int(standing.dimension), is_exact=standing.is_exact)
    return _BOTH.format(distance=distance, order=order, lexical=LEXICAL, nearest=NEAREST)


class SearchRepository:
    """Searches under autocommit, on connections of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pool = database.pool(size=POOL, settings=SETTINGS)

    async def close(self) -> None:
        await self._pool.close()

    async def standings(self, client_id: UUID, bot_ids: Sequence[UUID]) -> list[Standing]:
        rows = await self._fetch(_STANDING, client_id, list(bot_ids))
        return [
            Standing(
                bot_id=row["bot_id"],
                model_id=row["model_id"],
                dimension=row["dimension"],
                n_chunks=row["n_chunks"],
                n_parts=row["n_parts"],
                configs=tuple(row["configs"]),
                has_index=row["has_index"],
            )
            for row in rows
        ]

    async def candidates(
        self, client_id: UUID, standing: Standing, question: str, vector: str | None
    ) -> tuple[list[Candidate], float]:
        """Ask both legs about one bot; the second figure is the idf of the rarest word found."""
        names: list[Any] = [client_id, standing.bot_id, question, list(standing.configs)]
        if vector is None:
            rows = await self._fetch(_WORDS, *names)
        else:
            rows = await self._fetch(statement(standing), *names, vector, standing.model_id)
        rarest = max((row["rarest"] or 0.0 for row in rows), default=0.0)
        found = [
            Candidate(row["chunk_id"], standing.bot_id, row["cosine"], row["bm25"]) for row in rows
        ]
        return found, rarest

    async def chunks(
        self, client_id: UUID, bot_ids: Sequence[UUID], ids: Sequence[UUID]
    ) -> dict[UUID, "asyncpg.Record"]:
        """Read passages; those of documents that are deleted by now are left out."""
        rows = await self._fetch(_CHUNKS, client_id, list(bot_ids), list(ids))
        return {row["id"]: row for row in rows}

    async def exist(self, client_id: UUID, ids: Sequence[UUID]) -> set[UUID]:
        rows = await self._fetch(_EXIST, client_id, list(ids))
        return {row["id"] for row in rows}

    async def keep(self, receipt_id: UUID, client_id: UUID, values: dict[str, Any]) -> None:
        """Store a receipt."""
        await self._fetch(
            _KEEP,
            receipt_id,
            client_id,
            values["bot_ids"],
            values["asked_by"],
            values["query"],
            values["model_id"],
            values["legs"],
            values["weight"],
            values["top"],
            orjson.dumps(values["candidates"]).decode(),
            orjson.dumps(values["timings"]).decode(),
            values["is_whole"],
        )

    async def receipt(
        self, client_id: UUID, bot_id: UUID, receipt_id: UUID
    ) -> "asyncpg.Record | None":
        rows = await self._fetch(_RECEIPT, client_id, receipt_id, bot_id)
        return rows[0] if rows else None

    async def _fetch(self, query: str, *values: Any) -> "list[asyncpg.Record]":  # noqa: ANN401
        with outages():
            return await self._pool.fetch(query, *values)
