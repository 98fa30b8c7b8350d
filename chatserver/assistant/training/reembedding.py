"""Embeds a bot anew by another model, while it is searched by the old one."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

from sqlalchemy import text

from chatserver.assistant.embedding.schemas import Known, Vectors, written
from chatserver.assistant.reading.process import embedded
from chatserver.assistant.training.repository import TrainingJobRepository
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import NOBODY

# Hears how many parts more were embedded.
Tell: TypeAlias = Callable[[int], Awaitable[None] | None]

AT_ONCE: Final = 64
SLICE: Final = 2000

# What the old model has and the new one has not; keyset, for a bot may have very many.
_MISSING: Final = text("""
select a.chunk_id, a.part, a.char_start, a.char_end, a.header, a.sha256,
  substr(c.body, a.char_start + 1, a.char_end - a.char_start) as body
from chunk_part a join chunk c on c.client_id = a.client_id and c.id = a.chunk_id
where a.client_id = :client and a.bot_id = :bot and a.model_id = :old
  and (a.chunk_id, a.part) > (:chunk, :part)
  and not exists (select from chunk_part b where b.client_id = a.client_id and b.bot_id = a.bot_id
    and b.model_id = :new and b.chunk_id = a.chunk_id and b.part = a.part)
order by a.chunk_id, a.part limit :slice
""")
# The passage may be gone by now: then its vector is not written.
_ADD: Final = text("""
insert into chunk_part
  (client_id, bot_id, model_id, chunk_id, part, char_start, char_end, header, sha256, v)
select a.client_id, a.bot_id, :new, a.chunk_id, a.part, a.char_start, a.char_end, a.header,
  a.sha256, cast(x.v as halfvec)
from unnest(cast(:chunks as uuid[]), cast(:parts as int[]), cast(:hashes as bytea[]),
  cast(:vectors as text[])) as x (chunk_id, part, sha256, v)
join chunk_part a on a.client_id = :client and a.bot_id = :bot and a.model_id = :old
  and a.chunk_id = x.chunk_id and a.part = x.part and a.sha256 = x.sha256
on conflict do nothing
""")
_LOCK: Final = text("""
select model_id, n_parts from bot_index where client_id = :client and bot_id = :bot for update
""")
_SWITCH: Final = text("""
update bot_index set model_id = :new where client_id = :client and bot_id = :bot
""")
_DROP_OLD: Final = text("""
delete from chunk_part where ctid = any (array(
  select ctid from chunk_part where client_id = :client and bot_id = :bot and model_id = :old
  limit :slice))
""")
_BOTS: Final = text("""
select i.bot_id, i.model_id, i.n_parts from bot_index i join bot b on b.id = i.bot_id
where i.client_id = :client and b.deleted_at is null and i.model_id <> :new order by i.bot_id
""")


class Embedders(Protocol):
    async def default(self, name: str | None = None) -> Known: ...

    async def embed(self, texts: Sequence[str], model: Known | None = None) -> Vectors: ...


class Reembedder:
    """Whoever takes over goes on: what is embedded already stays."""

    def __init__(self, *, open_work: Open[UnitOfWork], embedders: Embedders) -> None:
        self._open_work = open_work
        self._embedders = embedders

    async def waiting(self, client_id: UUID, model: Known) -> list[tuple[UUID, int]]:
        """Give a client's bots that are searched by another model, with their parts."""
        async with self._open_work() as work:
            found = await work.session.execute(_BOTS, {"client": client_id, "new": model.id})
            return [(row.bot_id, row.n_parts) for row in found]

    async def process(self, client_id: UUID, job_id: UUID) -> None:
        """Do a training job of this kind, whatever of it was done before.

        Raises:
            EmbedderAwayError: the model is away; the job is tried again.
        """
        async with self._open_work() as work:
            jobs = TrainingJobRepository(work.session)
            job = await jobs.find(client_id, job_id)
            if job is None or job.ended_at is not None:
                return
            await jobs.note(client_id, job_id, status="running", step="embedding", started=True)
        new = await self._embedders.default()
        done = total = 0
        for bot_id, parts in await self.waiting(client_id, new):
            if bot_id == job.bot_id:
                total = parts

        async def tell(parts: int) -> None:
            nonlocal done
            done += parts
            await self._note(client_id, job_id, done=done, total=max(done, total))

        await self.reembed(client_id, job.bot_id, tell=tell)
        await self._note(client_id, job_id, status="done", step=None, ended=True)

    async def give_up(self, client_id: UUID, job_id: UUID, reason: str) -> None:
        """Close a job that no worker could finish; what was embedded is kept for the next one."""
        await self._note(client_id, job_id, status="failed", reason=reason, ended=True)

    async def _note(self, client_id: UUID, job_id: UUID, **values: Any) -> None:  # noqa: ANN401
        async with self._open_work() as work:
            await TrainingJobRepository(work.session).note(client_id, job_id, **values)

    async def reembed(
        self,
        client_id: UUID,
        bot_id: UUID,
        model: str | None = None,
        *,
        tell: Tell = lambda _: None,
    ) -> bool:
        """Embed a bot by a model (None: the one for what is new), then search by it.

        `tell` hears how many parts were embedded. False: there was nothing to do.

        Raises:
            EmbedderAwayError: the model is away; what was done is kept.
        """
        new = await self._embedders.default(model)
        while True:
            names = {"client": client_id, "bot": bot_id, "new": new.id}
            async with self._open_work() as work:
                row = (await work.session.execute(_LOCK, names)).one_or_none()
            if row is None or row.model_id == new.id:
                await self._drop_others(names)
                return False
            names["old"] = row.model_id
            await self._add_missing(new, names, tell)
            if await self._switch(names):
                await self._drop(names)
                return True

    async def _add_missing(self, new: Known, names: dict[str, Any], tell: Tell) -> None:
        after: dict[str, Any] = {"chunk": NOBODY, "part": -1}
        while True:
            async with self._open_work() as work:
                rows = (
                    await work.session.execute(_MISSING, {**names, **after, "slice": AT_ONCE})
                ).all()
            if not rows:
                return
            vectors = await self._embedders.embed(
                [embedded(row.header, row.body) for row in rows], new
            )
            async with self._open_work() as work:
                await work.session.execute(
                    _ADD,
                    {
                        **names,
                        "chunks": [row.chunk_id for row in rows],
                        "parts": [row.part for row in rows],
                        "hashes": [bytes(row.sha256) for row in rows],
                        "vectors": [written(vector) for vector in vectors],
                    },
                )
            said = tell(len(rows))
            if said is not None:
                await said
            after = {"chunk": rows[-1].chunk_id, "part": rows[-1].part}

    async def _switch(self, names: dict[str, Any]) -> bool:
        """Search by the new model, if it has everything. The lock keeps documents from changing."""
        async with self._open_work() as work:
            row = (await work.session.execute(_LOCK, names)).one_or_none()
            if row is None or row.model_id != names["old"]:
                return False
            first = {"chunk": NOBODY, "part": -1, "slice": 1}
            if (await work.session.execute(_MISSING, {**names, **first})).first() is not None:
                return False
            await work.session.execute(_SWITCH, names)
            return True

    async def _drop(self, names: dict[str, Any]) -> None:
        dropped = SLICE
        while dropped == SLICE:
            async with self._open_work() as work:
                result = await work.session.execute(_DROP_OLD, {**names, "slice": SLICE})
                dropped = result.rowcount  # type: ignore[attr-defined]  # of a delete

    async def _drop_others(self, names: dict[str, Any]) -> None:
        """Remove what an earlier run left behind between its switch and its end."""
        async with self._open_work() as work:
            found = await work.session.scalars(
                text("select id from embedding_model where id <> :new"), names
            )
            others = list(found)
        for each in others:
            await self._drop({**names, "old": each})
