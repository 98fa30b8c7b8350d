"""Whether any other node listens: to whom nobody listens, nobody need publish.

A node that has subscribed says HELLO to all, and Redis tells how many that reached. Each of those
that is there before answers WELCOME, and publishes all it has from then on. Only when all have
answered does the newcomer call itself healthy: what it reads from the log before, the log told it,
and what is committed later is published to it. A node that is deaf can't answer; it finds out
within `PATIENCE_S` and takes nobody for granted any more.

Whoever was told that only he himself heard his HELLO is alone, until he hears of another. From time
to time each asks again, since nobody says goodbye.
"""

import asyncio
from collections.abc import Callable
from typing import Final

# Longer than a deaf node takes to notice; see `bus.MISSED`.
PATIENCE_S: Final = 5.5
# A HELLO or an answer may be lost while links come back one after the other.
REPEAT_S: Final = 0.5
AGAIN_S: Final = 10.0


class Fellows:
    """What one node knows of the others. `say` publishes to all and tells how many heard it.

    `greeted` is called when everyone who was there before knows of this node.
    """

    def __init__(
        self, say: Callable[[bool, Callable[[int], None]], None], greeted: Callable[[], None]
    ) -> None:
        """`say`: whether it is a HELLO that asks for answers, and whom to tell how many heard."""
        self.alone = False
        self.is_greeted = False
        self._say = say
        self._greeted = greeted
        self._others = 0
        self._heard = 0
        self._life = 0
        self._welcomed: set[bytes] = set()
        self._insisting: asyncio.TimerHandle | None = None
        self._arrived_at = self._asked_at = 0.0

    def arrive(self) -> None:
        """Say HELLO: everything is subscribed."""
        self._life += 1
        self._welcomed.clear()
        self._others = -1
        self._arrived_at = asyncio.get_running_loop().time()
        self._insist()

    def lose(self) -> None:
        """Hear that the connection is gone: from now on there may be anybody."""
        self.alone = self.is_greeted = False
        self._life += 1
        if self._insisting is not None:
            self._insisting.cancel()

    def hear(self) -> None:
        """Hear of another node."""
        self._heard += 1
        self.alone = False

    def welcome(self, origin: bytes) -> None:
        """Hear that another node knows of this one."""
        self.hear()
        self._welcomed.add(origin)
        self._look()

    def ask_again(self) -> None:
        """Look whether the others have gone, if it is time."""
        now = asyncio.get_running_loop().time()
        if self.is_greeted and now - self._asked_at >= AGAIN_S:
            self._asked_at = now
            self._ask(hello=False)

    def _insist(self) -> None:
        self._asked_at = asyncio.get_running_loop().time()
        if self._asked_at - self._arrived_at >= PATIENCE_S:
            self._settle()
        else:
            self._insisting = asyncio.get_running_loop().call_later(REPEAT_S, self._insist)
            self._ask(hello=True)

    def _ask(self, *, hello: bool) -> None:
        life, heard = self._life, self._heard

        def told(receivers: int) -> None:
            # Of whom was heard meanwhile, this answer need not know yet.
            if life != self._life:
                return
            if heard == self._heard:
                self.alone = receivers == 1
            if hello:
                self._others = receivers - 1
                self._look()

        self._say(hello, told)

    def _look(self) -> None:
        if 0 <= self._others <= len(self._welcomed):
            self._settle()

    def _settle(self) -> None:
        if self._insisting is not None:
            self._insisting.cancel()
        if not self.is_greeted:
            self.is_greeted = True
            self._greeted()
