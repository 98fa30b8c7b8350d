"""Handshakes: a bound on how many run at once, a short queue, and a moment to come again."""

import asyncio

import pytest

from chatserver.kernel.errors import UnavailableError
from chatserver.realtime.admission import EARLIEST_MS, LATEST_MS, Admission


async def test_who_waits_too_long_is_told_when_to_come_again() -> None:
    admission = Admission(at_once=1, queue_s=0.02)
    async with admission.place():
        with pytest.raises(UnavailableError) as refused:
            async with admission.place():
                pass
    assert refused.value.retry_after_ms is not None
    assert EARLIEST_MS <= refused.value.retry_after_ms <= LATEST_MS
    assert admission.refused == 1
    async with admission.place():
        assert admission.refused == 1


async def test_those_in_the_queue_have_their_turn() -> None:
    admission = Admission(at_once=2, queue_s=5)
    running = most = 0

    async def handshake() -> None:
        nonlocal running, most
        async with admission.place():
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

    await asyncio.gather(*(handshake() for _ in range(10)))
    assert most == 2
