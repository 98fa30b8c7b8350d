"""Objects on the local disk: what `chatserver dev` uses, and whoever has one machine or a share."""

import asyncio
import base64
import binascii
import errno
import hashlib
import hmac
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, TypeVar

import orjson

from chatserver.infra.storage import (
    CHUNK,
    LINK_LIFE,
    PREFIX,
    Content,
    Link,
    ObjectChangedError,
    ObjectMissingError,
    Stat,
    Threads,
    Upload,
    check_key,
    pieces,
)
from chatserver.kernel.clock import Clock, utc_now
from chatserver.kernel.errors import UnavailableError

Result = TypeVar("Result")

# Where the server answers for the store. A link is this and a token.
LINK_PATH: Final = "/storage/"
# Begins with a dot, as no key does.
INCOMING: Final = ".incoming"
# Below this a disk counts as full: PostgreSQL may stand on the same one.
LEAST_FREE: Final = 64 * 2**20
_WHOLE_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Permission:
    """What a link of ours allows: one method on one object. Size and checksum for uploads."""

    method: Literal["GET", "PUT"]
    key: str
    content_type: str
    expires_at: datetime
    name: str = ""
    size: int = 0
    sha256: bytes = b""


class LinkSeal:
    """Signs what links allow, with the newest key of the ring; checks with all of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [hashlib.sha256(b"storage link|" + key.encode()).digest() for key in keys]

    def seal(self, given: Permission) -> str:
        content = orjson.dumps(
            [
                given.method,
                given.key,
                given.content_type,
                int(given.expires_at.timestamp()),
                given.name,
                given.size,
                given.sha256.hex(),
            ]
        )
        return f"{_text(content)}.{_text(_mac(self._keys[0], content))}"

    def open(self, token: str, now: datetime) -> Permission | None:
        """Give what a link allows, or None: it isn't ours, was changed, or has expired."""
        content, _, mac = token.partition(".")
        try:
            raw, signed = _bytes(content), _bytes(mac)
        except (ValueError, binascii.Error):
            return None
        if not any(hmac.compare_digest(_mac(key, raw), signed) for key in self._keys):
            return None
        method, key, content_type, expires, name, size, sha256 = orjson.loads(raw)
        given = Permission(
            method=method,
            key=key,
            content_type=content_type,
            expires_at=datetime.fromtimestamp(expires, UTC),
            name=name,
            size=size,
            sha256=bytes.fromhex(sha256),
        )
        return given if now < given.expires_at else None


class DiskStore:
    """Files below one directory, written beside and then renamed: whole, or not there at all."""

    def __init__(
        self, directory: Path, *, seal: LinkSeal, public_url: str = "", clock: Clock = utc_now
    ) -> None:
        self._directory = directory
        self._seal = seal
        self._public_url = public_url.rstrip("/")
        self._clock = clock
        self._threads = Threads("disk")

    async def put(self, key: str, content: Content, *, content_type: str) -> Stat:  # noqa: ARG002 - the disk keeps no types: links say them
        return await self.keep(key, content)

    async def keep(
        self, key: str, content: Content, *, sha256: bytes | None = None, replace: bool = True
    ) -> Stat:
        """Store an object, if its checksum is right and, unless `replace`, if there is none yet.

        Raises:
            ObjectChangedError: the content has another checksum, or the key is taken.
        """
        target = self._path(key)
        beside = self._directory / INCOMING / secrets.token_hex(16)
        descriptor = await self._run(lambda: self._begin(beside))
        digest = hashlib.sha256()
        try:
            async for part in pieces(content, CHUNK):
                await self._run(lambda part=part: _write(descriptor, part, digest))  # type: ignore[misc]
            if sha256 is not None and not hmac.compare_digest(digest.digest(), sha256):
                raise ObjectChangedError
            return await self._run(lambda: _finish(descriptor, beside, target, replace=replace))
        finally:
            await asyncio.shield(self._threads.run(lambda: _drop(descriptor, beside)))

    async def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        path = self._path(key)

        def fetch() -> bytes:
            with os.fdopen(os.open(path, _READ), "rb") as file:
                file.seek(start)
                return file.read() if length is None else file.read(length)

        return await self._run(fetch)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        path = self._path(key)
        file = await self._run(lambda: os.fdopen(os.open(path, _READ), "rb"))
        try:
            while chunk := await self._run(lambda: file.read(CHUNK)):
                yield chunk
        finally:
            file.close()

    async def stat(self, key: str) -> Stat | None:
        path = self._path(key)
        try:
            return await self._run(lambda: _stat(path.lstat()))
        except ObjectMissingError:
            return None

    async def move(self, source: str, target: str, *, etag: str) -> None:
        old, new = self._path(source), self._path(target)

        def rename() -> None:
            if _stat(old.lstat()).etag != etag:
                raise ObjectChangedError
            new.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            old.replace(new)
            _sync(new.parent)

        await self._run(rename)

    async def delete(self, keys: Sequence[str]) -> None:
        paths = [self._path(key) for key in keys]

        def remove() -> None:
            for path in paths:
                path.unlink(missing_ok=True)

        await self._run(remove)

    async def upload_link(self, key: str, upload: Upload, *, life: timedelta = LINK_LIFE) -> Link:
        return self._link(
            Permission(
                method="PUT",
                key=check_key(key),
                content_type=upload.content_type,
                expires_at=self._clock() + life,
                size=upload.size,
                sha256=upload.sha256,
            ),
            {"content-type": upload.content_type},
        )

    async def download_link(
        self, key: str, *, name: str, content_type: str, life: timedelta = LINK_LIFE
    ) -> Link:
        return self._link(
            Permission(
                method="GET",
                key=check_key(key),
                content_type=content_type,
                expires_at=self._clock() + life,
                name=name,
            ),
            {},
        )

    def permitted(self, token: str) -> Permission | None:
        """Give what a link of ours allows; None: nothing."""
        return self._seal.open(token, self._clock())

    async def all_keys(self) -> AsyncIterator[str]:
        def found() -> list[str]:
            return [
                str(Path(where, name).relative_to(self._directory))
                for where, _, names in os.walk(self._directory / PREFIX)
                for name in names
            ]

        for key in await self._run(found):
            yield key

    async def tidy(self, *, older_than: timedelta) -> int:
        before = (self._clock() - older_than).timestamp()

        def remove() -> int:
            beside = self._directory / INCOMING
            old = [each for each in beside.glob("*") if each.lstat().st_mtime < before]
            for each in old:
                each.unlink(missing_ok=True)
            return len(old)

        return await self._run(remove)

    async def ping(self) -> None:
        await self._run(self._check)

    def close(self) -> None:
        self._threads.close()

    def _link(self, given: Permission, headers: dict[str, str]) -> Link:
        url = f"{self._public_url}{LINK_PATH}{self._seal.seal(given)}"
        return Link(given.method, url, headers, given.expires_at)

    def _path(self, key: str) -> Path:
        return self._directory / check_key(key)

    def _check(self) -> None:
        beside = self._directory / INCOMING
        beside.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(beside, os.W_OK) or shutil.disk_usage(beside).free < LEAST_FREE:
            raise OSError(errno.ENOSPC, "no room")

    def _begin(self, beside: Path) -> int:
        self._check()
        return os.open(beside, _WHOLE_WRITE, 0o600)

    async def _run(self, call: Callable[[], Result]) -> Result:
        with _translated():
            return await self._threads.run(call)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectMissingError from error
    except OSError as error:
        # Full, read-only, unmounted: it passes when somebody mends it.
        reason = errno.errorcode.get(error.errno or 0, "unknown")
        raise UnavailableError(f"The object store does not answer ({reason}).") from error


def _write(descriptor: int, part: bytes, digest: "hashlib._Hash") -> None:
    digest.update(part)
    view = memoryview(part)
    while view:
        view = view[os.write(descriptor, view) :]


def _finish(descriptor: int, beside: Path, target: Path, *, replace: bool) -> Stat:
    os.fsync(descriptor)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if replace:
        beside.replace(target)
    else:
        try:
            os.link(beside, target)
        except FileExistsError as error:
            raise ObjectChangedError from error
    _sync(target.parent)
    return _stat(os.fstat(descriptor))


def _drop(descriptor: int, beside: Path) -> None:
    os.close(descriptor)
    with suppress(OSError):  # renamed by now, or swept with the rest of what was left behind
        beside.unlink()


def _sync(directory: Path) -> None:
    # A name is only kept when its directory is.
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stat(found: os.stat_result) -> Stat:
    return Stat(found.st_size, f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}")


def _mac(key: bytes, content: bytes) -> bytes:
    return hmac.digest(key, content, "sha256")


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
