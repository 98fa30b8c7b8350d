"""Which channels this node needs, which it has, and who waits for them."""

import asyncio
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
        self._first = 0
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}

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
        if self._first == 0:
            self._first = len(missing)
        return missing

    def to_unsubscribe(self, now: float) -> list[str]:
        over = [name for name, until in self._idle.items() if until <= now]
        for name in over:
            del self._idle[name]
            self._asked.discard(name)
            self.confirmed.discard(name)
        return over

    @property
    def is_restored(self) -> bool:
        """Whether all is there that was needed when the connection was made."""
        # Redis answers in order, so these many are these.
        return len(self.confirmed) >= self._first > 0

    def confirm(self, name: str) -> None:
        if name not in self._asked:
            return
        self.confirmed.add(name)
        for waiter in self._waiters.pop(name, ()):
            if not waiter.done():
                waiter.set_result(None)

    def lose(self) -> None:
        """Forget what was there: the connection is gone."""
        self.confirmed.clear()
        self._asked.clear()
        self._first = 0
        self._idle.clear()
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
