"""Texts so far, stored once a second for all answers of a worker in one statement."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol
from uuid import UUID

import structlog

from chatserver.assistant.generation.store import Checkpoint
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.tasks import end

EVERY_S: Final = 1.0

log = structlog.get_logger()


class Held(Protocol):
    """A running answer."""

    def checkpoint(self) -> Checkpoint:
        """Give the text that makes the deltas so far."""
        ...

    def lose(self) -> None:
        """Hear that somebody else has taken the answer over."""
        ...

    def cancel(self) -> None:
        """Hear that the answer is to end."""
        ...


class Store(Protocol):
    async def checkpoint(self, points: list[Checkpoint]) -> dict[UUID, bool]: ...

    async def peek(self, held: list[tuple[UUID, int]]) -> dict[UUID, bool]: ...


class Checkpoints:
    """One per worker process. While PostgreSQL is away texts wait; their answers go on."""

    def __init__(self, store: Store, *, every_s: float = EVERY_S) -> None:
        self._store = store
        self._every_s = every_s
        self._held: dict[Held, tuple[int, int]] = {}
        self._task: asyncio.Task[None] | None = None
        # Told after each second; for heartbeats.
        self.ticked: list[Callable[[], None]] = []

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        await end(self._task)

    def hold(self, answer: Held) -> None:
        point = answer.checkpoint()
        self._held[answer] = (point.generation, point.index)

    def let_go(self, answer: Held) -> None:
        self._held.pop(answer, None)

    async def now(self, answer: Held) -> bool:
        """Store one text at once; False: the answer is no longer ours.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        point = answer.checkpoint()
        kept = await self._store.checkpoint([point])
        if point.message_id not in kept:
            return False
        if answer in self._held:
            self._held[answer] = (point.generation, point.index)
        if kept[point.message_id]:
            answer.cancel()
        return True

    async def all(self) -> None:
        """Store every text that has grown, and look after the others."""
        changed: dict[UUID, tuple[Held, Checkpoint]] = {}
        idle: dict[UUID, tuple[Held, Checkpoint]] = {}
        for answer, known in self._held.items():
            point = answer.checkpoint()
            is_same = known == (point.generation, point.index)
            (idle if is_same else changed)[point.message_id] = (answer, point)
        kept: dict[UUID, bool] = {}
        if changed:
            kept |= await self._store.checkpoint([point for _, point in changed.values()])
        if idle:
            kept |= await self._store.peek(
                [(point.message_id, point.generation) for _, point in idle.values()]
            )
        for message_id, (answer, point) in (changed | idle).items():
            if answer not in self._held or answer.checkpoint().generation != point.generation:
                continue
            if message_id not in kept:
                answer.lose()
                continue
            self._held[answer] = (point.generation, point.index)
            if kept[message_id]:
                answer.cancel()

    async def _run(self) -> None:
        is_away = False
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.all()
                is_away = False
            except UnavailableError:
                if not is_away:
                    log.warning("checkpoints_wait")
                is_away = True
            except Exception:
                log.exception("checkpoint_failed")
