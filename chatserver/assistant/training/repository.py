"""Every query about training jobs, and how the passages of a document come into the searches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.assistant.embedding.schemas import Known, Vectors, written
from chatserver.assistant.training.models import TrainingJob
from chatserver.assistant.training.policies import NewChunk
from chatserver.kernel.paging import EXACT_TOTAL

# A statement that writes so many postings stays far below its timeout.
CHUNKS_AT_ONCE: Final = 200
PARTS_AT_ONCE: Final = 500

_STAGED: Final = text("""
select sha256 from staged_part
where client_id = :client and document_id = :document and model_id = :model
  and sha256 = any (:wanted)
""")
# What was embedded for an older version is not embedded again.
_REUSE: Final = text("""
insert into staged_part (document_id, model_id, sha256, client_id, v)
select distinct on (p.sha256) cast(:document as uuid), p.model_id, p.sha256, p.client_id, p.v
from chunk c join chunk_part p
  on p.client_id = c.client_id and p.bot_id = c.bot_id and p.chunk_id = c.id
where c.client_id = :client and c.document_id = :document and p.model_id = :model
  and p.sha256 = any (:wanted)
on conflict do nothing
""")
_STAGE: Final = text("""
insert into staged_part (document_id, model_id, sha256, client_id, v)
select :document, :model, x.sha256, :client, cast(x.v as halfvec)
from unnest(cast(:hashes as bytea[]), cast(:vectors as text[])) as x (sha256, v)
on conflict do nothing
""")
_UNSTAGE: Final = text("""
delete from staged_part where client_id = :client and document_id = :document
""")
_CHUNKS: Final = text("""
select c.id, c.sha256, c.n_terms,
  (select count(*) from chunk_part p where p.client_id = c.client_id and p.bot_id = c.bot_id
     and p.model_id = :model and p.chunk_id = c.id) as n_parts
from chunk c where c.client_id = :client and c.document_id = :document order by c.ord
""")
_MOVE: Final = text("""
update chunk c set ord = x.ord, char_start = x.char_start, char_end = x.char_end,
  page_start = x.page_start, page_end = x.page_end
from unnest(cast(:ids as uuid[]), cast(:ords as int[]), cast(:starts as int[]),
  cast(:ends as int[]), cast(:firsts as int[]), cast(:lasts as int[]))
  as x (id, ord, char_start, char_end, page_start, page_end)
where c.client_id = :client and c.id = x.id
""")
_ADD_CHUNKS: Final = text("""
insert into chunk (id, client_id, bot_id, document_id, ord, char_start, char_end, page_start,
  page_end, heading, body, config, sha256, n_terms)
select x.id, :client, :bot, :document, x.ord, x.char_start, x.char_end, x.page_start, x.page_end,
  x.heading, x.body, :config, x.sha256, 0
from unnest(cast(:ids as uuid[]), cast(:ords as int[]), cast(:starts as int[]),
  cast(:ends as int[]), cast(:firsts as int[]), cast(:lasts as int[]), cast(:headings as text[]),
  cast(:bodies as text[]), cast(:hashes as bytea[]))
  as x (id, ord, char_start, char_end, page_start, page_end, heading, body, sha256)
""")
_ADD_TERMS: Final = text("""
with found as (
  select x.id, t.lexeme, least(coalesce(array_length(t.positions, 1), 1), 32767) as tf
  from unnest(cast(:ids as uuid[]), cast(:texts as text[])) as x (id, body),
    unnest(to_tsvector(cast(:config as regconfig), x.body)) as t
), length as (
  select id, least(sum(tf), 32767) as n from found group by id
), kept as (
  insert into chunk_term (client_id, bot_id, lexeme, chunk_id, tf, n_terms)
  select :client, :bot, f.lexeme, f.id, f.tf, l.n from found f join length l using (id)
), noted as (
  update chunk c set n_terms = l.n from length l where c.id = l.id
)
select coalesce(sum(n), 0) from length
""")
_ADD_PARTS: Final = text("""
insert into chunk_part
  (client_id, bot_id, model_id, chunk_id, part, char_start, char_end, header, sha256, v)
select :client, :bot, :model, x.chunk_id, x.part, x.char_start, x.char_end, x.header, x.sha256,
  s.v
from unnest(cast(:chunks as uuid[]), cast(:parts as int[]), cast(:starts as int[]),
  cast(:ends as int[]), cast(:headers as text[]), cast(:hashes as bytea[]))
  as x (chunk_id, part, char_start, char_end, header, sha256)
join staged_part s on s.client_id = :client and s.document_id = :document
  and s.model_id = :model and s.sha256 = x.sha256
""")
_DROP_PARTS: Final = text("""
delete from chunk_part p using unnest(cast(:ids as uuid[])) as x (id)
where p.client_id = :client and p.bot_id = :bot
  and p.model_id in (select m.id from embedding_model m) and p.chunk_id = x.id
""")
_DROP_TERMS: Final = text("delete from chunk_term where chunk_id = any (:ids)")
_DROP_CHUNKS: Final = text("delete from chunk where client_id = :client and id = any (:ids)")
_ONE_AT_A_TIME: Final = text("select pg_advisory_xact_lock(hashtextextended(:name, 0))")
_INDEX: Final = text("""
insert into bot_index (client_id, bot_id, model_id) values (:client, :bot, :model)
on conflict (client_id, bot_id) do nothing
""")
_ACTIVE: Final = text("select model_id from bot_index where client_id = :client and bot_id = :bot")
_COUNT: Final = text("""
update bot_index set n_chunks = n_chunks + :chunks, n_terms = n_terms + :terms,
  n_parts = n_parts + :parts,
  configs = case when cast(:config as text) is null or :config = any (configs) then configs
    else configs || cast(:config as text) end
where client_id = :client and bot_id = :bot returning model_id
""")


@dataclass(frozen=True, slots=True)
class Source:
    """The document whose passages are written."""

    client_id: UUID
    bot_id: UUID
    document_id: UUID

    def names(self, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - values of a statement
        return {
            "client": self.client_id,
            "bot": self.bot_id,
            "document": self.document_id,
            **more,
        }


class IndexRepository:
    """Passages, vectors and postings, and the counts that BM25 needs."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def active_model(self, client_id: UUID, bot_id: UUID) -> int | None:
        found = await self._session.execute(_ACTIVE, {"client": client_id, "bot": bot_id})
        return found.scalar_one_or_none()

    async def staged(self, source: Source, model: Known, wanted: Sequence[bytes]) -> set[bytes]:
        """Tell which vectors there are already, of this reading or of an older version."""
        names = source.names(model=model.id, wanted=list(wanted))
        await self._session.execute(_REUSE, names)
        return set((await self._session.scalars(_STAGED, names)).all())

    async def stage(
        self, source: Source, model: Known, hashes: Sequence[bytes], vectors: Vectors
    ) -> None:
        """Keep vectors until the whole document is written."""
        await self._session.execute(
            _STAGE,
            source.names(
                model=model.id,
                hashes=list(hashes),
                vectors=[written(vector) for vector in vectors],
            ),
        )

    async def unstage(self, source: Source) -> None:
        await self._session.execute(_UNSTAGE, source.names())

    async def old_chunks(self, source: Source, model: Known) -> Sequence[Any]:
        """Give (id, sha256, n_terms, n_parts) of what is in the search now."""
        return (await self._session.execute(_CHUNKS, source.names(model=model.id))).all()

    async def move(self, source: Source, kept: Mapping[UUID, NewChunk]) -> None:
        """Give passages that have not changed their new places."""
        chunks = list(kept.values())
        if chunks:
            await self._session.execute(
                _MOVE, source.names(**_places(chunks) | {"ids": list(kept)})
            )

    async def add(
        self, source: Source, model: Known, chunks: Sequence[NewChunk], config: str
    ) -> tuple[int, int]:
        """Write new passages with postings and vectors; how many terms and parts they have."""
        terms = parts = 0
        for start in range(0, len(chunks), CHUNKS_AT_ONCE):
            several = chunks[start : start + CHUNKS_AT_ONCE]
            await self._session.execute(
                _ADD_CHUNKS,
                source.names(
                    **_places(several),
                    headings=[each.heading for each in several],
                    bodies=[each.text for each in several],
                    hashes=[each.sha256 for each in several],
                    config=config,
                ),
            )
            counted = await self._session.execute(
                _ADD_TERMS,
                source.names(
                    ids=[each.id for each in several],
                    texts=[each.searchable for each in several],
                    config=config,
                ),
            )
            terms += int(counted.scalar_one())
            parts += await self._add_parts(source, model, several)
        return terms, parts

    async def remove(self, source: Source, ids: Sequence[UUID]) -> None:
        """Take passages out, with everything that finds them."""
        for start in range(0, len(ids), CHUNKS_AT_ONCE):
            names = source.names(ids=list(ids[start : start + CHUNKS_AT_ONCE]))
            for statement in (_DROP_PARTS, _DROP_TERMS, _DROP_CHUNKS):
                await self._session.execute(statement, names)

    async def count(
        self,
        source: Source,
        model: Known | None,
        *,
        chunks: int,
        terms: int,
        parts: int,
        config: str | None,
    ) -> int | None:
        """Add to the counts of a bot, and tell which model it is searched by; locks the row."""
        if model is not None:
            await self._session.execute(_INDEX, source.names(model=model.id))
        found = await self._session.execute(
            _COUNT, source.names(chunks=chunks, terms=terms, parts=parts, config=config)
        )
        return found.scalar_one_or_none()

    async def _add_parts(self, source: Source, model: Known, chunks: Sequence[NewChunk]) -> int:
        rows = [
            (chunk.id, number, part.start, part.end, part.header, part.sha256)
            for chunk in chunks
            for number, part in enumerate(chunk.parts)
        ]
        for start in range(0, len(rows), PARTS_AT_ONCE):
            columns = list(zip(*rows[start : start + PARTS_AT_ONCE], strict=True))
            added = await self._session.execute(
                _ADD_PARTS,
                source.names(
                    model=model.id,
                    chunks=list(columns[0]),
                    parts=list(columns[1]),
                    starts=list(columns[2]),
                    ends=list(columns[3]),
                    headers=list(columns[4]),
                    hashes=list(columns[5]),
                ),
            )
            if added.rowcount != len(columns[0]):  # type: ignore[attr-defined]  # of an insert
                raise RuntimeError("a vector is missing: it was not staged")
        return len(rows)


def _places(chunks: Sequence[NewChunk]) -> dict[str, Any]:
    return {
        "ids": [each.id for each in chunks],
        "ords": [each.ord for each in chunks],
        "starts": [each.start for each in chunks],
        "ends": [each.end for each in chunks],
        "firsts": [None if each.pages is None else each.pages[0] for each in chunks],
        "lasts": [None if each.pages is None else each.pages[1] for each in chunks],
    }


class TrainingJobRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, job: TrainingJob) -> TrainingJob:
        self._session.add(job)
        await self._session.flush()
        await self._session.refresh(job)
        return job

    async def find(self, client_id: UUID, job_id: UUID) -> TrainingJob | None:
        found = await self._session.scalars(
            select(TrainingJob).where(
                col(TrainingJob.client_id) == client_id, col(TrainingJob.id) == job_id
            )
        )
        return found.one_or_none()

    async def reembedding(self, client_id: UUID, bot_id: UUID) -> TrainingJob | None:
        """Find the job that embeds a bot anew; others of the bot wait until this one commits."""
        await self._session.execute(_ONE_AT_A_TIME, {"name": f"reembed:{bot_id}"})
        found = await self._session.scalars(
            select(TrainingJob)
            .where(
                col(TrainingJob.client_id) == client_id,
                col(TrainingJob.bot_id) == bot_id,
                col(TrainingJob.kind) == "reembed",
                col(TrainingJob.ended_at).is_(None),
            )
            .limit(1)
        )
        return found.one_or_none()

    async def find_page(
        self,
        client_id: UUID,
        *,
        status: str | None,
        document_id: UUID | None,
        offset: int,
        limit: int,
    ) -> tuple[Sequence[TrainingJob], int]:
        where = [col(TrainingJob.client_id) == client_id]
        if status is not None:
            where.append(col(TrainingJob.status) == status)
        if document_id is not None:
            where.append(col(TrainingJob.document_id) == document_id)
        found = await self._session.scalars(
            select(TrainingJob)
            .where(*where)
            .order_by(col(TrainingJob.created_at).desc(), col(TrainingJob.id).desc())
            .offset(offset)
            .limit(limit)
        )
        several = select(col(TrainingJob.id)).where(*where).limit(EXACT_TOTAL + 1).subquery()
        counted = await self._session.scalar(select(func.count()).select_from(several))
        return found.all(), counted or 0

    async def waiting(self, client_id: UUID, document_id: UUID) -> list[UUID]:
        found = await self._session.scalars(
            select(col(TrainingJob.id))
            .where(
                col(TrainingJob.client_id) == client_id,
                col(TrainingJob.document_id) == document_id,
                col(TrainingJob.ended_at).is_(None),
            )
            .order_by(col(TrainingJob.created_at))
        )
        return list(found)

    async def note(self, client_id: UUID, job_id: UUID, **values: Any) -> None:  # noqa: ANN401
        """Write how far a job is, unless it has ended; `started` and `ended` note the time."""
        if values.pop("started", False):
            values["started_at"] = func.coalesce(
                col(TrainingJob.started_at), func.clock_timestamp()
            )
        if values.pop("ended", False):
            values["ended_at"] = func.clock_timestamp()
        await self._session.execute(
            update(TrainingJob)
            .where(
                col(TrainingJob.client_id) == client_id,
                col(TrainingJob.id) == job_id,
                col(TrainingJob.ended_at).is_(None),
            )
            .values(**values)
        )
