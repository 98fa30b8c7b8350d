"""What a worker writes while it holds an answer, and what followers read: single statements."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from chatserver.infra.database import Database, outages

RUNNING: Final = ("pending", "in_progress")

# `for no key update` of the job: who was taken over while this waited finds it is no longer his.
_BEGIN: Final = """
with held as materialized (
  select id from job where id = $1 and fence = $2 and state = 'running'
  for no key update),
mine as (
  update generation g set generation = g.generation + 1, attempt = g.attempt + 1,
    status = 'in_progress', started_at = coalesce(g.started_at, clock_timestamp())
  where g.client_id = $3 and g.message_id = $4 and g.status in ('pending', 'in_progress')
    and exists (select from held)
  returning g.*)
select mine.*, m.partial_content, m.deleted_at, m.seq, m.created_at as asked_at,
  q.content as question, r.members_count, r.type as room_type, r.deleted_at as room_deleted_at,
  clock_timestamp() as now,
  extract(epoch from clock_timestamp() - mine.started_at)::float8 as age_s
from mine
join message m on m.client_id = mine.client_id and m.id = mine.message_id
join room r on r.client_id = mine.client_id and r.id = mine.room_id
left join message q on q.client_id = mine.client_id and q.id = mine.question_id
"""
_FREEZE: Final = """
update generation set sources = cast($4 as jsonb), is_weak = $5, retrieval_id = $6
where client_id = $1 and message_id = $2 and generation = $3 and status = 'in_progress'
returning message_id
"""
# One statement for all answers of a worker. Rows that don't come back are somebody else's by now.
_CHECKPOINT: Final = """
with given as (
  select * from unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::text[])
    as g (client_id, message_id, generation, partial_index, partial)),
kept as (
  update generation x set partial_index = g.partial_index from given g
  where x.client_id = g.client_id and x.message_id = g.message_id
    and x.generation = g.generation and x.status = 'in_progress'
  returning x.client_id, x.message_id, x.cancel_requested_at),
told as (
  update message m set status = 'in_progress', partial_content = g.partial
  from given g join kept k on k.message_id = g.message_id
  where m.client_id = g.client_id and m.id = g.message_id and m.deleted_at is null)
select k.message_id, k.cancel_requested_at is not null or m.deleted_at is not null
from kept k join message m on m.client_id = k.client_id and m.id = k.message_id
"""
# A run that replaces what was shown has a number of its own.
_RAISE: Final = """
with raised as (
  update generation set generation = generation + 1, partial_index = $4
  where client_id = $1 and message_id = $2 and generation = $3 and status = 'in_progress'
  returning message_id, generation),
emptied as (
  update message m set partial_content = '' from raised r
  where m.client_id = $1 and m.id = r.message_id)
select generation from raised
"""
_RELEASE: Final = """
update generation set attempt = greatest(0, attempt - 1)
where client_id = $1 and message_id = $2 and generation = $3 and status = 'in_progress'
"""
# Where members read from their joining on, nothing from before the latest one is told again.
_HISTORY: Final = """
select m.sender, m.sender_id, m.content from message m join room r on r.id = m.room_id
where m.room_id = $1 and m.seq > 0 and m.seq < (select q.seq from message q where q.id = $2)
  and m.deleted_at is null and m.content <> ''
  and m.seq >= case when r.history = 'joined' then coalesce(
    (select max(x.min_seq) from member x where x.room_id = r.id), 1) else r.min_seq end
order by m.seq desc limit $3
"""
_PEEK: Final = """
select g.message_id, g.cancel_requested_at is not null or m.deleted_at is not null
from unnest($1::uuid[], $2::int[]) as given (message_id, generation)
join generation g on g.message_id = given.message_id and g.generation = given.generation
  and g.status = 'in_progress'
join message m on m.client_id = g.client_id and m.id = g.message_id
"""
_STATE: Final = """
select g.room_id, g.generation, g.partial_index, g.status, g.sources, g.is_weak, m.content,
  m.partial_content, m.status as m_status, m.deleted_at, m.seq, m.sender, m.details, m.context
from message m left join generation g on g.client_id = m.client_id and g.message_id = m.id
where m.client_id = $1 and m.id = $2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of an answer, as it was claimed. `age_s`: since the first of this row of tries."""

    client_id: UUID
    message_id: UUID
    room_id: UUID
    bot_id: UUID
    question_id: UUID
    asked_by: UUID | None
    generation: int
    attempt: int
    partial_index: int
    partial: str
    # The place of its `message.created` in the room.
    seq: int
    sources: list[dict[str, Any]] | None
    is_weak: bool
    question: str
    members_count: int
    is_gone: bool
    is_cancelled: bool
    asked_at: datetime
    now: datetime
    age_s: float


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The text of a running answer after so many deltas."""

    client_id: UUID
    message_id: UUID
    generation: int
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class State:
    """An answer as its row stands."""

    room_id: UUID
    generation: int
    index: int
    status: str
    text: str
    sources: list[dict[str, Any]] | None
    # The place of its message in the room.
    seq: int


class GenerationStore:
    """What a worker writes while it holds an answer, and what followers read: no transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, client_id: UUID, message_id: UUID, job: UUID, fence: int) -> Run | None:
        """Take an answer with a number of one's own. None: it has ended, or the job is lost."""
        rows = await self._write(_BEGIN, job, fence, client_id, message_id)
        if not rows:
            return None
        row = rows[0]
        return Run(
            client_id=client_id,
            message_id=message_id,
            room_id=row["room_id"],
            bot_id=row["bot_id"],
            question_id=row["question_id"],
            asked_by=row["asked_by"],
            generation=row["generation"],
            attempt=row["attempt"],
            partial_index=row["partial_index"],
            partial=row["partial_content"] or "",
            seq=row["seq"],
            sources=None if row["sources"] is None else orjson.loads(row["sources"]),
            is_weak=row["is_weak"],
            question=row["question"] or "",
            members_count=row["members_count"],
            is_gone=row["deleted_at"] is not None or row["room_deleted_at"] is not None,
            is_cancelled=row["cancel_requested_at"] is not None,
            asked_at=row["asked_at"],
            now=row["now"],
            age_s=row["age_s"],
        )

    async def freeze(
        self, run: Run, sources: Sequence[dict[str, Any]], *, is_weak: bool, receipt: UUID | None
    ) -> bool:
        """Keep what the answer is made from, for every later run of it."""
        frozen = orjson.dumps(list(sources)).decode()
        kept = await self._write(
            *(_FREEZE, run.client_id, run.message_id, run.generation, frozen, is_weak, receipt)
        )
        return bool(kept)

    async def checkpoint(self, points: Sequence[Checkpoint]) -> dict[UUID, bool]:
        """Store texts so far; by message whether it is to be cancelled. Missing: no longer ours."""
        rows = await self._write(
            _CHECKPOINT,
            [point.client_id for point in points],
            [point.message_id for point in points],
            [point.generation for point in points],
            [point.index for point in points],
            [point.text for point in points],
        )
        return {row[0]: row[1] for row in rows}

    async def raise_generation(self, run: Run, generation: int, index: int) -> int | None:
        """Begin a text that replaces the one so far; None: the answer is no longer ours."""
        rows = await self._write(_RAISE, run.client_id, run.message_id, generation, index)
        return rows[0][0] if rows else None

    async def release(self, run: Run, generation: int) -> None:
        """Give an answer back in good order: this run does not count as a try."""
        await self._write(_RELEASE, run.client_id, run.message_id, generation)

    async def peek(self, held: Sequence[tuple[UUID, int]]) -> dict[UUID, bool]:
        """Tell of answers (message, generation) that are still ours whether to cancel them."""
        rows = await self._read(_PEEK, [each[0] for each in held], [each[1] for each in held])
        return {row[0]: row[1] for row in rows}

    async def history(self, run: Run, *, limit: int) -> list[asyncpg.Record]:
        """Read what was said before the question, the latest first."""
        return await self._read(_HISTORY, run.room_id, run.question_id, limit)

    async def state(self, client_id: UUID, message_id: UUID) -> State | None:
        """Read how far an answer is; None: there is no such message, or it is no answer."""
        rows = await self._read(_STATE, client_id, message_id)
        if not rows or rows[0]["generation"] is None:
            return None
        row = rows[0]
        # A complete answer has its text in `content`; until then, and after a failure, the other.
        text_so_far = row["content"] if row["status"] == "complete" else row["partial_content"]
        is_there = row["deleted_at"] is None and row["sources"] is not None
        return State(
            row["room_id"],
            row["generation"],
            row["partial_index"],
            row["status"],
            "" if row["deleted_at"] is not None else text_so_far or "",
            orjson.loads(row["sources"]) if is_there else None,
            row["seq"],
        )

    async def online_candidates(self, room_id: UUID, limit: int) -> list[UUID]:
        """Give up to `limit` members of a room, by server id."""
        rows = await self._read(
            "select user_id from member where room_id = $1 limit $2", room_id, limit
        )
        return [row[0] for row in rows]

    async def _write(self, statement: str, *values: object) -> list[asyncpg.Record]:
        with outages():
            pool = await self._database.writing()
            return list(await pool.fetch(statement, *values))

    async def _read(self, statement: str, *values: object) -> list[asyncpg.Record]:
        with outages():
            pool = await self._database.fast()
            return list(await pool.fetch(statement, *values))
