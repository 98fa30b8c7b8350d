"""How a node sends everyone elsewhere before it ends."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any, Final, Protocol

import structlog

from chatserver.kernel.errors import DrainingError

log = structlog.get_logger(__name__)

# How much of the time is for saying goodbye, and how fast others can take us in.
SPREAD: Final = 0.75
LEAVING_PER_S: Final = 100
SLICE: Final = 500
HANDLERS_S: Final = 1.0


class Leaving(Protocol):
    """The node, as far as this needs it."""

    def sessions(self) -> Sequence[Any]: ...
    def close_session(
        self, session: Any, code: str, reason: str, reconnect: str, after_ms: int = 0
    ) -> None: ...
    def cut(self, session: Any) -> None: ...


async def drain(node: Leaving, within_s: float) -> None:
    """Close every connection, at a moment of its own, and wait for what they began.

    Few connections are sent off at once, many over most of `within_s`: their clients come to other
    nodes no faster than those take them in.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    sessions = node.sessions()
    window_s = min(within_s * SPREAD, len(sessions) / LEAVING_PER_S)
    log.info("draining", connections=len(sessions), window_s=round(window_s, 1))
    for count, session in enumerate(sessions, 1):
        after_ms = int(random.uniform(0, window_s * 1000))  # noqa: S311 - jitter
        node.close_session(session, DrainingError.code, DrainingError.title, "now", after_ms)
        if count % SLICE == 0:
            await asyncio.sleep(0)
    while node.sessions() and loop.time() < deadline:  # noqa: ASYNC110 - counted by two doors
        await asyncio.sleep(0.02)
    for session in node.sessions():
        session.lanes.cancel()
        node.cut(session)
    left = max(0.0, deadline - loop.time()) + HANDLERS_S
    handlers = [asyncio.ensure_future(session.lanes.finish()) for session in sessions]
    if handlers:
        _, late = await asyncio.wait(handlers, timeout=left)
        for each in late:
            each.cancel()
