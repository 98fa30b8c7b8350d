"""Every query about documents themselves; their passages are written by `training`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.assistant.documents.models import Chunk, Document
from chatserver.kernel.paging import EXACT_TOTAL

# The number of one that is being read now, of a bot: two uploads of one name wait for each other.
_LOCK_NAME: Final = text("select pg_advisory_xact_lock(hashtextextended(:name, 4))")


class DocumentRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def now(self) -> datetime:
        moment: datetime = (
            await self._session.execute(select(func.clock_timestamp()))
        ).scalar_one()
        return moment

    async def flush(self, document: Document) -> None:
        await self._session.flush()
        await self._session.refresh(document)

    async def add(self, document: Document) -> Document:
        self._session.add(document)
        await self.flush(document)
        return document

    async def claim_name(self, client_id: UUID, bot_id: UUID, name: str) -> None:
        """Let nobody else add a document of this name meanwhile."""
        await self._session.execute(_LOCK_NAME, {"name": f"{client_id}:{bot_id}:{name}"})

    async def find(
        self, client_id: UUID, document_id: UUID, *, lock: bool = False
    ) -> Document | None:
        query = select(Document).where(
            col(Document.client_id) == client_id,
            col(Document.id) == document_id,
            col(Document.deleted_at).is_(None),
        )
        found = await self._session.scalars(query.with_for_update() if lock else query)
        return found.one_or_none()

    async def find_name(self, client_id: UUID, bot_id: UUID, name: str) -> Document | None:
        found = await self._session.scalars(
            select(Document)
            .where(
                col(Document.client_id) == client_id,
                col(Document.bot_id) == bot_id,
                col(Document.name) == name,
                col(Document.deleted_at).is_(None),
            )
            .with_for_update()
        )
        return found.one_or_none()

    async def find_content(self, client_id: UUID, bot_id: UUID, sha256: bytes) -> Document | None:
        """Find a document with these very bytes that was read, or is being read."""
        found = await self._session.scalars(
            select(Document)
            .where(
                col(Document.client_id) == client_id,
                col(Document.bot_id) == bot_id,
                col(Document.sha256) == sha256,
                col(Document.status) != "failed",
                col(Document.deleted_at).is_(None),
            )
            .order_by(col(Document.created_at))
            .limit(1)
        )
        return found.one_or_none()

    async def list(
        self,
        client_id: UUID,
        *,
        bot_ids: Sequence[UUID] | None,
        status: str | None,
        q: str | None,
        offset: int,
        limit: int,
    ) -> tuple[Sequence[Document], int]:
        """List documents, the newest first; `bot_ids` None: of every bot."""
        where: list[Any] = [
            col(Document.client_id) == client_id,
            col(Document.deleted_at).is_(None),
        ]
        if bot_ids is not None:
            where.append(col(Document.bot_id).in_(bot_ids))
        if status is not None:
            where.append(col(Document.status) == status)
        if q is not None:
            where.append(
                col(Document.title).icontains(q, autoescape=True)
                | col(Document.name).icontains(q, autoescape=True)
            )
        found = await self._session.scalars(
            select(Document)
            .where(*where)
            .order_by(col(Document.created_at).desc(), col(Document.id).desc())
            .offset(offset)
            .limit(limit)
        )
        several = select(col(Document.id)).where(*where).limit(EXACT_TOTAL + 1).subquery()
        counted = await self._session.scalar(select(func.count()).select_from(several))
        return found.all(), counted or 0

    async def chunks(
        self, client_id: UUID, document_id: UUID, *, offset: int, limit: int
    ) -> tuple[Sequence[Chunk], int]:
        where = [col(Chunk.client_id) == client_id, col(Chunk.document_id) == document_id]
        found = await self._session.scalars(
            select(Chunk).where(*where).order_by(col(Chunk.ord)).offset(offset).limit(limit)
        )
        counted = await self._session.scalar(select(func.count()).select_from(Chunk).where(*where))
        return found.all(), counted or 0

    async def place(self, client_id: UUID, document_id: UUID, chunk_id: UUID) -> int | None:
        """Tell which passage of a document, from 0, this one is."""
        found: int | None = await self._session.scalar(
            select(col(Chunk.ord)).where(
                col(Chunk.client_id) == client_id,
                col(Chunk.document_id) == document_id,
                col(Chunk.id) == chunk_id,
            )
        )
        return found

    async def mirror(self, row: dict[str, Any]) -> bool:
        """Keep a copy of a dashboard's source. False: its id is taken by another client."""
        first = {"origin": "dashboard", "status": "queued", "version": 1, "indexed_version": 0}
        statement = insert(Document).values({**row, **first, "chunks": 0, "parts": 0})
        kept = {
            name: statement.excluded[name]
            for name in ("kind", "name", "title", "url", "storage_key", "bot_id")
        }
        made = await self._session.execute(
            statement.on_conflict_do_update(
                index_elements=[col(Document.id)],
                set_={**kept, "deleted_at": None, "version": col(Document.version) + 1},
                where=col(Document.client_id) == statement.excluded.client_id,
            )
        )
        return bool(made.rowcount)  # type: ignore[attr-defined]  # an insert gives a cursor result
