"""What was uploaded, looked at: nothing that somebody else sent is given out unread."""

import asyncio
import hashlib
import hmac
from datetime import timedelta
from typing import Final

import structlog

from chatserver.files import policies
from chatserver.files.errors import FileNotReadyError
from chatserver.files.policies import key_of
from chatserver.files.repository import FileRepository, FileRow
from chatserver.infra import pictures
from chatserver.infra.storage import ObjectChangedError, ObjectMissingError, ObjectStore, Stat
from chatserver.kernel.opening import Open

log = structlog.get_logger()

# Larger pictures are files like any other: no size is told, no thumbnail made.
PICTURE_BYTES: Final = 32 * 2**20
# Rows of failed uploads stay so long, so that whoever asks learns why.
FAILED_KEPT: Final = timedelta(days=1)


class FileChecker:
    """Claims nothing: whoever checks the same file twice finds the same."""

    def __init__(
        self, *, open_files: Open[FileRepository], store: ObjectStore, unattached: timedelta
    ) -> None:
        self._open_files = open_files
        self._store = store
        self._unattached = unattached
        # One picture in memory at a time.
        self._drawing = asyncio.Lock()

    async def check(self, file: FileRow) -> None:
        """Read an upload whole: its size, checksum and type must be what was announced.

        Raises:
            FileNotReadyError: nothing was uploaded yet.
            UnavailableError: the store is away.
        """
        incoming, clean = (
            key_of(file.client_id, file.id, "incoming"),
            key_of(file.client_id, file.id),
        )
        found, key = await self._store.stat(incoming), incoming
        if found is None:
            # Moved already, by somebody who ended before he could write it down.
            found, key = await self._store.stat(clean), clean
        if found is None:
            raise FileNotReadyError("Nothing was uploaded yet.", state=file.state)
        try:
            reason, size = await self._judge(file, key, found)
            if reason is None and key == incoming:
                await self._store.move(incoming, clean, etag=found.etag)
        except (ObjectChangedError, ObjectMissingError):
            # Another check moved it meanwhile, and records it.
            log.info("file_checked_twice", file_id=str(file.id))
            return
        async with self._open_files() as files:
            if reason is None:
                await files.settle(file, state="ready", size=size, keep=self._unattached)
            else:
                await files.settle(file, state="failed", reason=reason, keep=FAILED_KEPT)
        if reason is not None:
            log.info("file_refused", file_id=str(file.id), reason=reason)
            await self._store.delete([incoming, clean])

    async def _judge(
        self, file: FileRow, key: str, found: Stat
    ) -> tuple[str | None, tuple[int, int] | None]:
        """Tell why a content must be refused, if it must, and the size of a picture."""
        if found.size != file.size:
            return "size", None
        is_picture = file.content_type in policies.IMAGES and file.size <= PICTURE_BYTES
        digest, kept = hashlib.sha256(), bytearray()
        async for chunk in self._store.stream(key):
            digest.update(chunk)
            if is_picture or len(kept) < policies.HEAD:
                kept += chunk
        if not hmac.compare_digest(digest.digest(), file.sha256):
            return "checksum", None
        if not policies.fits(file.content_type, bytes(kept[: policies.HEAD])):
            return "type", None
        if not is_picture:
            return None, None
        try:
            return None, await asyncio.to_thread(pictures.measure, bytes(kept), file.content_type)
        except pictures.PictureError:
            return "image", None

    async def draw(self, file: FileRow) -> None:
        """Make the thumbnail of a ready picture; none of one that can't be decoded."""
        if (
            file.state != "ready"
            or file.has_thumbnail
            or file.content_type not in policies.IMAGES
            or file.size > PICTURE_BYTES
        ):
            return
        async with self._drawing:
            try:
                content = await self._store.read(key_of(file.client_id, file.id))
                small = await asyncio.to_thread(pictures.thumbnail, content, file.content_type)
            except (pictures.PictureError, ObjectMissingError) as error:
                log.info("no_thumbnail", file_id=str(file.id), reason=str(error))
                return
        key = key_of(file.client_id, file.id, "thumbnails")
        await self._store.put(key, small, content_type=pictures.THUMBNAIL_TYPE)
        async with self._open_files() as files:
            kept = await files.has_thumbnail(file)
        if not kept:
            await self._store.delete([key])
