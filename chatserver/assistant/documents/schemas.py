"""Documents, as they go over the wire."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, StringConstraints

from chatserver.kernel.paging import PageRequest
from chatserver.kernel.wire import Answer, Id, Request, Timestamp, UploadRequest, left_out

Status: TypeAlias = Literal["queued", "parsing", "chunking", "embedding", "ready", "failed"]
Title: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class CreateDocuments(UploadRequest):
    """One address, one text, or the files of a form: exactly one of the three."""

    bot_id: Id
    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None
    text: Annotated[str, StringConstraints(min_length=1)] | None = None
    title: Title | None = None


class DocumentPath(Request):
    document_id: Id


class ListDocuments(PageRequest):
    """Which page of the documents; of one bot, in one state, with some text in the title."""

    bot_id: Id | None = None
    status: Status | None = None
    q: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None


class ListChunks(PageRequest):
    """Which page of a document's passages; with `around` that one and its `neighbours`."""

    document_id: Id
    around: Id | None = None
    neighbours: Annotated[int, Field(ge=0, le=10)] = 1


class Progress(Answer):
    """How far a step is: so many of so many passages."""

    step: str
    done: int
    total: int


class DocumentOut(Answer):
    """A document. `reason` says why it failed: `needs_ocr`, `encrypted`, `too_large`, `empty`.

    `indexed_version` is the version that searches find: while a new one is read, the old one.
    """

    id: Id
    bot_id: Id
    kind: Literal["file", "url", "text"]
    name: str
    title: str
    url: str | None
    media_type: str | None
    size: int
    sha256: str | None
    status: Status
    reason: str | None
    progress: Progress | None = left_out()
    version: int
    indexed_version: int
    pages: int | None
    characters: int
    chunks: int
    parts: int
    created_at: Timestamp
    updated_at: Timestamp
    indexed_at: Timestamp | None
    # Whether the same content was there already: then nothing was read again.
    duplicate: bool | None = left_out()


class DocumentList(Answer):
    items: list[DocumentOut]


class DocumentData(Answer):
    """What `document.updated` carries."""

    document: DocumentOut


class DeletedDocument(Answer):
    id: Id
    deleted: bool = True


class ChunkOut(Answer):
    """A passage. `char_start` and `char_end` count code points of the text as it was read."""

    id: Id
    document_id: Id
    ord: int
    char_start: int
    char_end: int
    page: int | None
    page_end: int | None
    heading: str
    text: str


def progress_of(stored: dict[str, Any]) -> Progress | None:
    return Progress.model_validate(stored) if stored else None
