"""REST: documents of bots."""

from typing import Final

from chatserver.assistant.bots.errors import BotNotFoundError
from chatserver.assistant.documents.errors import DocumentNotFoundError
from chatserver.assistant.documents.intake import Intake
from chatserver.assistant.documents.schemas import (
    ChunkOut,
    CreateDocuments,
    DeletedDocument,
    DocumentData,
    DocumentList,
    DocumentOut,
    DocumentPath,
    ListChunks,
    ListDocuments,
)
from chatserver.assistant.documents.service import DocumentService
from chatserver.kernel.opening import Open
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal, Scope
from chatserver.realtime.errors import QuotaExceededError
from chatserver.transport.registry import FactSpec, Route, operation

UPLOAD_S: Final = 120.0
FACTS: Final = (
    FactSpec(
        "document.updated",
        ("/chat",),
        DocumentData,
        sequenced=False,
        summary="How far the reading of a document is: told to its uploader and its bot's editors.",
    ),
)


class DocumentsHttp:
    def __init__(self, documents: Open[DocumentService], intake: Intake) -> None:
        self._documents = documents
        self._intake = intake

    @operation(
        "document.create",
        CreateDocuments,
        DocumentList,
        scope=Scope.ASSISTANT_USE,
        errors=(BotNotFoundError, QuotaExceededError),
        deadline_s=UPLOAD_S,
    )
    async def create(self, principal: Principal, command: CreateDocuments) -> DocumentList:
        """Add documents to a bot.

        As a form (`multipart/form-data`) with `bot_id` and one or many `file`, each up to 50 MB; or
        as JSON with `url` or with `text` and `title`. They are read in the background. Content that
        is there already is not read again (`duplicate: true`); a file of the same name replaces the
        older one, and only what changed in it is embedded again.
        """
        return await self._intake.add(principal, command)

    @operation(
        "document.get",
        DocumentPath,
        DocumentOut,
        scope=Scope.ASSISTANT_USE,
        errors=(DocumentNotFoundError,),
    )
    async def get(self, principal: Principal, command: DocumentPath) -> DocumentOut:
        """Show a document and how far its reading is."""
        async with self._documents() as documents:
            return await documents.get(principal, command)

    @operation(
        "document.list",
        ListDocuments,
        Page[DocumentOut],
        scope=Scope.ASSISTANT_USE,
        errors=(BotNotFoundError,),
    )
    async def list(self, principal: Principal, command: ListDocuments) -> Page[DocumentOut]:
        """List documents, the newest first."""
        async with self._documents() as documents:
            return await documents.list(principal, command)

    @operation(
        "document.chunks",
        ListChunks,
        Page[ChunkOut],
        scope=Scope.ASSISTANT_USE,
        errors=(DocumentNotFoundError,),
    )
    async def chunks(self, principal: Principal, command: ListChunks) -> Page[ChunkOut]:
        """List the passages of a document, in its order.

        `around` gives one passage and its `neighbours`, for showing what stands about a citation.
        """
        async with self._documents() as documents:
            return await documents.chunks(principal, command)

    @operation(
        "document.process",
        DocumentPath,
        DocumentOut,
        scope=Scope.ASSISTANT_USE,
        errors=(DocumentNotFoundError,),
    )
    async def process(self, principal: Principal, command: DocumentPath) -> DocumentOut:
        """Read a document again. Until that is done, searches find what was read before."""
        async with self._documents() as documents:
            return await documents.process(principal, command)

    @operation(
        "document.delete",
        DocumentPath,
        DeletedDocument,
        scope=Scope.ASSISTANT_USE,
        errors=(DocumentNotFoundError,),
    )
    async def delete(self, principal: Principal, command: DocumentPath) -> DeletedDocument:
        """Delete a document. No search finds it from now on; its file goes in the background."""
        async with self._documents() as documents:
            return await documents.delete(principal, command)


_DOCUMENT: Final = "/documents/{document_id}"
ROUTES: Final = (
    Route(method="POST", path="/documents", operation="document.create", status=201),
    Route(method="GET", path="/documents", operation="document.list"),
    Route(method="GET", path=_DOCUMENT, operation="document.get"),
    Route(method="DELETE", path=_DOCUMENT, operation="document.delete"),
    Route(method="GET", path=_DOCUMENT + "/chunks", operation="document.chunks"),
    Route(method="POST", path=_DOCUMENT + "/process", operation="document.process", status=202),
)
