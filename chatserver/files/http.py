"""REST for files. The content itself goes to the store, by the links."""

from typing import Final

from chatserver.files.errors import FOUND, FileNotReadyError, FileTooLargeError, FileTypeError
from chatserver.files.schemas import CreateFile, FileCreated, FileOut, FileRef
from chatserver.files.service import FileService
from chatserver.kernel.principal import Principal, Scope
from chatserver.kernel.wire import Empty
from chatserver.realtime.errors import QuotaExceededError
from chatserver.transport.registry import Route, operation


class FilesHttp:
    def __init__(self, files: FileService) -> None:
        self._files = files

    @operation(
        "file.create",
        CreateFile,
        FileCreated,
        scope=Scope.CHAT_WRITE,
        errors=(FileTypeError, FileTooLargeError, QuotaExceededError),
    )
    async def create(self, principal: Principal, request: CreateFile) -> FileCreated:
        """Announce a file; the answer says where and how to upload it.

        Send the content with the link's method and headers within 15 minutes, then complete the
        file. The link takes a content of just this size, type and checksum, once.
        """
        return await self._files.create(principal, request)

    @operation(
        "file.complete",
        FileRef,
        FileOut,
        scope=Scope.CHAT_WRITE,
        errors=(*FOUND, FileNotReadyError),
    )
    async def complete(self, principal: Principal, request: FileRef) -> FileOut:
        """Have an upload checked.

        The content is read whole: its size, its checksum, and whether it begins like its type. Up
        to 8 MiB that happens at once; a larger file is `checking` for a moment: ask again.
        """
        return await self._files.complete(principal, request)

    @operation("file.get", FileRef, FileOut, scope=Scope.CHAT_READ, errors=FOUND)
    async def get(self, principal: Principal, request: FileRef) -> FileOut:
        """Show a file, with links to download it.

        A user may see what he uploaded, and what is attached to a message that he may read.
        """
        return await self._files.get(principal, request)

    @operation("file.delete", FileRef, Empty, scope=Scope.CHAT_WRITE, errors=FOUND)
    async def delete(self, principal: Principal, request: FileRef) -> Empty:
        """Delete a file that one uploaded. Messages that carry it stay."""
        return await self._files.delete(principal, request)


_FILE: Final = "/files/{file_id}"
ROUTES: Final = (
    Route(method="POST", path="/files", operation="file.create", status=201),
    Route(method="GET", path=_FILE, operation="file.get"),
    Route(method="POST", path=_FILE + "/complete", operation="file.complete"),
    Route(method="DELETE", path=_FILE, operation="file.delete"),
)
