"""How export and import are built, for one client."""

from collections.abc import AsyncIterator
from uuid import UUID

from chatserver.files.models import StoredFile
from chatserver.files.policies import key_of
from chatserver.infra.storage import ObjectMissingError
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.search.indexing import Indexer
from chatserver.transfer.contents import Kept
from chatserver.transfer.export import Export
from chatserver.transfer.schemas import FileLine
from chatserver.transfer.service import Import
from chatserver.users.repository import UserRepository
from chatserver.users.service import UserService
from chatserver.wiring.core import Core
from chatserver.wiring.files import FilesParts


def open_export(core: Core, client_id: UUID, *, files: FilesParts | None = None) -> Export:
    """`files`: their contents are to be in it, too."""
    if files is None:
        return Export(core.open(_itself), client_id)
    store = files.store

    async def contents(file_id: UUID) -> AsyncIterator[bytes]:
        try:
            async for piece in store.stream(key_of(client_id, file_id)):
                yield piece
        except ObjectMissingError:
            return

    return Export(core.open(_itself), client_id, contents=contents)


def open_import(core: Core, client_id: UUID, *, files: FilesParts) -> Import:
    async def index(work: UnitOfWork, message_ids: list[UUID]) -> None:
        await Indexer.put_with(work.session, message_ids)

    async def keep(line: FileLine, content: AsyncIterator[bytes] | None) -> Kept:
        uploader = None
        if line.uploader_id is not None:
            async with core.open(_users)() as users:
                uploader = (await users.ensure(client_id, [line.uploader_id]))[line.uploader_id]
        file = StoredFile(
            id=UUID(line.id),
            client_id=client_id,
            uploader_id=uploader,
            sha256=line.sha256,
            **line.model_dump(include={"name", "content_type", "size", "created_at"}),
        )
        return await files.service.restore(file, content)

    return Import(core.open(_itself), client_id, index=index, keep=keep)


def _users(work: UnitOfWork) -> UserService:
    return UserService(users=UserRepository(work.session))


def _itself(work: UnitOfWork) -> UnitOfWork:
    return work
