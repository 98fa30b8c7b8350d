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
    # A plan for all words alike goes by one hit and steps through every room at each of thousands.
    "plan_cache_mode": "force_custom_plan",
    # A common word's list of places must stay exact, or every row would be read to be sure.
    "work_mem": "16MB",
}
# Marks that no text has any more when it is looked through: control characters are taken out. The
# third stands for `<` meanwhile: PostgreSQL would leave out what looks like a tag.
START, STOP, LESS = "\x02", "\x03", "\x04"

# What is looked for is several conditions on the one index, never one long query: GIN walks them
# side by side and leaps over what another has not, where a single query would walk every lexeme of
# its rarest part from beginning to end. `$3`, `$4`: only what is older than that.
_HIT = """
with hit as materialized (
  select s.message_id, s.room_id, s.seq, s.created_at from message_search s
  where {keys} and s.client_id = $1
    and ($2::timestamptz is null or s.created_at >= $2)
    and (s.created_at, s.message_id) < ($3::timestamptz, $4::uuid)
    and ($5::uuid is null or s.room_id = $5)
  limit $6
)"""
# `$9`: the reader. Few seats against many hits: they are looked up once, not at every hit. A public
# channel is read by everyone, but looked through only when it is named.
_OF_READER = """, seat as materialized (
  select r.id as room_id, greatest(x.min_seq, r.min_seq) as floor
  from member x join room r on r.id = x.room_id
  where x.user_id = $9 and r.client_id = $1 and r.deleted_at is null
    and ($5::uuid is null or r.id = $5)
  union all
  select r.id, r.min_seq from room r
  where r.id = $5 and r.client_id = $1 and r.deleted_at is null and r.type = 'channel'
    and not exists (select from member x where x.room_id = r.id and x.user_id = $9)
), newest as (
  select h.message_id, h.created_at from hit h
  join seat on seat.room_id = h.room_id and h.seq >= seat.floor
  order by h.created_at desc, h.message_id desc limit $7
)"""
_OF_CLIENT = """, newest as (
  select h.message_id, h.created_at from hit h
  join room r on r.id = h.room_id and r.client_id = $1 and r.deleted_at is null
    and h.seq >= r.min_seq
  order by h.created_at desc, h.message_id desc limit $7
)"""
_RANKED = """
select k.looked_at, n.message_id, n.created_at, (
    select ts_rank_cd(s.search, $8::text::tsquery, 1)::float8 from message_search s
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
    """One look into the index; `keys` all hold: the words, and whatever narrows them."""

    client_id: UUID
    keys: tuple[str, ...]
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
        rows = await self._fetch(*statement_of(look, most=most, wanted=wanted))
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


def statement_of(look: Look, *, most: int, wanted: int) -> tuple[Any, ...]:
    """Write a look as a statement, of which there are few, and its parameters."""
    values = [
        look.client_id,
        look.since,
        *look.before,
        look.room_id,
        most,
        wanted,
        look.words,
        *([look.reader] if look.reader is not None else []),
    ]
    first = len(values) + 1
    keys = " and ".join(
        f"s.search @@ ${number}::text::tsquery" for number in range(first, first + len(look.keys))
    )
    who = _OF_CLIENT if look.reader is None else _OF_READER
    return (_HIT.format(keys=keys) + who + _RANKED, *values, *look.keys)
