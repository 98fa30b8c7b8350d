"""Where bytes are kept: one interface, S3 or the local disk behind it, chosen by the settings.

Keys are made by the server alone: `t/<client id>/…`. A name that a person chose never is one.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeAlias, TypeVar

import structlog

from chatserver.kernel.errors import UnavailableError

Content: TypeAlias = bytes | AsyncIterable[bytes]
Result = TypeVar("Result")
log = structlog.get_logger()

# What is read or written at once; so much of an object is in memory, whatever its size.
CHUNK: Final = 256 * 1024
# How long a link is good for, unless told otherwise.
LINK_LIFE: Final = timedelta(minutes=5)
MOST_KEYS_PER_DELETE: Final = 1000
THREADS: Final = 8
QUEUE: Final = 256
LONGEST_KEY: Final = 512
STANDING_S: Final = 3.0
PING_S: Final = 2.0
# Every key of ours begins so: a bucket may hold other things, too.
PREFIX: Final = "t/"
_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127})*")


class ObjectMissingError(Exception):
    """There is no such object: it was never stored, or it was deleted."""


class ObjectChangedError(Exception):
    """The object is no longer the one that was looked at."""


@dataclass(frozen=True, slots=True)
class Stat:
    """An object without its content. `etag` changes whenever the content does."""

    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Link:
    """A request that anyone may make until it expires; the headers must be sent as they stand.

    `url` begins with `/` where the server serves it itself and does not know its own address.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What a link lets somebody store: this much, of this type, with this checksum."""

    size: int
    content_type: str
    sha256: bytes = field(repr=False)


class ObjectStore(Protocol):
    """Objects by key. Every method raises `UnavailableError` while the store is away."""

    async def put(self, key: str, content: Content, *, content_type: str) -> Stat:
        """Store an object whole or not at all; an older one of that key is replaced."""
        ...

    async def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Give an object's bytes, or `length` of them from `start`; fewer at its end.

        Raises:
            ObjectMissingError: there is none.
        """
        ...

    def stream(self, key: str) -> AsyncIterator[bytes]:
        """Give an object in pieces of at most 256 KiB.

        Raises:
            ObjectMissingError: there is none; said by the first step.
        """
        ...

    async def stat(self, key: str) -> Stat | None:
        """Look at an object; None: there is none."""
        ...

    async def move(self, source: str, target: str, *, etag: str) -> None:
        """Give an object another key, if it is still the one that has this `etag`.

        Raises:
            ObjectMissingError: there is none.
            ObjectChangedError: it was replaced since.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, any number of them; those that aren't there count as deleted."""
        ...

    async def upload_link(self, key: str, upload: Upload, *, life: timedelta = LINK_LIFE) -> Link:
        """Let somebody store this one object, once, by PUT. Asks nobody: it is only signed."""
        ...

    async def download_link(
        self, key: str, *, name: str, content_type: str, life: timedelta = LINK_LIFE
    ) -> Link:
        """Let somebody fetch an object as a download called `name`. Asks nobody."""
        ...

    def all_keys(self) -> AsyncIterator[str]:
        """Give the keys of all objects of ours, in no order that anyone may rely on."""
        ...

    async def tidy(self, *, older_than: timedelta) -> int:
        """Remove what unfinished writes have left behind; tells how much that was."""
        ...

    async def ping(self) -> None:
        """Return when the store can be written and read."""
        ...

    def close(self) -> None:
        """Let threads and connections go."""
        ...


def check_key(key: str) -> str:
    """Give a key back that can't mean anything but itself, on a disk as in a URL.

    Raises:
        ValueError: it isn't one; that is a bug, callers don't make keys.
    """
    if len(key) > LONGEST_KEY or _KEY.fullmatch(key) is None:
        raise ValueError("not a key of ours")
    return key


def disposition(name: str) -> str:
    """Write `Content-Disposition` for a download, RFC 6266: names may be in any script."""
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name).strip(". ") or "file"
    encoded = "".join(
        chr(byte) if chr(byte) in _UNRESERVED else f"%{byte:02X}" for byte in name.encode()
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"


_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Threads:
    """A few threads for calls that block. Whoever would be behind very many is sent away."""

    def __init__(self, name: str, *, threads: int = THREADS, queue: int = QUEUE) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threads + queue
        self._taken = 0

    async def run(self, call: Callable[[], Result]) -> Result:
        """Call it in a thread; a caller who gives up leaves it running to its own timeout.

        Raises:
            UnavailableError: too many wait already.
        """
        if self._taken >= self._places:
            raise UnavailableError("The object store is too slow for what is asked of it.")
        self._taken += 1
        running = asyncio.get_running_loop().run_in_executor(self._pool, call)
        running.add_done_callback(self._done)
        return await asyncio.shield(running)

    def _done(self, running: "asyncio.Future[Result]") -> None:
        self._taken -= 1
        if not running.cancelled():
            # Whoever asked may be gone: then nobody else looks at it.
            _ = running.exception()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


async def pieces(content: Content, size: int) -> AsyncIterator[bytes]:
    """Cut a content into pieces of exactly `size` bytes, and a last one of what is left."""
    if isinstance(content, bytes):
        for start in range(0, len(content), size):
            yield content[start : start + size]
        return
    held = bytearray()
    async for part in content:
        held += part
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


class Standing:
    """Whether the store answers. Asked when somebody wants to know, at most every few seconds."""

    def __init__(
        self, store: ObjectStore, *, fresh_s: float = STANDING_S, wait_s: float = PING_S
    ) -> None:
        self._store = store
        self._fresh_s = fresh_s
        self._wait_s = wait_s
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[bool] | None = None
        self.is_up = True

    async def look(self) -> bool:
        """Tell whether the store answers; those who ask at the same time share one look."""
        if time.monotonic() - self._looked_at < self._fresh_s:
            return self.is_up
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        return await asyncio.shield(self._looking)

    async def require(self) -> None:
        """Return when the store answers.

        Raises:
            UnavailableError: it does not.
        """
        if not await self.look():
            raise UnavailableError("Files can't be stored right now.", retry_after_ms=5000)

    async def _look(self) -> bool:
        try:
            async with asyncio.timeout(self._wait_s):
                await self._store.ping()
            is_up = True
        except (UnavailableError, TimeoutError) as error:
            is_up = False
            if self.is_up:
                log.warning("storage_away", reason=str(error) or type(error).__name__)
        finally:
            self._looking = None
        if is_up and not self.is_up:
            log.info("storage_back")
        self.is_up = is_up
        self._looked_at = time.monotonic()
        return is_up
