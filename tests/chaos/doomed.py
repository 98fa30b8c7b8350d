"""The server with a place where it dies: `python -m tests.chaos.doomed serve …`.

FAIL_AFTER batches of messages are stored as ever. The next one is condemned: the process dies at
FAIL_AT of its way, and whatever might overtake it there is held back, so that the place is exact.
Death is SIGKILL: nothing is written, told or closed any more, but for the line in FAIL_NOTE that
says whose messages these were. The product itself has no such places.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any, Final

from chatserver.chat.events import Draft, Outcome
from chatserver.chat.repository import ChatRepository
from chatserver.chat.service import ChatService
from chatserver.cli import main
from chatserver.realtime.outbox import Outbox, Writer
from chatserver.realtime.publisher import BusPublisher
from chatserver.wiring.sending import Sending

UNSTORED: Final = "before a batch is stored"
UNTOLD: Final = "after the commit, before anyone is told"
OFF_THE_BUS: Final = "after the own sockets, before the bus"
ON_THE_BUS: Final = "after the bus"
UNANSWERED: Final = "after the own sockets, before the ack"
UNSENT: Final = "before the ack is on the wire"
PLACES: Final = (UNSTORED, UNTOLD, OFF_THE_BUS, ON_THE_BUS, UNANSWERED, UNSENT)
# What the rehearsals of chat do not pass.
UNRUNG: Final = "after a notification is committed, before the doorbell"
# Where the own sockets have been written before.
TOLD: Final = frozenset({OFF_THE_BUS, ON_THE_BUS, UNANSWERED, UNSENT})


class Doom:
    """What is left to the process, and who is condemned by client_msg_id."""

    def __init__(self, place: str, after: int, note: Path) -> None:
        assert place in {*PLACES, UNRUNG}
        self.place = place
        self._left = after
        self._note = note
        self._condemned: list[str] = []
        self._writers: set[Writer] = set()
        self._flushed = 0

    def fall_upon(self) -> None:
        """Take the places of the methods that a message passes."""
        _wrap(ChatRepository, "store", self._store)
        _wrap(BusPublisher, "_send", self._publish)
        _wrap(ChatService, "send", self._answer)
        _wrap(Writer, "mark", self._mark)
        _wrap(Outbox, "flush", self._flush)
        _wrap(Sending, "wake", self._ring)

    async def _store(
        self, method: Callable[..., Awaitable[list[Outcome]]], drafts: Sequence[Draft], **how: Any
    ) -> list[Outcome]:
        if self.place == UNSTORED and self._is_next():
            self._condemned = [draft.client_msg_id for draft in drafts]
            self._die()
        outcomes = await method(drafts, **how)
        stored = [
            draft.client_msg_id
            for draft, outcome in zip(drafts, outcomes, strict=True)
            if outcome.outcome == "stored"
        ]
        if stored and not self._condemned and self._is_next():
            self._condemned = stored
            self._flushed = 0
            if self.place == UNTOLD:
                self._die()
        return outcomes

    async def _publish(self, method: Callable[..., Awaitable[None]], batch: Sequence[Any]) -> None:
        wanted = [f'"{name}"'.encode() for name in self._condemned]
        carries = any(name in item.data for item in batch for name in wanted)
        if carries and self.place == OFF_THE_BUS:
            await self._sockets_written()
            self._die()
        if carries and self.place == UNANSWERED:
            await asyncio.Event().wait()
        await method(batch)
        if carries and self.place == ON_THE_BUS:
            await self._sockets_written()
            self._die()

    async def _answer(
        self, method: Callable[..., Awaitable[Any]], principal: Any, command: Any
    ) -> Any:
        sent = await method(principal, command)
        if command.client_msg_id in self._condemned:
            if self.place in {UNANSWERED, UNSENT}:
                await self._sockets_written()
                self._die()
            await asyncio.Event().wait()
        return sent

    def _ring(self, method: Callable[[], None]) -> None:
        if self.place == UNRUNG and self._is_next():
            self._die()
        method()

    def _mark(self, method: "partial[None]", outbox: Outbox) -> None:
        self._writers.add(method.args[0])
        method(outbox)

    def _flush(self, method: "partial[None]", *farewell: bytes) -> None:
        method(*farewell)
        self._flushed += 1

    async def _sockets_written(self) -> None:
        """What is in outboxes goes to the kernel at the end of a turn of the loop."""
        while any(writer._is_scheduled for writer in self._writers):  # noqa: ASYNC110 - by turns
            await asyncio.sleep(0)

    def _is_next(self) -> bool:
        self._left -= 1
        return self._left < 0

    def _die(self) -> None:
        left = {"place": self.place, "sends": self._condemned, "flushed": self._flushed}
        self._note.write_text(json.dumps(left | {"at": time.time()}))
        os.kill(os.getpid(), signal.SIGKILL)


def _wrap(owner: type[Any], name: str, take: Callable[..., Any]) -> None:
    """Let `take` be called instead of a method, with that, bound, as its first argument."""
    method = getattr(owner, name)

    @wraps(method)
    def doomed(self: object, *args: Any, **more: Any) -> Any:
        return take(partial(method, self), *args, **more)

    setattr(owner, name, doomed)


if __name__ == "__main__":
    Doom(
        os.environ["FAIL_AT"], int(os.environ["FAIL_AFTER"]), Path(os.environ["FAIL_NOTE"])
    ).fall_upon()
    main()
