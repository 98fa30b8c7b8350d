"""Looks who was absent when something was said, and has them told; on every worker at once."""

import asyncio
import random
from collections.abc import Collection, Sequence
from typing import Final, Protocol
from uuid import UUID

import structlog

from chatserver.kernel.opening import Open
from chatserver.notifications.absences.models import MOST_ATTEMPTS, Concerned, Taken
from workers.condition import Condition

POLL_S: Final = 1.0
BATCH: Final = 50

log = structlog.get_logger()


class Notices(Protocol):
    async def take(self, *, limit: int) -> list[Taken]: ...

    async def concerned(self, notices: Sequence[int]) -> list[Concerned]: ...


class Tells(Protocol):
    async def tell(
        self, taken: Sequence[Taken], concerned: Sequence[Concerned], present: Collection[UUID]
    ) -> int: ...


class Present(Protocol):
    async def __call__(self, users: Sequence[UUID]) -> set[UUID]:
        """Tell who of some people is there."""
        ...


class AbsenceLane:
    """Notices wait in PostgreSQL, some seconds each: a poll a second is soon enough."""

    def __init__(
        self,
        *,
        notices: Notices,
        open_absences: Open[Tells],
        present: Present,
        poll_s: float = POLL_S,
    ) -> None:
        self._notices = notices
        self._open_absences = open_absences
        self._present = present
        self._poll_s = poll_s
        self._condition = Condition("notices of messages")

    async def run(self) -> None:
        """Look again and again, until cancelled: what is undone then is done by another."""
        while True:
            try:
                while await self.look() == BATCH:
                    pass
                self._condition.works()
            except Exception as error:  # noqa: BLE001 - told once, with its trace; tried again
                self._condition.fails(error)
            await asyncio.sleep(self._poll_s * random.uniform(0.75, 1.25))  # noqa: S311 - no secret

    async def look(self) -> int:
        """Do what is due; how many notices it were.

        Raises:
            UnavailableError: PostgreSQL is away; every notice is still there.
        """
        taken = await self._notices.take(limit=BATCH)
        if not taken:
            return 0
        try:
            await self._tell(taken)
        except Exception:
            if len(taken) == 1:
                raise
            # One is at fault: alone, each fails or succeeds for itself.
            for each in taken:
                await self._alone(each)
        return len(taken)

    async def _alone(self, taken: Taken) -> None:
        try:
            await self._tell([taken])
        except Exception:
            # It comes back when its lease ends.
            log.exception("notice_failed", notice_id=taken.id, attempts=taken.attempts)

    async def _tell(self, taken: Sequence[Taken]) -> None:
        hopeless = {each.id for each in taken if each.attempts > MOST_ATTEMPTS}
        found = await self._notices.concerned([it.id for it in taken if it.id not in hopeless])
        people = list({it.user_id for it in found})
        present = await self._present(people) if people else set()
        async with self._open_absences() as absences:
            await absences.tell(taken, found, present)
