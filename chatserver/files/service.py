"""What one can do with files: announce, complete, fetch, attach, delete."""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

import structlog

from chatserver.files import policies
from chatserver.files.checking import FAILED_KEPT, FileChecker
from chatserver.files.errors import (
    FileNotFoundInStoreError,
    FileNotReadyError,
    FileTooLargeError,
    FileTypeError,
)
from chatserver.files.models import StoredFile
from chatserver.files.policies import key_of
from chatserver.files.repository import FileRepository, FileRow
from chatserver.files.schemas import CreateFile, FileCreated, FileOut, FileRef, LinkOut
from chatserver.infra.pictures import THUMBNAIL_TYPE
from chatserver.infra.storage import Link, ObjectStore, Upload
from chatserver.kernel.errors import Issue
from chatserver.kernel.ids import uuid7
from chatserver.kernel.opening import Open
from chatserver.kernel.principal import Principal
from chatserver.kernel.wire import Empty

log = structlog.get_logger()

# Raises `quota.exceeded`, or counts the bytes.
Spend: TypeAlias = Callable[[Principal, int], Awaitable[None]]
# Has a worker look at a file.
Later: TypeAlias = Callable[[FileRow], Awaitable[None]]
# Raises `unavailable` while the store is known to be away.
Require: TypeAlias = Callable[[], Awaitable[None]]

UPLOAD_LIFE: Final = timedelta(minutes=15)
# An upload must begin before the link ends; over a slow line it may run on.
UPLOAD_TAKES: Final = timedelta(hours=1)
# What is checked while the caller waits; an operation has 4 s in all.
INLINE_BYTES: Final = 8 * 2**20
INLINE_S: Final = 2.5
CHECK_KEPT: Final = timedelta(days=7)


class FileService:
    """Files of one process. The store is asked outside of transactions."""

    def __init__(
        self,
        *,
        open_files: Open[FileRepository],
        store: ObjectStore,
        checker: FileChecker,
        spend: Spend,
        require: Require,
        most_bytes: int,
        later: Later,
    ) -> None:
        self._later = later
        self._open_files = open_files
        self._store = store
        self._checker = checker
        self._spend = spend
        self._require = require
        self._most_bytes = most_bytes

    async def create(self, principal: Principal, command: CreateFile) -> FileCreated:
        """Announce an upload and give the link for it.

        Raises:
            FileTypeError, FileTooLargeError, QuotaExceededError: see there.
            UnavailableError: the store is away.
        """
        if command.content_type not in policies.TYPES:
            raise FileTypeError(
                f"Send it as {policies.OPAQUE}.",
                issues=({"field": "content_type", "issue": "is none that can be checked"},),
            )
        if command.size > self._most_bytes:
            raise FileTooLargeError(
                f"A file may have at most {self._most_bytes} bytes.",
                issues=({"field": "size", "issue": f"is more than {self._most_bytes}"},),
                max_bytes=self._most_bytes,
            )
        await self._require()
        await self._spend(principal, command.size)
        file = StoredFile(
            id=uuid7(),
            client_id=principal.client_id,
            uploader_id=_reader(principal),
            name=command.name,
            content_type=command.content_type,
            size=command.size,
            sha256=base64.b64decode(command.sha256),
        )
        async with self._open_files() as files:
            await files.add(file, life=UPLOAD_LIFE + UPLOAD_TAKES)
        link = await self._store.upload_link(
            key_of(file.client_id, file.id, "incoming"),
            Upload(size=file.size, content_type=file.content_type, sha256=file.sha256),
            life=UPLOAD_LIFE,
        )
        row = await self._own(principal, file.id)
        return FileCreated(file=_shown(row), upload=_link(link))

    async def complete(self, principal: Principal, command: FileRef) -> FileOut:
        """Check what was uploaded, at once if it is small, else by a worker.

        Raises:
            FileNotFoundInStoreError: not one of the caller's.
            FileNotReadyError: nothing was uploaded yet.
        """
        file = await self._own(principal, command.file_id)
        if file.state in {"pending", "checking"}:
            await self._check(file)
            file = await self._own(principal, command.file_id)
            if file.state == "ready":
                # Its thumbnail.
                await self._later(file)
        return await self._linked(file)

    async def _check(self, file: FileRow) -> None:
        if file.size <= INLINE_BYTES:
            try:
                async with asyncio.timeout(INLINE_S):
                    await self._checker.check(file)
                    return
            except TimeoutError:
                log.info("file_check_is_slow", file_id=str(file.id))
        elif file.state == "pending":
            key = key_of(file.client_id, file.id, "incoming")
            if await self._store.stat(key) is None:
                raise FileNotReadyError("Nothing was uploaded yet.", state=file.state)
        async with self._open_files() as files:
            await files.settle(file, state="checking", keep=CHECK_KEPT)
        # Should it never be planned: whoever completes the file again plans it.
        await self._later(file)

    async def get(self, principal: Principal, command: FileRef) -> FileOut:
        """Show a file with links to fetch it, to whoever may see it."""
        async with self._open_files() as files:
            found = await files.find(
                principal.client_id, [command.file_id], reader=_reader(principal)
            )
        if command.file_id not in found:
            raise FileNotFoundInStoreError
        return await self._linked(found[command.file_id])

    async def delete(self, principal: Principal, command: FileRef) -> Empty:
        """Delete a file of one's own; messages that carry it then name a file that is gone."""
        file = await self._own(principal, command.file_id)
        async with self._open_files() as files:
            await files.delete(file.client_id, [file.id])
        return Empty()

    async def check(
        self,
        principal: Principal,
        room_id: UUID,  # noqa: ARG002 - who may send there is the room's business
        attachments: Sequence[dict[str, Any]],
    ) -> list[dict[str, Any]]:
        """Check the attachments of a message: each `file_id` is ready, and the sender's to show.

        Gives them as they are to be stored, with what is known of the files.

        Raises:
            FileNotFoundInStoreError, FileNotReadyError: `issues` name the place.
        """
        ids: dict[int, UUID] = {}
        for place, attachment in enumerate(attachments):
            if "file_id" in attachment:
                ids[place] = _id(attachment["file_id"], place)
        async with self._open_files() as files:
            found = await files.find(
                principal.client_id, list(ids.values()), reader=_reader(principal)
            )
            await files.hold(principal.client_id, list(found))
        checked = [dict(attachment) for attachment in attachments]
        for place, file_id in ids.items():
            file = found.get(file_id)
            if file is None:
                raise FileNotFoundInStoreError(issues=(_issue(place, "is no file of yours"),))
            if file.state != "ready":
                raise FileNotReadyError(
                    issues=(_issue(place, f"is {file.state}"),), state=file.state
                )
            checked[place] |= {
                "file_id": str(file.id),
                "name": file.name,
                "content_type": file.content_type,
                "size": file.size,
            }
            if file.width is not None:
                checked[place] |= {"width": file.width, "height": file.height}
        return checked

    async def restore(
        self, given: StoredFile, content: AsyncIterator[bytes] | None
    ) -> Literal["new", "known", "missing", "foreign"]:
        """Keep a file that was exported, with its content or with what the store has of it.

        It is checked like an upload: what has another size, checksum or type than it says is
        `missing`, like one that is not there. `foreign`: another client's file has its id.

        Raises:
            UnavailableError: the store is away.
        """
        async with self._open_files() as files:
            file = await files.restore(given, life=UPLOAD_LIFE + UPLOAD_TAKES)
        if file is None:
            return "foreign"
        if file.state == "ready":
            return "known"
        if content is not None:
            key = key_of(file.client_id, file.id, "incoming")
            await self._store.put(key, content, content_type=file.content_type)
        with suppress(FileNotReadyError):
            await self._checker.check(file)
        async with self._open_files() as files:
            file = await files.own(given.client_id, given.id, owner=None)
            if file is None or file.state != "ready":
                await files.delete(given.client_id, [given.id])
                return "missing"
        await self._checker.draw(file)
        return "new"

    async def process(self, client_id: UUID, file_id: UUID) -> None:
        """Do what a worker has to do about a file: check it, draw its thumbnail."""
        async with self._open_files() as files:
            file = await files.own(client_id, file_id, owner=None)
        if file is not None and file.state == "checking":
            try:
                await self._checker.check(file)
            except FileNotReadyError:
                # It was there when it was completed: nobody but the store can have taken it.
                async with self._open_files() as files:
                    await files.settle(file, state="failed", reason="missing", keep=FAILED_KEPT)
            async with self._open_files() as files:
                file = await files.own(client_id, file_id, owner=None)
        if file is not None:
            await self._checker.draw(file)

    async def _own(self, principal: Principal, file_id: UUID) -> FileRow:
        async with self._open_files() as files:
            file = await files.own(principal.client_id, file_id, owner=_reader(principal))
        if file is None:
            raise FileNotFoundInStoreError
        return file

    async def _linked(self, file: FileRow) -> FileOut:
        shown = _shown(file)
        if file.state != "ready":
            return shown
        download = await self._store.download_link(
            key_of(file.client_id, file.id), name=file.name, content_type=file.content_type
        )
        thumbnail = None
        if file.has_thumbnail:
            thumbnail = await self._store.download_link(
                key_of(file.client_id, file.id, "thumbnails"),
                name="thumbnail.webp",
                content_type=THUMBNAIL_TYPE,
            )
        links = {
            "download": _link(download),
            "thumbnail": None if thumbnail is None else _link(thumbnail),
        }
        return shown.model_copy(update=links)


class FileJanitor:
    """Removes what nobody needs any more, in slices."""

    def __init__(self, *, open_files: Open[FileRepository], store: ObjectStore) -> None:
        self._open_files = open_files
        self._store = store

    async def sweep(self, *, limit: int = 500) -> int:
        """Remove expired files and the objects of gone ones; how many objects.

        Raises:
            UnavailableError: the store is away; what is to be removed stays noted.
        """
        expired = limit
        while expired == limit:
            async with self._open_files() as files:
                expired = await files.expire(limit)
        removed = 0
        while True:
            async with self._open_files() as files:
                keys = await files.removable(limit)
            if not keys:
                break
            await self._store.delete(keys)
            async with self._open_files() as files:
                await files.removed(keys)
            removed += len(keys)
        await self._store.tidy(older_than=timedelta(days=1))
        return removed

    async def forget(self, client_id: UUID, user_id: UUID, *, limit: int = 100) -> int:
        """Remove a person's files, rows and objects, for good; how many files.

        Raises:
            UnavailableError: the store is away. Then call again: what is noted is not forgotten.
        """
        forgotten = 0
        while True:
            async with self._open_files() as files:
                ids = await files.forget(client_id, user_id, limit)
            if not ids:
                return forgotten
            forgotten += len(ids)
            # Now, and once more by the sweep when the last link to upload has ended.
            nouns = ("incoming", "files", "thumbnails")
            await self._store.delete(
                [key_of(client_id, each, noun) for each in ids for noun in nouns]
            )


def _reader(principal: Principal) -> UUID | None:
    return principal.user_id if principal.is_user else None


def _id(given: object, place: int) -> UUID:
    try:
        if isinstance(given, str) and str(UUID(given)) == given:
            return UUID(given)
    except ValueError:
        pass
    raise FileNotFoundInStoreError(issues=(_issue(place, "is not an id"),))


def _issue(place: int, issue: str) -> Issue:
    return {"field": f"attachments.{place}.file_id", "issue": issue}


def _link(link: Link) -> LinkOut:
    return LinkOut(
        method=link.method, url=link.url, headers=dict(link.headers), expires_at=link.expires_at
    )


def _shown(file: FileRow) -> FileOut:
    return FileOut.model_validate(
        {
            "id": file.id,
            "name": file.name,
            "content_type": file.content_type,
            "size": file.size,
            "sha256": base64.b64encode(file.sha256).decode(),
            "state": file.state,
            "reason": file.reason,
            "width": file.width,
            "height": file.height,
            "uploader_id": file.uploader,
            "created_at": file.created_at,
        }
    )
