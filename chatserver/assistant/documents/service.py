"""What can be done with documents: receive, find, read again, delete."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from chatserver.assistant.bots.models import Bot
from chatserver.assistant.bots.service import BotService
from chatserver.assistant.documents.errors import DocumentNotFoundError
from chatserver.assistant.documents.events import document_out, updated
from chatserver.assistant.documents.models import Document
from chatserver.assistant.documents.repository import DocumentRepository
from chatserver.assistant.documents.schemas import (
    ChunkOut,
    DeletedDocument,
    DocumentOut,
    DocumentPath,
    ListChunks,
    ListDocuments,
)
from chatserver.infra.unit_of_work import Recorder
from chatserver.kernel.ids import uuid7
from chatserver.kernel.paging import Page
from chatserver.kernel.principal import Principal

LONGEST_NAME: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Something that was handed in: bytes that are stored already, or an address to fetch."""

    kind: Literal["file", "url", "text"]
    name: str
    title: str | None = None
    url: str | None = None
    storage_key: str | None = None
    size: int = 0
    sha256: bytes | None = None


class DocumentService:
    """`queue` plans the reading of a document, `purge` the removal of what a deleted one left."""

    def __init__(
        self,
        *,
        documents: DocumentRepository,
        bots: BotService,
        recorder: Recorder,
        queue: Callable[[Document], Awaitable[None]],
        purge: Callable[[UUID, UUID], Awaitable[None]],
        drop: Callable[[str], None],
    ) -> None:
        """`drop` deletes an object that nothing names any more, after the commit."""
        self._documents = documents
        self._bots = bots
        self._recorder = recorder
        self._queue = queue
        self._purge = purge
        self._drop = drop

    async def editable(self, principal: Principal, bot_id: UUID) -> Bot:
        """Find the bot, if the caller may change its documents.

        Raises:
            BotNotFoundError: unknown, another client's, or not the caller's to edit.
        """
        return await self._bots.editable(principal, bot_id)

    async def known(self, bot: Bot, sha256: bytes) -> DocumentOut | None:
        """Give a document with the same content, if there is one."""
        found = await self._documents.find_content(bot.client_id, bot.id, sha256)
        return None if found is None else document_out(found, duplicate=True)

    async def receive(self, principal: Principal, bot: Bot, arrival: Arrival) -> DocumentOut:
        """Take something in: as a new document, as a new version of the one of this name, or not.

        The same content is not read twice; an address always is.
        """
        name = arrival.name[:LONGEST_NAME]
        await self._documents.claim_name(bot.client_id, bot.id, name)
        if arrival.sha256 is not None:
            same = await self._documents.find_content(bot.client_id, bot.id, arrival.sha256)
            if same is not None:
                self._drop_later(arrival.storage_key)
                return document_out(same, duplicate=True)
        document = await self._documents.find_name(bot.client_id, bot.id, name)
        if document is None:
            document = await self._documents.add(
                Document(
                    id=uuid7(),
                    client_id=bot.client_id,
                    bot_id=bot.id,
                    kind=arrival.kind,
                    name=name,
                    title=arrival.title or name,
                    url=arrival.url,
                    size=arrival.size,
                    sha256=arrival.sha256,
                    storage_key=arrival.storage_key,
                    uploaded_by=principal.user_id if principal.is_user else None,
                )
            )
        else:
            await self._renew(document, arrival)
        await self._queue(document)
        self._recorder.audit(bot.client_id, principal, "document.create", f"document:{document.id}")
        return document_out(document)

    async def get(self, principal: Principal, command: DocumentPath) -> DocumentOut:
        return document_out(await self.visible(principal, command.document_id))

    async def list(self, principal: Principal, command: ListDocuments) -> Page[DocumentOut]:
        bot_ids: Sequence[UUID] | None = None
        if command.bot_id is not None:
            bot_ids = [(await self._bots.editable(principal, command.bot_id)).id]
        elif principal.is_user:
            bot_ids = await self._bots.edited_by(principal.client_id, principal.user_id)
        found, counted = await self._documents.list(
            principal.client_id,
            bot_ids=bot_ids,
            status=command.status,
            q=command.q,
            offset=command.offset,
            limit=command.size,
        )
        return Page[DocumentOut].of([document_out(each) for each in found], command, counted)

    async def chunks(self, principal: Principal, command: ListChunks) -> Page[ChunkOut]:
        document = await self.visible(principal, command.document_id)
        offset, limit = command.offset, command.size
        if command.around is not None:
            place = await self._documents.place(document.client_id, document.id, command.around)
            if place is None:
                raise DocumentNotFoundError
            offset = max(0, place - command.neighbours)
            limit = place + command.neighbours + 1 - offset
        found, counted = await self._documents.chunks(
            document.client_id, document.id, offset=offset, limit=limit
        )
        items = [
            ChunkOut(
                id=each.id,
                document_id=each.document_id,
                ord=each.ord,
                char_start=each.char_start,
                char_end=each.char_end,
                page=each.page_start,
                page_end=each.page_end,
                heading=each.heading,
                text=each.body,
            )
            for each in found
        ]
        return Page[ChunkOut].of(items, command, counted)

    async def process(self, principal: Principal, command: DocumentPath) -> DocumentOut:
        """Read a document again; an address is fetched again."""
        document = await self.restarted(principal, command)
        await self._queue(document)
        return document_out(document)

    async def restarted(self, principal: Principal, command: DocumentPath) -> Document:
        """Begin a new version of a document, which the caller queues."""
        document = await self.visible(principal, command.document_id, lock=True)
        await self._restart(document)
        return document

    async def delete(self, principal: Principal, command: DocumentPath) -> DeletedDocument:
        """Take a document out of every search at once; the rest goes in the background."""
        document = await self.visible(principal, command.document_id, lock=True)
        document.deleted_at = await self._documents.now()
        await self._documents.flush(document)
        await self._purge(document.client_id, document.id)
        self._recorder.audit(
            document.client_id, principal, "document.delete", f"document:{document.id}"
        )
        return DeletedDocument(id=document.id)

    async def visible(
        self, principal: Principal, document_id: UUID, *, lock: bool = False
    ) -> Document:
        """Find a document that the caller may tend.

        Raises:
            DocumentNotFoundError: unknown, another client's, or of a bot that is not the caller's.
        """
        document = await self._documents.find(principal.client_id, document_id, lock=lock)
        if document is None or not await self._bots.may_edit(principal, document.bot_id):
            raise DocumentNotFoundError
        return document

    async def tell(self, document: Document) -> None:
        """Show a document's state to those who tend it."""
        people = {*await self._bots.editors(document.bot_id), document.uploaded_by}
        audience = [each for each in people if each is not None]
        if audience:
            self._recorder.record(updated(document, audience))

    async def _renew(self, document: Document, arrival: Arrival) -> None:
        if document.storage_key != arrival.storage_key:
            self._drop_later(document.storage_key)
        document.kind = arrival.kind
        document.title = arrival.title or document.title
        document.url = arrival.url
        document.size = arrival.size
        document.sha256 = arrival.sha256
        document.storage_key = arrival.storage_key
        await self._restart(document)

    async def _restart(self, document: Document) -> None:
        document.version += 1
        document.status = "queued"
        document.reason = None
        document.progress = {}
        document.updated_at = await self._documents.now()
        await self._documents.flush(document)

    def _drop_later(self, key: str | None) -> None:
        if key is not None:
            self._recorder.after_commit(lambda: self._drop(key))
