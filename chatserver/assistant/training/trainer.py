"""Reads a document and brings it into the searches, step by step, so that another may take over.

What costs is embedding: each vector is kept as it comes, and whoever takes over embeds only what is
missing. Everything else is done again. A search sees the old passages, then the new ones.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from uuid import UUID

import structlog

from chatserver.assistant.documents.models import Document
from chatserver.assistant.documents.repository import DocumentRepository
from chatserver.assistant.documents.service import DocumentService
from chatserver.assistant.embedding.schemas import Known, Vectors
from chatserver.assistant.reading.process import ReadChunk, ReadDocument, read_document
from chatserver.assistant.reading.shapes import Refused
from chatserver.assistant.training.models import TrainingJob
from chatserver.assistant.training.policies import NewChunk, cut, matched
from chatserver.assistant.training.repository import (
    IndexRepository,
    Source,
    TrainingJobRepository,
)
from chatserver.infra.storage import ObjectMissingError, ObjectStore
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.opening import Open

# Between two writes of vectors, and between two signs of progress.
AT_ONCE: Final = 64
TELL_S: Final = 1.0
ROUNDS: Final = 5

log = structlog.get_logger()


class Embedders(Protocol):
    async def default(self, name: str | None = None) -> Known: ...

    async def known(self, model_id: int) -> Known: ...

    async def embed(self, texts: Sequence[str], model: Known | None = None) -> Vectors: ...


class Fetches(Protocol):
    """Brings what stands at an address into the store."""

    async def fetch(self, document: Document) -> "Fetched":
        """Fetch an address.

        Raises:
            Refused: it can't be had, for a reason.
        """
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was fetched; `is_new` False: it is what we have already."""

    is_new: bool
    storage_key: str | None = None
    size: int = 0
    sha256: bytes | None = None
    etag: str | None = None
    name: str = ""


class Superseded(Exception):  # noqa: N818 - it is no error
    """A newer version of the document is being read, it is gone, or this reading has ended."""


class _ModelChanged(Exception):  # noqa: N818
    """The bot was embedded anew meanwhile."""


@dataclass(slots=True)
class _Work:
    """One reading: its job, the document as it was when it began, and when it was last told of."""

    job_id: UUID
    document: Document
    told_at: float = 0.0
    began_at: float = field(default_factory=time.monotonic)

    @property
    def source(self) -> Source:
        return Source(self.document.client_id, self.document.bot_id, self.document.id)


class Trainer:
    """`ended` hears how a reading ended: `ready`, or a reason."""

    def __init__(
        self,
        *,
        open_work: Open[UnitOfWork],
        documents: Callable[[UnitOfWork], DocumentService],
        embedders: Embedders,
        store: ObjectStore,
        fetches: Fetches,
        ended: Callable[[Document], Awaitable[None]],
    ) -> None:
        self._open_work = open_work
        self._documents = documents
        self._embedders = embedders
        self._store = store
        self._fetches = fetches
        self._ended = ended
        # Told of each reading: how it ended, why, after how many seconds, with how many new
        # passages.
        self.measured: Callable[[str, str, float, int], None] = lambda *_: None

    async def process(self, client_id: UUID, job_id: UUID) -> None:
        """Do one training job, whatever of it was done before.

        Raises:
            UnavailableError: the store or the embedder is away; the job is tried again.
        """
        work = await self._begin(client_id, job_id)
        if work is None:
            return
        try:
            found = await self._read(work)
            chunks = cut(found)
            await self._index(work, found, chunks)
        except Refused as refused:
            await self._fail(work, refused.reason)
        except Superseded:
            await self._close(work, status="done", reason="superseded")
            self.measured("superseded", "", time.monotonic() - work.began_at, 0)

    async def give_up(self, client_id: UUID, job_id: UUID, reason: str) -> None:
        """Close a job that no worker could finish."""
        async with self._open_work() as work:
            job = await TrainingJobRepository(work.session).find(client_id, job_id)
            if job is None or job.document_id is None or job.ended_at is not None:
                return
            document = await DocumentRepository(work.session).find(client_id, job.document_id)
        if document is not None:
            await self._fail(_Work(job_id, document), reason)

    async def _begin(self, client_id: UUID, job_id: UUID) -> _Work | None:
        async with self._open_work() as work:
            jobs = TrainingJobRepository(work.session)
            job: TrainingJob | None = await jobs.find(client_id, job_id)
            if job is None or job.document_id is None or job.status in {"done", "failed"}:
                return None
            document = await DocumentRepository(work.session).find(
                client_id, job.document_id, lock=True
            )
            if document is None:
                await jobs.note(client_id, job_id, status="done", reason="superseded", ended=True)
                return None
            await jobs.note(client_id, job_id, status="running", step="parsing", started=True)
            await self._set(work, document, status="parsing", reason=None, progress={})
        return _Work(job_id, document)

    async def _read(self, work: _Work) -> ReadDocument:
        if work.document.kind == "url":
            await self._fetch(work)
        document = work.document
        if document.storage_key is None:
            raise Refused("empty")
        is_titled = document.kind == "text" or document.title != document.name
        titled = document.title if is_titled else None
        try:
            found = await read_document(
                self._store.stream(document.storage_key), name=_name(document), title=titled
            )
        except ObjectMissingError as error:
            raise Refused("file_missing") from error
        await self._step(
            work,
            "chunking",
            title=found.title,
            media_type=found.media_type,
            pages=found.pages,
            characters=found.characters,
        )
        return found

    async def _fetch(self, work: _Work) -> None:
        fetched = await self._fetches.fetch(work.document)
        if not fetched.is_new:
            return
        old = work.document.storage_key
        await self._step(
            work,
            "parsing",
            storage_key=fetched.storage_key,
            size=fetched.size,
            sha256=fetched.sha256,
            etag=fetched.etag,
        )
        if old is not None and old != fetched.storage_key:
            await self._store.delete([old])

    async def _index(
        self, work: _Work, found: ReadDocument, chunks: Sequence[tuple[NewChunk, ReadChunk]]
    ) -> None:
        texts = {
            new.sha256: origin.embedded(read)
            for chunk, origin in chunks
            for new, read in zip(chunk.parts, origin.parts, strict=True)
        }
        for _ in range(ROUNDS):
            model = await self._model(work.source)
            await self._embed(work, model, texts)
            try:
                await self._swap(work, model, found, [chunk for chunk, _ in chunks])
            except _ModelChanged:
                continue
            return
        raise RuntimeError("the bot's model changes faster than its documents can be embedded")

    async def _model(self, source: Source) -> Known:
        async with self._open_work() as opened:
            index = IndexRepository(opened.session)
            active = await index.active_model(source.client_id, source.bot_id)
        if active is None:
            return await self._embedders.default()
        return await self._embedders.known(active)

    async def _embed(self, work: _Work, model: Known, texts: dict[bytes, str]) -> None:
        async with self._open_work() as opened:
            index = IndexRepository(opened.session)
            present = await index.staged(work.source, model, list(texts))
        # The longest first, so that those of a like length are embedded together; in the same order
        # each time: how a quantized model rounds depends on what stands beside a text.
        missing = sorted(set(texts) - present, key=lambda each: (-len(texts[each]), each))
        done = len(texts) - len(missing)
        await self._step(work, "embedding", progress=_progress("embedding", done, len(texts)))
        for start in range(0, len(missing), AT_ONCE):
            several = missing[start : start + AT_ONCE]
            vectors = await self._embedders.embed([texts[each] for each in several], model)
            async with self._open_work() as opened:
                await IndexRepository(opened.session).stage(work.source, model, several, vectors)
            done += len(several)
            if time.monotonic() - work.told_at >= TELL_S:
                progress = _progress("embedding", done, len(texts))
                await self._step(work, "embedding", progress=progress)

    async def _swap(
        self, work: _Work, model: Known, found: ReadDocument, chunks: Sequence[NewChunk]
    ) -> None:
        """Let searches see the new passages instead of the old.

        Raises:
            _ModelChanged: the bot is searched by another model by now.
        """
        source = work.source
        async with self._open_work() as opened:
            document = await self._locked(opened, work)
            index = IndexRepository(opened.session)
            old = await index.old_chunks(source, model)
            kept, new = matched(old, chunks)
            gone = [each for each in old if each.id not in kept]
            await index.remove(source, [each.id for each in gone])
            await index.move(source, kept)
            terms, parts = await index.add(source, model, new, found.config)
            active = await index.count(
                source,
                model,
                chunks=len(new) - len(gone),
                terms=terms - sum(each.n_terms for each in gone),
                parts=parts - sum(each.n_parts for each in gone),
                config=found.config if chunks else None,
            )
            if active != model.id:
                raise _ModelChanged
            await index.unstage(source)
            documents = DocumentRepository(opened.session)
            await self._set(
                opened,
                document,
                status="ready",
                reason=None,
                progress={},
                chunks=len(chunks),
                parts=sum(len(each.parts) for each in chunks),
                indexed_version=document.version,
                indexed_at=await documents.now(),
            )
            await TrainingJobRepository(opened.session).note(
                source.client_id, work.job_id, status="done", step=None, ended=True
            )
        self.measured("ready", "", time.monotonic() - work.began_at, len(new))
        log.info("document_ready", document=str(source.document_id), new=len(new), kept=len(kept))
        await self._ended(document)

    async def _fail(self, work: _Work, reason: str) -> None:
        async with self._open_work() as opened:
            try:
                document = await self._locked(opened, work)
            except Superseded:
                document = None
            if document is not None:
                await self._set(opened, document, status="failed", reason=reason, progress={})
                await IndexRepository(opened.session).unstage(work.source)
            await TrainingJobRepository(opened.session).note(
                work.document.client_id, work.job_id, status="failed", reason=reason, ended=True
            )
        self.measured("failed", reason, time.monotonic() - work.began_at, 0)
        log.info("document_failed", document=str(work.document.id), reason=reason)
        if document is not None:
            await self._ended(document)

    async def _close(self, work: _Work, *, status: str, reason: str) -> None:
        async with self._open_work() as opened:
            await TrainingJobRepository(opened.session).note(
                work.document.client_id, work.job_id, status=status, reason=reason, ended=True
            )

    async def _step(self, work: _Work, status: str, **changes: Any) -> None:  # noqa: ANN401
        """Note and tell how far a reading is.

        Raises:
            Superseded: nobody waits for it any more.
        """
        async with self._open_work() as opened:
            document = await self._locked(opened, work)
            await self._set(opened, document, status=status, **changes)
            progress = changes.get("progress") or {}
            await TrainingJobRepository(opened.session).note(
                document.client_id,
                work.job_id,
                step=status,
                done=progress.get("done", 0),
                total=progress.get("total", 0),
            )
        work.document = document
        work.told_at = time.monotonic()

    async def _locked(self, opened: UnitOfWork, work: _Work) -> Document:
        documents = DocumentRepository(opened.session)
        was = work.document
        document = await documents.find(was.client_id, was.id, lock=True)
        if document is None or document.version != was.version:
            raise Superseded
        job = await TrainingJobRepository(opened.session).find(was.client_id, work.job_id)
        if job is None or job.ended_at is not None:
            # Taken for lost and closed, or done by whoever took over: what follows is told already.
            raise Superseded
        return document

    async def _set(self, opened: UnitOfWork, document: Document, **values: Any) -> None:  # noqa: ANN401
        documents = DocumentRepository(opened.session)
        for name, value in values.items():
            setattr(document, name, value)
        document.updated_at = await documents.now()
        await documents.flush(document)
        await self._documents(opened).tell(document)


def _progress(step: str, done: int, total: int) -> dict[str, Any]:
    return {"step": step, "done": done, "total": total}


def _name(document: Document) -> str:
    # A text has a title that may look like a file's name.
    return "text.txt" if document.kind == "text" else document.name
