"""One timer pings all sockets and ends the silent ones."""

import asyncio
from typing import Any

from chatserver.realtime.heartbeat import Heartbeat


class Socket:
    def __init__(self, sid: str, sockets: dict[str, Any], beat: Heartbeat) -> None:
        self.sid = sid
        self.due = 0.0
        self.is_pinged = False
        self.pings = 0
        self.is_silent = False
        self._sockets = sockets
        self._beat = beat
        sockets[sid] = self

    def ping(self) -> None:
        self.pings += 1

    def silent(self) -> None:
        self.is_silent = True
        del self._sockets[self.sid]

    def pong(self) -> None:
        self._beat.rest(self)


def make(interval_s: float = 0.05, timeout_s: float = 0.05) -> tuple[dict[str, Any], Heartbeat]:
    sockets: dict[str, Any] = {}
    return sockets, Heartbeat(sockets, interval_s, timeout_s)


async def test_who_answers_is_pinged_again_and_who_does_not_is_silent() -> None:
    sockets, beat = make()
    answering, silent = (Socket(sid, sockets, beat) for sid in "ab")
    for each in (answering, silent):
        beat.rest(each)
    await asyncio.sleep(0.07)
    assert (answering.pings, silent.pings) == (1, 1)
    answering.pong()
    await asyncio.sleep(0.06)
    assert silent.is_silent
    assert not answering.is_silent
    assert answering.pings == 2
    beat.stop()


async def test_ten_thousand_sockets_have_one_timer() -> None:
    sockets, beat = make(0.01, 10)
    everyone = [Socket(str(number), sockets, beat) for number in range(10_000)]
    for each in everyone:
        beat.rest(each)
    assert beat._timer is not None
    first = beat._timer
    beat.rest(everyone[0])
    assert beat._timer is first
    await asyncio.sleep(0.3)
    assert all(each.pings == 1 for each in everyone)
    beat.stop()


async def test_who_has_left_is_forgotten_and_the_timer_rests() -> None:
    sockets, beat = make(0.01, 0.01)
    beat.rest(Socket("a", sockets, beat))
    sockets.clear()
    await asyncio.sleep(0.03)
    assert beat._timer is None
    beat.rest(Socket("b", sockets, beat))
    await asyncio.sleep(0.02)
    assert sockets.get("b") is None or sockets["b"].pings == 1
    beat.stop()
