"""The one way out for requests that somebody else named the address of.

An address is judged three times: as text, as what the resolver gives (one bad answer refuses all),
and in the factory that makes the socket, which sees what is really connected to.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection
from aiohttp.resolver import ThreadedResolver

from chatserver.infra.addresses import AddressRefusedError, Reach, Target, check_address, target_of

TOTAL_S: Final = 15.0
CONNECT_S: Final = 5.0
MAX_BODY: Final = 64 * 1024
MAX_HEADERS: Final = 16 * 1024
# So many at once to one host, and in all: nobody's victim, and nobody's queue.
PER_HOST: Final = 4
IN_ALL: Final = 64

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
_VALUE: Final = re.compile(r"[\x20-\x7e]{0,1024}")
# What a tenant may not set: framing, routing, credentials of ours, and what signs our requests.
_RESERVED: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "date",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
    }
)
_RESERVED_PREFIXES: Final = ("proxy-", "sec-", "webhook-", "x-forwarded-", "x-real-")


class OutboundError(Exception):
    """A request did not succeed. The text is for logs and the tenant; it holds no secret.

    `kind` is the same in a word: `timeout`, `connect_failed`, `tls_failed`, `response_broken`.
    """

    def __init__(self, text: str, *, kind: str = "response_broken") -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes
    # The address that answered.
    peer: str | None = None


def check_headers(headers: Mapping[str, str]) -> None:
    """Check header fields that a tenant wants on his requests.

    Raises:
        AddressRefusedError: one is malformed, or belongs to the server.
    """
    for name, value in headers.items():
        lower = name.lower()
        if _TOKEN.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise AddressRefusedError("must have plain names and printable ASCII values")
        if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
            raise AddressRefusedError("must not set fields that the server sets")


class GuardedResolver(AbstractResolver):
    """Gives all addresses of a name, or none when one of them must not be reached."""

    def __init__(self, reach: Reach, inner: AbstractResolver | None = None) -> None:
        self._reach = reach
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if self._inner is None:
            self._inner = ThreadedResolver()
        found = await self._inner.resolve(host, port, family)
        for each in found:
            check_address(each["host"], self._reach)
        if not found:
            raise AddressRefusedError("has no address")
        return found

    async def close(self) -> None:
        if self._inner is not None:
            await self._inner.close()


class GuardedClient:
    """Asks public servers, within bounds. One per process; `close` it.

    `kept_s`: connections are kept open for so long for the next request to the same host. The
    address that such a one is connected to was judged when it was made; it can't change.
    """

    def __init__(
        self,
        reach: Reach | None = None,
        *,
        resolver: AbstractResolver | None = None,
        total_s: float = TOTAL_S,
        connect_s: float = CONNECT_S,
        per_host: int = PER_HOST,
        in_all: int = IN_ALL,
        kept_s: float | None = None,
    ) -> None:
        self._per_host = per_host
        self._in_all = in_all
        self._kept_s = kept_s
        self._reach = reach or Reach()
        self._resolver = GuardedResolver(self._reach, resolver)
        self._total_s, self._connect_s = total_s, connect_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        await self._resolver.close()

    async def check(self, url: str) -> None:
        """Check an address before it is kept: its text, and what it resolves to now.

        A name that can't be found now may be found later, or the resolver is away. It is kept:
        whoever goes there resolves it anew, and judges what is found then.

        Raises:
            AddressRefusedError: the server does not go there.
        """
        target = target_of(url, self._reach)
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._connect_s):
                await self._resolver.resolve(target.host, target.port)

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_body: int = MAX_BODY,
        redirects: bool = False,
    ) -> Reply:
        """Send a request and give its answer, whatever its status below 300 or from 400 on.

        `max_body` is in bytes. Redirects are failures, unless `redirects` asks for them: then they
        are given like other answers, and the caller asks again, judged anew. Nothing is unpacked.

        Raises:
            AddressRefusedError: the server does not go there.
            OutboundError: no answer, too slow, too large, or a redirect.
        """
        target = target_of(url, self._reach)
        with _failures():
            async with asyncio.timeout(self._total_s):
                reply = await self._ask(method, target, dict(headers or {}), body, max_body)
        if 300 <= reply.status < 400 and not redirects:  # noqa: PLR2004 - the class of redirects
            raise OutboundError(f"The server redirects ({reply.status}), which is refused.")
        return reply

    async def exchange(
        self, url: str, *, headers: Mapping[str, str], body: bytes, most: int = MAX_BODY
    ) -> Reply:
        """Post a body and give whatever answer comes, redirects too, which are not followed.

        At most `most` bytes of the answer are read; what comes after them is not waited for.

        Raises:
            AddressRefusedError: the server does not go there.
            OutboundError: no answer, or too slow.
        """
        target = target_of(url, self._reach)
        with _failures():
            async with asyncio.timeout(self._total_s):
                try:
                    return await self._post(target, headers, body, most)
                except aiohttp.ServerDisconnectedError:
                    # Most likely it closed a kept connection just as this was sent on it.
                    if self._kept_s is None:
                        raise
                    return await self._post(target, headers, body, most)

    async def _post(
        self, target: Target, headers: Mapping[str, str], body: bytes, most: int
    ) -> Reply:
        fields = {"Accept-Encoding": "identity", "User-Agent": "chatserver", **headers}
        async with self._opened().post(
            target.url, headers=fields, data=body, allow_redirects=False
        ) as answer:
            taken = bytearray()
            async for chunk in answer.content.iter_any():
                taken += chunk
                if len(taken) >= most:
                    answer.close()
                    break
            peer = answer.peer if isinstance(answer, _Answer) else None
            return Reply(answer.status, answer.headers, bytes(taken[:most]), peer)

    async def _ask(
        self, method: str, target: Target, headers: dict[str, str], body: bytes | None, most: int
    ) -> Reply:
        fields = {"Accept-Encoding": "identity", "User-Agent": "chatserver", **headers}
        async with self._opened().request(
            method, target.url, headers=fields, data=body, allow_redirects=False
        ) as answer:
            if (answer.content_length or 0) > most:
                raise OutboundError(f"The answer is larger than {most} bytes.")
            taken = bytearray()
            async for chunk in answer.content.iter_any():
                taken += chunk
                if len(taken) > most:
                    answer.close()
                    raise OutboundError(f"The answer is larger than {most} bytes.")
            return Reply(answer.status, answer.headers, bytes(taken))

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=self._resolver,
                use_dns_cache=False,
                socket_factory=self._socket,
                limit=self._in_all,
                limit_per_host=self._per_host,
                **(
                    {"force_close": True}
                    if self._kept_s is None
                    else {"keepalive_timeout": self._kept_s}
                ),
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                # The whole is timed where it is asked for, once.
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=self._connect_s, sock_connect=self._connect_s
                ),
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                response_class=_Answer,
                max_line_size=MAX_HEADERS // 2,
                max_field_size=MAX_HEADERS // 2,
            )
        return self._session

    def _socket(self, info: Any) -> socket.socket:  # noqa: ANN401 - aiohttp's AddrInfoType
        family, kind, protocol, _, place = info
        check_address(place[0], self._reach)
        made = socket.socket(family=family, type=kind, proto=protocol)
        made.setblocking(False)  # noqa: FBT003 - the library's own
        return made


class _Answer(aiohttp.ClientResponse):
    """A response that remembers who gave it: its connection may be let go before it is read."""

    peer: str | None = None

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        if connection.transport is not None:
            name = connection.transport.get_extra_info("peername")
            self.peer = None if not name else str(name[0])
        return await super().start(connection)


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except AddressRefusedError:
        raise
    except TimeoutError as error:
        raise OutboundError("The server did not answer in time.", kind="timeout") from error
    except (aiohttp.ClientError, OSError) as error:
        refused = _cause(error)
        if refused is not None:
            raise refused from error
        raise OutboundError(
            f"The server can't be reached ({type(error).__name__}).", kind=_kind(error)
        ) from error


def _kind(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "tls_failed"
    return (
        "connect_failed" if isinstance(error, aiohttp.ClientConnectorError) else "response_broken"
    )


def _cause(error: BaseException) -> AddressRefusedError | None:
    # aiohttp wraps what a resolver raises, if it is an OSError; ours may hang anywhere below.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AddressRefusedError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
