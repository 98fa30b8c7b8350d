"""`chatserver files …`: the contents of files as one tar, from a bucket or directory or into one.

For back-ups, and for whoever moves from a disk to a bucket. Nothing of the database is needed: a
restore puts the files back before the schema is there.
"""

import asyncio
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import IO, Annotated

import typer

from chatserver.cli.clients import Json, say
from chatserver.infra.storage import CHUNK, PREFIX, ObjectMissingError, ObjectStore, check_key
from chatserver.kernel.errors import OperatorError, UnavailableError
from chatserver.settings import load
from chatserver.wiring.files import open_store

group = typer.Typer(help="The contents of files.", no_args_is_help=True)
STREAM = Path("-")
# So much of one object is kept in memory, and more of it on the disk.
IN_MEMORY = 8 * 2**20


@group.callback()
def files() -> None:
    """The contents of files."""


@group.command()
def save(
    file: Annotated[Path, typer.Argument(help="Where to write; - for standard output.")] = STREAM,
    json: Json = False,
) -> None:
    """Write all files into a tar. What is deleted meanwhile is left out: nobody wants it."""

    async def work(store: ObjectStore) -> int:
        with (
            _opened(file, "wb") as out,
            tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            count = 0
            async for key in store.all_keys():
                count += await _add(tar, store, key)
        return count

    _say(_run(work), file, json=json, done="written to")


@group.command("load")
def load_(
    file: Annotated[Path, typer.Argument(help="What to read; - for standard input.")] = STREAM,
    json: Json = False,
) -> None:
    """Put the files of a tar back; what is there of the same name is replaced."""

    async def work(store: ObjectStore) -> int:
        with _opened(file, "rb") as given:
            try:
                return await _take(given, store)
            except tarfile.TarError as error:
                raise OperatorError(f"{file} is no whole tar: {error}.") from error

    _say(_run(work), file, json=json, done="read from")


async def _add(tar: tarfile.TarFile, store: ObjectStore, key: str) -> int:
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as content:
        try:
            async for chunk in store.stream(key):
                content.write(chunk)
        except ObjectMissingError:
            return 0
        found = tarfile.TarInfo(key)
        found.size, found.mode = content.tell(), 0o600
        content.seek(0)
        tar.addfile(found, content)
    return 1


async def _take(given: IO[bytes], store: ObjectStore) -> int:
    count = 0
    with tarfile.open(fileobj=given, mode="r|") as tar:
        for member in tar:
            # A tar of the directory itself has names that begin so.
            name = member.name.removeprefix("./")
            content = tar.extractfile(member)
            if content is None or not name.startswith(PREFIX):
                continue  # a directory, or a write that was never finished
            try:
                key = check_key(name)
            except ValueError as error:
                raise OperatorError(f"{name!r} is no name of a file of ours.") from error
            # What it is called and of which type is said with each download.
            await store.put(key, _chunks(content), content_type="application/octet-stream")
            count += 1
    return count


async def _chunks(content: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := content.read(CHUNK):
        yield chunk


def _opened(file: Path, mode: str) -> AbstractContextManager[IO[bytes]]:
    if file == STREAM:
        return nullcontext((sys.stdout if mode == "wb" else sys.stdin).buffer)
    try:
        return file.open(mode)
    except OSError as error:
        raise OperatorError(f"{file} can't be opened: {error.strerror}.") from error


def _run(work: Callable[[ObjectStore], Awaitable[int]]) -> int:
    async def inside() -> int:
        with closing(open_store(load())) as store:
            return await work(store)

    try:
        return asyncio.run(inside())
    except UnavailableError as error:
        raise OperatorError(
            f"{error.message} Check FILES_DIR, or S3_BUCKET and its keys."
        ) from error


def _say(count: int, file: Path, *, json: bool, done: str) -> None:
    if json and file != STREAM:
        say({"files": count}, json=True)
    else:
        typer.echo(
            f"{count} files were {done} {'the stream' if file == STREAM else file}.", err=True
        )
