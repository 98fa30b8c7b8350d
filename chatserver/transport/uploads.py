"""Forms with files: each goes to the disk while it comes in; its hash is taken on the way."""

import asyncio
import hashlib
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from chatserver.kernel.errors import PayloadInvalidError, PayloadTooLargeError, UnavailableError
from chatserver.kernel.wire import UploadedFile
from chatserver.transport.bodies import printable
from chatserver.transport.errors import MalformedRequestError, MediaTypeError, SlowBodyError

FORM: Final = "multipart/form-data"
LARGEST_FILE: Final = 50 * 10**6
LARGEST_FORM: Final = 500 * 10**6
MOST_FILES: Final = 50
MOST_FIELDS: Final = 16
LONGEST_FIELD: Final = 64 * 1024
LONGEST_NAME: Final = 255
# Whoever sends nothing for so long, or is not done by then, is cut off.
PAUSE_S: Final = 15.0
TOTAL_S: Final = 600.0
PIECE: Final = 1 << 20
# So many forms at once in one process: each may fill its share of the disk.
AT_ONCE: Final = 16

_UNSEEN: Final = re.compile("[\\x00-\\x1f\\x7f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_places = asyncio.Semaphore(AT_ONCE)


@asynccontextmanager
async def read_form(
    request: web.Request,
) -> AsyncIterator[tuple[dict[str, Any], tuple[UploadedFile, ...]]]:
    """Receive a form: its fields, and its files, which lie on the disk until the block ends.

    Raises:
        PayloadInvalidError: it is no form, or has too many parts.
        PayloadTooLargeError: a file is larger than 50 MB, or all of them than 500 MB.
        MalformedRequestError, SlowBodyError, MediaTypeError, UnavailableError
    """
    if (request.content_length or 0) > LARGEST_FORM:
        raise _too_large(LARGEST_FORM)
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise MediaTypeError("Send the body uncompressed.")
    if _places.locked():
        raise UnavailableError("Too many uploads at once.")
    async with _places:
        directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="chatserver-"))
        try:
            yield await _received(request, directory)
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def _received(
    request: web.Request, directory: Path
) -> tuple[dict[str, Any], tuple[UploadedFile, ...]]:
    try:
        async with asyncio.timeout(TOTAL_S):
            return await _Form(directory).read(request)
    except TimeoutError as error:
        raise SlowBodyError from error


class _Form:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fields: dict[str, Any] = {}
        self._files: list[UploadedFile] = []
        self._taken = 0

    async def read(self, request: web.Request) -> tuple[dict[str, Any], tuple[UploadedFile, ...]]:
        try:
            reader = await request.multipart()
            while (part := await _within(reader.next())) is not None:
                if not isinstance(part, BodyPartReader):
                    raise PayloadInvalidError.of("$", "a form has no forms inside")
                await self._take(part)
        except (
            ValueError,
            AssertionError,
            LookupError,
            HttpProcessingError,
            web.RequestPayloadError,
            ConnectionError,
        ) as error:
            raise MalformedRequestError("The body is not a form, or ends in the middle.") from error
        return self._fields, tuple(self._files)

    async def _take(self, part: BodyPartReader) -> None:
        name = printable(part.name or "")
        if hdrs.CONTENT_ENCODING in part.headers or hdrs.CONTENT_TRANSFER_ENCODING in part.headers:
            raise PayloadInvalidError.of(name or "$", "must not be encoded")
        if part.filename is not None:
            await self._take_file(part, part.filename)
            return
        if not name or name in self._fields:
            raise PayloadInvalidError.of(name or "$", "has no name, or stands twice")
        if len(self._fields) >= MOST_FIELDS:
            raise PayloadInvalidError.of(name, f"a form has at most {MOST_FIELDS} fields")
        raw = bytearray()
        while piece := await _within(part.read_chunk()):
            raw += piece
            if len(raw) > LONGEST_FIELD:
                raise PayloadInvalidError.of(name, f"has at most {LONGEST_FIELD} bytes")
        try:
            self._fields[name] = raw.decode()
        except UnicodeDecodeError as error:
            raise PayloadInvalidError.of(name, "is not UTF-8") from error

    async def _take_file(self, part: BodyPartReader, filename: str) -> None:
        if len(self._files) >= MOST_FILES:
            raise PayloadInvalidError.of("file", f"a form has at most {MOST_FILES} files")
        path = self._directory / str(len(self._files))
        digest = hashlib.sha256()
        size = 0
        held = bytearray()
        opened = await asyncio.to_thread(path.open, "xb")
        try:
            while piece := await _within(part.read_chunk(256 * 1024)):
                size += len(piece)
                self._taken += len(piece)
                if size > LARGEST_FILE:
                    raise _too_large(LARGEST_FILE)
                if self._taken > LARGEST_FORM:
                    raise _too_large(LARGEST_FORM)
                held += piece
                if len(held) >= PIECE:
                    await asyncio.to_thread(_keep, opened.write, digest.update, bytes(held))
                    held.clear()
            await asyncio.to_thread(_keep, opened.write, digest.update, bytes(held))
        finally:
            await asyncio.to_thread(opened.close)
        self._files.append(UploadedFile(_named(filename), size, digest.digest(), path))


def _keep(write: Any, update: Any, content: bytes) -> None:  # noqa: ANN401 - of a file and a hash
    update(content)
    write(content)


def _named(filename: str) -> str:
    """Give a name that people can read: without directories of the sender and hidden characters."""
    last = _UNSEEN.sub("", filename).replace("\\", "/").strip("/ ").rpartition("/")[2]
    last = last.encode(errors="replace").decode()
    return last[:LONGEST_NAME] or "file"


async def _within(step: Any) -> Any:  # noqa: ANN401 - of aiohttp's reader
    async with asyncio.timeout(PAUSE_S):
        return await step


def _too_large(most: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"At most {most} bytes are taken.", max_bytes=most)
