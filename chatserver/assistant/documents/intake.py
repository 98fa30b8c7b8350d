"""The way in: checks what comes, stores it, and only then makes rows of it."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from chatserver.assistant.bots.models import Bot
from chatserver.assistant.documents.schemas import CreateDocuments, DocumentList, DocumentOut
from chatserver.assistant.documents.service import Arrival, DocumentService
from chatserver.assistant.reading.cleaning import clean
from chatserver.infra.addresses import AddressRefusedError
from chatserver.infra.storage import Content, ObjectStore
from chatserver.kernel.errors import DomainError, PayloadInvalidError, UnavailableError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal

# Nobody is ever served these: what it really is, the reading finds out.
CONTENT_TYPE: Final = "application/octet-stream"
TITLE_OF_A_TEXT: Final = 80


class Intake:
    """`spend` counts stored bytes against the client's quota, `check_url` refuses bad addresses.

    No transaction is open while bytes are stored, which may take a minute.
    """

    def __init__(
        self,
        *,
        documents: Open[DocumentService],
        store: ObjectStore,
        spend: Callable[[UUID, int], Awaitable[None]],
        check_url: Callable[[str], Awaitable[None]],
    ) -> None:
        self._documents = documents
        self._store = store
        self._spend = spend
        self._check_url = check_url

    async def add(self, principal: Principal, command: CreateDocuments) -> DocumentList:
        """Take in files, an address or a text.

        Raises:
            BotNotFoundError: not a bot whose documents the caller may change.
            QuotaExceededError: the client has stored enough for now.
            PayloadInvalidError: none of the three, or several; an address that is refused.
        """
        given = [bool(command.files), command.url is not None, command.text is not None]
        if sum(given) != 1:
            raise PayloadInvalidError.of("$", "send files, or url, or text: one of them")
        async with self._documents() as documents:
            bot = await documents.editable(principal, command.bot_id)
        title = _readable(command.title)
        if command.url is not None:
            await self._check(command.url)
            arrival = Arrival(kind="url", name=command.url, url=command.url, title=title)
            return DocumentList(items=[await self._receive(principal, bot, arrival)])
        if command.text is not None:
            return DocumentList(items=[await self._add_text(principal, bot, command)])
        titled = title if len(command.files) == 1 else None
        items = [
            await self._add(
                principal,
                bot,
                Arrival(
                    kind="file",
                    name=each.name,
                    title=titled,
                    size=each.size,
                    sha256=each.sha256,
                ),
                each.stream,
            )
            for each in command.files
        ]
        return DocumentList(items=items)

    async def _check(self, url: str) -> None:
        try:
            await self._check_url(url)
        except AddressRefusedError as error:
            raise PayloadInvalidError.of("url", str(error)) from error

    async def _add_text(
        self, principal: Principal, bot: Bot, command: CreateDocuments
    ) -> DocumentOut:
        assert command.text is not None  # noqa: S101 - the caller looked
        content = command.text.encode()
        given = _readable(command.title)
        title = given or _readable(" ".join(command.text.split())[:TITLE_OF_A_TEXT]) or "text"
        arrival = Arrival(
            kind="text",
            name=title,
            title=given,
            size=len(content),
            sha256=hashlib.sha256(content).digest(),
        )
        return await self._add(principal, bot, arrival, lambda: content)

    async def _add(
        self, principal: Principal, bot: Bot, arrival: Arrival, content: Callable[[], Content]
    ) -> DocumentOut:
        assert arrival.sha256 is not None  # noqa: S101 - of files and texts
        async with self._documents() as documents:
            known = await documents.known(bot, arrival.sha256)
        if known is not None:
            return known
        await self._spend(bot.client_id, arrival.size)
        key = f"t/{bot.client_id}/documents/{uuid7()}"
        await self._store.put(key, content(), content_type=CONTENT_TYPE)
        stored = Arrival(
            kind=arrival.kind,
            name=arrival.name,
            title=arrival.title,
            size=arrival.size,
            sha256=arrival.sha256,
            storage_key=key,
        )
        try:
            return await self._receive(principal, bot, stored)
        except DomainError as error:
            # Where it is unknown whether a row names the object, it stays.
            if not isinstance(error, UnavailableError):
                await self._store.delete([key])
            raise

    async def _receive(self, principal: Principal, bot: Bot, arrival: Arrival) -> DocumentOut:
        async with self._documents() as documents:
            return await documents.receive(principal, bot, arrival)


def _readable(title: str | None) -> str | None:
    """Take hidden characters out of a title: it stands above what a model reads."""
    return None if title is None else " ".join(clean(title).text.split()) or None
