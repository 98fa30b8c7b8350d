"""`Idempotency-Key`: a write that is repeated is answered again, not done again."""

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import orjson
from aiohttp import web

from chatserver.infra.idempotency import RUNNING, Held, Kept, KeyUse, Running
from chatserver.kernel.errors import DomainError, ErrorKind, PayloadInvalidError
from chatserver.kernel.principal import Principal
from chatserver.transport.answers import PROBLEM, refuse

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")
# A repeat of these may well come out otherwise; everything else is an answer for good.
_PASSING: Final = frozenset(
    {
        ErrorKind.UNAUTHENTICATED,
        ErrorKind.RATE_LIMITED,
        ErrorKind.UNAVAILABLE,
        ErrorKind.IN_PROGRESS,
        ErrorKind.TIMEOUT,
    }
)


class Store(Protocol):
    """Where answers are kept; see `infra/idempotency.py`."""

    async def begin(self, use: KeyUse) -> Held | Kept: ...

    async def keep(self, held: Held, status: int, body: bytes) -> None: ...

    async def release(self, held: Held) -> None: ...


def key_of(request: web.Request) -> str | None:
    """Take the key of a write; None when there is none.

    Raises:
        PayloadInvalidError: it isn't 1 to 128 visible ASCII characters, or there are two.
    """
    given = request.headers.getall(HEADER, ())
    if not given or request.method not in WRITES:
        return None
    if len(given) > 1 or _KEY.fullmatch(given[0]) is None:
        raise PayloadInvalidError.of(HEADER, "must be 1 to 128 visible ASCII characters")
    return given[0]


def use_of(principal: Principal, key: str, *, method: str, path: str, sent: Any) -> KeyUse:  # noqa: ANN401
    """Say what a key is used for. It belongs to the caller, whichever credential he shows."""
    content = orjson.dumps([method, path, sent], option=orjson.OPT_SORT_KEYS)
    caller = f"{principal.caller.value}:{principal.external_id}"
    return KeyUse(principal.client_id, caller, key, hashlib.sha256(content).digest())


async def once(
    store: Store, use: KeyUse, trace_id: str, run: Callable[[], Awaitable[web.Response]]
) -> web.Response:
    """Run the write if its key is new, else answer what was answered then.

    Raises:
        DomainError: of the key (conflict, still running), or one that is not for good.
    """
    found = await store.begin(use)
    if isinstance(found, Kept):
        return _replay(found)
    running = Running(found)
    token = RUNNING.set(running)
    try:
        response = await run()
    except DomainError as error:
        if error.kind in _PASSING:
            await store.release(found)
            raise
        response = refuse(error, trace_id)
    except Exception:
        await store.release(found)
        raise
    finally:
        RUNNING.reset(token)
    await store.keep(found, response.status, _body(response))
    if running.is_repeat:
        response.headers[REPLAYED] = "true"
    return response


def _replay(kept: Kept) -> web.Response:
    kind = "application/json" if kept.status < 400 else PROBLEM  # noqa: PLR2004 - HTTP's own line
    return web.Response(
        body=kept.body, status=kept.status, content_type=kind, headers={REPLAYED: "true"}
    )


def _body(response: web.Response) -> bytes:
    # Only what this package builds comes here, and that is bytes.
    return response.body if isinstance(response.body, bytes) else b""
