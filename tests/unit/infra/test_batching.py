"""Many small calls in few large ones."""

import asyncio
from collections.abc import Sequence

import pytest

from chatserver.infra.batching import Batcher


async def test_whoever_comes_together_or_meanwhile_shares_a_call() -> None:
    seen: list[list[int]] = []
    go_on = asyncio.Event()

    async def double(things: Sequence[int]) -> list[int]:
        seen.append(list(things))
        await go_on.wait()
        return [thing * 2 for thing in things]

    batcher: Batcher[int, int] = Batcher(double, size=3)
    first = [asyncio.create_task(batcher.ask(n)) for n in range(2)]
    await asyncio.sleep(0.01)
    second = [asyncio.create_task(batcher.ask(n)) for n in range(2, 7)]
    await asyncio.sleep(0.01)
    assert seen == [[0, 1]]
    go_on.set()
    assert await asyncio.gather(*first, *second) == [0, 2, 4, 6, 8, 10, 12]
    assert seen == [[0, 1], [2, 3, 4], [5, 6]]
    assert (batcher.calls, batcher.things) == (3, 7)


async def test_an_error_is_everyones_of_that_call_alone() -> None:
    async def fail_once(things: Sequence[int]) -> list[int]:
        if 0 in things:
            raise ValueError("no")
        return list(things)

    batcher: Batcher[int, int] = Batcher(fail_once, size=2)
    given = await asyncio.gather(*(batcher.ask(n) for n in range(4)), return_exceptions=True)
    assert [isinstance(each, ValueError) for each in given] == [True, True, False, False]


async def test_who_is_cancelled_is_not_worked_for_and_delays_nobody() -> None:
    seen: list[int] = []

    async def note(things: Sequence[int]) -> list[int]:
        seen.extend(things)
        return list(things)

    batcher: Batcher[int, int] = Batcher(note, size=10)
    gone, stays = (asyncio.create_task(batcher.ask(n)) for n in (1, 2))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays == 2
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert 2 in seen


async def test_whoever_waits_too_long_is_told_and_the_others_get_their_answer() -> None:
    going = asyncio.Event()

    async def work(things: Sequence[int]) -> list[int]:
        await going.wait()
        return [2 * each for each in things]

    batcher = Batcher(work, size=10)
    patient = asyncio.create_task(batcher.ask(1))
    with pytest.raises(TimeoutError):
        await batcher.ask(2, within_s=0.01)
    going.set()
    assert await patient == 2
    assert await batcher.ask(3, within_s=5.0) == 6
