"""The queries of searching, on connections of their own: a slow search holds nobody else up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from chatserver.chat.rows import MESSAGE, message_of
from chatserver.infra.database import outages
from chatserver.infra.statements import Statements
from chatserver.search.policies import Term

# The planner knows too little about lexemes of ours to choose: for all sizes the index is right.
SETTINGS: Final = {
    "application_name": "chatserver search",
    "statement_timeout": "2500",
    "enable_seqscan": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    # A common word's list of places must stay exact, or every row would be read to be sure.
    "work_mem": "16MB",
}
# Marks that no text has any more when it is looked through: control characters are taken out. The
# third stands for `<` meanwhile: PostgreSQL would leave out what looks like a tag.
START, STOP, LESS = "\x02", "\x03", "\x04"

# `$4`, `$5`: only what is older than that; `$8`: the reader, null for the application itself. A
# public channel is read by everyone, but looked through only when it is named.
SEARCH: Final = """
with hit as materialized (
  select s.message_id, s.room_id, s.seq, s.created_at from message_search s
  where s.search @@ $1::text::tsquery and s.client_id = $2
    and ($3::timestamptz is null or s.created_at >= $3)
    and (s.created_at, s.message_id) < ($4::timestamptz, $5::uuid)
    and ($6::uuid is null or s.room_id = $6)
  limit $7
), newest as (
  select h.message_id, h.created_at
  from hit h
  join room r on r.id = h.room_id and r.client_id = $2 and r.deleted_at is null
    and h.seq >= r.min_seq
  left join member x on x.room_id = h.room_id and x.user_id = $8
  where ($8::uuid is null or h.seq >= x.min_seq
    or (x.user_id is null and r.type = 'channel' and $6::uuid is not null))
  order by h.created_at desc, h.message_id desc limit $9
)
select k.looked_at, n.message_id, n.created_at, (
    select ts_rank_cd(s.search, $10::text::tsquery, 1)::float8 from message_search s
    where s.message_id = n.message_id) as score
from (select count(*) as looked_at from hit) k left join newest n on true
"""
_SHOW: Final = f"""
select {MESSAGE}, ts_headline($3::text::regconfig,
    translate(left(m.content, 20000), $5, $6), $2::text::tsquery, $4) as headline
from message m where m.id = any ($1) and m.deleted_at is null
  and ($7::text is null or m.sender_id = $7)
"""  # noqa: S608 - constants of this file
_OPTIONS: Final = f"StartSel={START}, StopSel={STOP}, MaxWords=40, MinWords=20, ShortWord=0"
_ROOMS: Final = "select room_id from member where user_id = $1 limit $2"
_LANGUAGE: Final = (
    "select coalesce(settings ->> 'search_language', 'simple'), clock_timestamp()"
    " from client where id = $1"
)
_QUERY: Final = "select message_search_query($1, $2, $3, $4)::text"


@dataclass(frozen=True, slots=True)
class Found:
    """A message that fits."""

    message_id: UUID
    created_at: datetime
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look into the index; `query` is of words and scope, `words` of words alone."""

    client_id: UUID
    query: str
    words: str
    since: datetime | None
    before: tuple[datetime, UUID]
    room_id: UUID | None
    reader: UUID | None


class SearchRepository:
    def __init__(self, pool: Statements) -> None:
        self._pool = pool

    async def language(self, client_id: UUID) -> tuple[str, datetime]:
        """Read the client's language, and what time it is."""
        [row] = await self._fetch(_LANGUAGE, client_id)
        return row[0], row[1]

    async def query(self, language: str, terms: Sequence[Term]) -> str | None:
        """Write terms as a tsquery; None: there are only words that nobody looks for."""
        [row] = await self._fetch(
            _QUERY,
            language,
            [term.kind for term in terms],
            [term.text for term in terms],
            [term.is_not for term in terms],
        )
        query: str | None = row[0]
        return query

    async def rooms_of(self, user_id: UUID, limit: int) -> list[UUID]:
        return [row[0] for row in await self._fetch(_ROOMS, user_id, limit)]

    async def look(self, look: Look, *, most: int, wanted: int) -> tuple[int, list[Found]]:
        """Look at up to `most` entries; how many it were, and the newest `wanted` to be read."""
        rows = await self._fetch(SEARCH, *values_of(look, most=most, wanted=wanted))
        found = [Found(row[1], row[2], row[3]) for row in rows if row[1] is not None]
        return rows[0]["looked_at"], found

    async def show(
        self, ids: Sequence[UUID], *, words: str, language: str, sender: str | None
    ) -> dict[UUID, tuple[dict[str, Any], str]]:
        """Read messages, each with its best part, whose matches stand between marks."""
        rows = await self._fetch(
            _SHOW,
            list(ids),
            words,
            language,
            _OPTIONS,
            f"<{START}{STOP}{LESS}",
            LESS,
            sender,
        )
        return {row["m_id"]: (message_of(row), row["headline"].replace(LESS, "<")) for row in rows}

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        with outages():
            return await self._pool.fetch(statement, *values)


def values_of(look: Look, *, most: int, wanted: int) -> tuple[object, ...]:
    """Give the parameters of `SEARCH`."""
    return (
        look.query,
        look.client_id,
        look.since,
        *look.before,
        look.room_id,
        most,
        look.reader,
        wanted,
        look.words,
    )
