"""Which channels this node needs, which it has, and who waits for them."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Final

LINGER_S: Final = 60.0


class Channels:
    """Counts needs per channel. One that nobody needs any more is kept for a minute."""

    def __init__(self, always: Iterable[str]) -> None:
        self.confirmed: set[str] = set()
        self.changed = asyncio.Event()
        self._needs: dict[str, int] = dict.fromkeys(always, 1)
        self._idle: dict[str, float] = {}
        self._asked: set[str] = set()
        # What was needed when the connection was made and is not confirmed yet.
        self._first: set[str] | None = None
        self._leaving: Counter[str] = Counter()
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}

    def need_also(self, names: Iterable[str]) -> None:
        """Need these for good, too."""
        for name in names:
            self._needs.setdefault(name, 1)

    def retain(self, name: str) -> None:
        self._needs[name] = self._needs.get(name, 0) + 1
        self._idle.pop(name, None)
        if name not in self._asked:
            self.changed.set()

    def release(self, name: str, now: float) -> None:
        left = self._needs.get(name, 0) - 1
        if left > 0:
            self._needs[name] = left
        elif self._needs.pop(name, None) is not None:
            self._idle[name] = now + LINGER_S

    def to_subscribe(self) -> list[str]:
        """Give what is needed and was not asked for yet; it counts as asked for from now on."""
        missing = [name for name in self._needs if name not in self._asked]
        self._asked.update(missing)
        if self._first is None:
            self._first = set(missing)
        return missing

    def to_unsubscribe(self, now: float) -> list[str]:
        over = [name for name, until in self._idle.items() if until <= now]
        for name in over:
            del self._idle[name]
            self._asked.discard(name)
            if self._first:
                self._first.discard(name)
            self.confirmed.discard(name)
        self._leaving.update(over)
        return over

    def was_asked_to_end(self, name: str) -> bool:
        """Hear that a channel has ended; False: nobody here wanted that."""
        if not self._leaving[name]:
            return False
        self._leaving[name] -= 1
        return True

    @property
    def is_restored(self) -> bool:
        """Whether all is there that was needed when the connection was made."""
        return self._first is not None and not self._first

    def confirm(self, name: str) -> None:
        if name not in self._asked:
            return
        self.confirmed.add(name)
        if self._first:
            self._first.discard(name)
        for waiter in self._waiters.pop(name, ()):
            if not waiter.done():
                waiter.set_result(None)

    def lose(self) -> None:
        """Forget what was there: the connection is gone."""
        self.confirmed.clear()
        self._asked.clear()
        self._first = None
        self._idle.clear()
        self._leaving.clear()
        self.changed.set()

    async def wait(self, names: Iterable[str], timeout_s: float) -> bool:
        """Wait until these are confirmed; False when that takes too long."""
        waiters = []
        for name in names:
            if name not in self.confirmed:
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.setdefault(name, []).append(waiter)
                waiters.append(waiter)
        if not waiters:
            return True
        _, late = await asyncio.wait(waiters, timeout=timeout_s)
        for waiter in late:
            waiter.cancel()
        return not late
