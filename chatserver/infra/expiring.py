"""A bounded cache in this process's memory whose entries end."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)
Value = TypeVar("Value")


class Expiring(Generic[Name, Value]):
    """At most `size` entries, the least recently used leaves first; each lives `ttl_s` at most."""

    def __init__(
        self, *, size: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._size = size
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: OrderedDict[Name, tuple[float, Value]] = OrderedDict()
        # How often something was dropped: what was read before a drop must not be kept after it.
        self.drops = 0

    def get(self, name: Name) -> Value | None:
        entry = self._entries.get(name)
        if entry is None:
            return None
        until, value = entry
        if until <= self._clock():
            del self._entries[name]
            return None
        self._entries.move_to_end(name)
        return value

    def put(
        self, name: Name, value: Value, *, at_most_s: float | None = None, drops: int | None = None
    ) -> None:
        """Keep a value, for `at_most_s` seconds if that is less than the usual time.

        `drops` is the count from before the value was read: if something was dropped since, the
        value may be what was dropped, and is not kept.
        """
        if drops is not None and drops != self.drops:
            return
        ttl_s = self._ttl_s if at_most_s is None else min(at_most_s, self._ttl_s)
        if ttl_s <= 0:
            return
        self._entries[name] = (self._clock() + ttl_s, value)
        self._entries.move_to_end(name)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def drop(self, concerns: Callable[[Value], bool]) -> None:
        """Forget every value that `concerns` says yes to."""
        self.drops += 1
        for name in [name for name, (_, value) in self._entries.items() if concerns(value)]:
            del self._entries[name]

    def __len__(self) -> int:
        return len(self._entries)
