"""Commands keep their order in a lane, don't wait for other lanes, and can't pile up."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from chatserver.realtime.lanes import Lanes


async def test_each_lane_is_in_order_and_lanes_run_side_by_side() -> None:
    lanes = Lanes()
    done: list[tuple[str, int]] = []
    running: set[str] = set()
    most = 0

    def work(key: str, number: int) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            nonlocal most
            assert key not in running
            running.add(key)
            most = max(most, len(running))
            await asyncio.sleep(random.uniform(0, 0.002))
            running.discard(key)
            done.append((key, number))

        return run

    for number in range(50):
        for key in "abc":
            assert lanes.submit(key, 10, work(key, number))
    await lanes.finish()
    for key in "abc":
        assert [number for at, number in done if at == key] == list(range(50))
    assert most == 3
    assert (lanes.pending, lanes.bytes) == (0, 0)


async def test_too_many_or_too_large_are_refused_and_room_comes_back() -> None:
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    lanes = Lanes(max_pending=3, max_bytes=100)
    assert [lanes.submit(str(at), 10, wait) for at in range(4)] == [True, True, True, False]
    assert not Lanes(max_bytes=100).submit("a", 101, wait)
    gate.set()
    await lanes.finish()
    assert lanes.submit("a", 100, wait)
    await lanes.finish()


async def test_a_lane_that_ran_empty_starts_again() -> None:
    lanes = Lanes()
    seen: list[int] = []

    async def note() -> None:
        seen.append(len(seen))

    for _ in range(3):
        lanes.submit("a", 1, note)
        await lanes.finish()
    assert seen == [0, 1, 2]


async def test_whoever_waited_behind_one_that_hung_is_told_instead_of_hanging_too() -> None:
    lanes = Lanes(slow_s=0.02, patience_s=0.05)
    ran: list[int] = []
    told: list[int] = []

    def submit(number: int, seconds: float) -> None:
        async def work() -> None:
            ran.append(number)
            await asyncio.sleep(seconds)

        assert lanes.submit("room", 10, work, overdue=lambda: told.append(number))

    submit(0, 0.08)
    for number in range(1, 100):
        submit(number, 0.08)
    await lanes.finish()
    assert ran == [0]
    assert told == list(range(1, 100))
    submit(100, 0)
    await lanes.finish()
    assert ran == [0, 100]


async def test_a_long_burst_of_quick_commands_is_never_given_up() -> None:
    lanes = Lanes(slow_s=0.5, patience_s=0.01)
    ran: list[int] = []
    told: list[int] = []

    def submit(number: int) -> None:
        async def work() -> None:
            await asyncio.sleep(0.001)
            ran.append(number)

        assert lanes.submit("room", 10, work, overdue=lambda: told.append(number))

    for number in range(100):
        submit(number)
    await lanes.finish()
    assert ran == list(range(100))
    assert told == []
