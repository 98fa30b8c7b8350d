"""The fact that documents announce."""

from collections.abc import Sequence
from uuid import UUID

from chatserver.assistant.documents.models import Document
from chatserver.assistant.documents.schemas import DocumentData, DocumentOut, progress_of
from chatserver.kernel.events import SYSTEM, Fact


def document_out(document: Document, *, duplicate: bool | None = None) -> DocumentOut:
    """Give a document's shape on the wire."""
    return DocumentOut(
        id=document.id,
        bot_id=document.bot_id,
        kind=document.kind,
        name=document.name,
        title=document.title,
        url=document.url,
        media_type=document.media_type,
        size=document.size,
        sha256=None if document.sha256 is None else document.sha256.hex(),
        status=document.status,
        reason=document.reason,
        progress=progress_of(document.progress),
        version=document.version,
        indexed_version=document.indexed_version,
        pages=document.pages,
        characters=document.characters,
        chunks=document.chunks,
        parts=document.parts,
        created_at=document.created_at,
        updated_at=document.updated_at,
        indexed_at=document.indexed_at,
        duplicate=duplicate,
    )


def updated(document: Document, audience: Sequence[UUID]) -> Fact:
    """Tell those who tend a document how far it is. Nothing is lost with it: REST says the same."""
    data = DocumentData(document=document_out(document))
    return Fact(
        type="document.updated",
        client_id=document.client_id,
        room_id=None,
        actor=SYSTEM,
        data=data.model_dump(mode="json"),
        sequenced=False,
        audience=tuple(audience),
    )
