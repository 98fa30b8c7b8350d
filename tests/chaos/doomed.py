"""The server with a place where it dies: `python -m tests.chaos.doomed serve …`.

FAIL_AT names the place, FAIL_AFTER how often it is passed before. Death is SIGKILL: nothing is
written, told or closed any more. The product itself has no such places.
"""

import functools
import os
import signal
from collections.abc import Callable
from typing import Any, Final

from chatserver.chat.repository import ChatRepository
from chatserver.chat.service import ChatService
from chatserver.cli import main
from chatserver.realtime.engine import Realtime
from chatserver.realtime.publisher import BusPublisher
from chatserver.wiring.sending import Sending

# Where: the method, and whether death comes before or after it.
PLACES: Final[dict[str, tuple[type[Any], str, bool]]] = {
    "before a batch is stored": (ChatRepository, "store", False),
    "after the commit, before anyone is told": (ChatRepository, "store", True),
    "after the own sockets, before the bus": (BusPublisher, "_send", False),
    "after the bus": (BusPublisher, "_send", True),
    "after the own sockets, before the ack": (Realtime, "publish", True),
    "before the ack is on the wire": (ChatService, "send", True),
}
# The same for what the rehearsals of chat do not pass.
OTHERS: Final[dict[str, tuple[type[Any], str, bool]]] = {
    "after a notification is committed, before the doorbell": (Sending, "wake", False),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def doom(place: str, after: int) -> None:
    """Let the process die when it comes by for so many more than `after` times."""
    owner, name, is_after = (PLACES | OTHERS)[place]
    method = getattr(owner, name)
    left = after

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            die()

    setattr(
        owner,
        name,
        _awaited(method, count, is_after)
        if _is_async(method)
        else _called(method, count, is_after),
    )


def _is_async(method: Callable[..., Any]) -> bool:
    return bool(method.__code__.co_flags & 0x80)


def _awaited(method: Callable[..., Any], count: Callable[[], None], is_after: bool) -> Any:
    @functools.wraps(method)
    async def doomed(*args: Any, **more: Any) -> Any:
        if not is_after:
            count()
        given = await method(*args, **more)
        if is_after:
            count()
        return given

    return doomed


def _called(method: Callable[..., Any], count: Callable[[], None], is_after: bool) -> Any:
    @functools.wraps(method)
    def doomed(*args: Any, **more: Any) -> Any:
        if not is_after:
            count()
        given = method(*args, **more)
        if is_after:
            count()
        return given

    return doomed


if __name__ == "__main__":
    doom(os.environ["FAIL_AT"], int(os.environ["FAIL_AFTER"]))
    main()
