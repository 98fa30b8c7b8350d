"""What a request carries: one JSON object in its body, or single values in its query."""

import asyncio
from typing import Any, Final

from aiohttp import hdrs, web

from chatserver.kernel import content
from chatserver.kernel.errors import PayloadInvalidError, PayloadTooLargeError
from chatserver.transport.errors import MalformedRequestError, MediaTypeError, SlowBodyError

MAX_BODY: Final = 128 * 1024
BODY_S: Final = 10.0


async def read_object(request: web.Request, *, within_s: float = BODY_S) -> dict[str, Any]:
    """Read the body as one JSON object; no body is an empty one.

    Raises:
        PayloadInvalidError: it isn't JSON, not an object, or holds what can't be kept.
        PayloadTooLargeError: it is larger than 128 KiB.
        MediaTypeError: it is compressed or calls itself something other than JSON in UTF-8.
        SlowBodyError: it did not arrive in time.
        MalformedRequestError: the caller hung up, or what came is no body.
    """
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise MediaTypeError("Send the body uncompressed.")
    raw = await read_bytes(request, within_s=within_s)
    if not raw:
        return {}
    charset = (request.charset or "utf-8").lower()
    if request.content_type != "application/json" or charset not in {"utf-8", "utf8"}:
        raise MediaTypeError("Send the body as application/json in UTF-8.")
    try:
        # Python's parser would also take UTF-16 and UTF-32.
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise PayloadInvalidError.of("$", "is not UTF-8") from error
    value = content.parse(text)
    if not isinstance(value, dict):
        raise PayloadInvalidError.of("$", "must be one JSON object")
    return value


async def refuse_body(request: web.Request) -> None:
    """Refuse a body where the method takes none: it would be ignored without a word.

    Raises:
        PayloadInvalidError: there is one.
    """
    if request.can_read_body and await read_bytes(request):
        raise PayloadInvalidError.of("$", "this method takes no body; use the query")


def read_query(request: web.Request) -> dict[str, str]:
    """Read the query; each name may stand once.

    Raises:
        PayloadInvalidError: a name stands twice.
    """
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name in values:
            raise PayloadInvalidError.of(printable(name), "stands twice")
        values[name] = value
    return values


def printable(name: str) -> str:
    """Shorten a name that a stranger chose, so that it can stand in an answer."""
    return name[:64].encode("ascii", "backslashreplace").decode()


async def read_bytes(
    request: web.Request, *, within_s: float = BODY_S, most: int = MAX_BODY
) -> bytes:
    """Read the body as it comes, up to `most` bytes.

    Raises:
        PayloadTooLargeError, SlowBodyError, MalformedRequestError: as `read_object`.
    """
    if (request.content_length or 0) > most:
        raise _too_large(most)
    raw = bytearray()
    try:
        async with asyncio.timeout(within_s):
            async for chunk in request.content.iter_any():
                raw += chunk
                if len(raw) > most:
                    raise _too_large(most)
    except TimeoutError as error:
        raise SlowBodyError from error
    except (web.RequestPayloadError, ConnectionError) as error:
        raise MalformedRequestError("The body ends in the middle.") from error
    return bytes(raw)


def _too_large(most: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"A body may have at most {most} bytes.", max_bytes=most)
