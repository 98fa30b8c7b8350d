"""Commands keep their order in a lane, don't wait for other lanes, and can't pile up."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
import uvloop

from chatserver.realtime.lanes import TURN_S, Lanes, pass_on, turn

NewLoop: TypeAlias = Callable[[], asyncio.AbstractEventLoop]


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


@pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_commands_that_wait_for_nothing_leave_others_their_turn(loop: NewLoop) -> None:
    """A thousand refusals of one client must not hold up a command of another."""
    order: list[str] = []

    async def refused() -> None:
        until = time.perf_counter() + TURN_S / 4
        while time.perf_counter() < until:
            pass
        order.append("refused")

    async def quick() -> None:
        order.append("quick")

    async def both() -> None:
        lanes, others = Lanes(), Lanes()
        for _ in range(200):
            assert lanes.submit("room", 10, refused)
        await asyncio.sleep(0)
        assert others.submit("room", 10, quick)
        await asyncio.gather(lanes.finish(), others.finish())

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(both())
    assert len(order) == 201
    # Of two hundred at a quarter of a turn each, a few turns' worth went first.
    assert order.index("quick") < 50


class Desk:
    """Sends that take their place at once and are answered when the test says so; and others."""

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.begun: list[str] = []
        self.answered: list[str] = []
        self.ready: dict[str, asyncio.Event] = {}

    def send(self, name: str) -> None:
        self._submit(name, joins=True)

    def other(self, name: str) -> None:
        self._submit(name, joins=False)

    def _submit(self, name: str, *, joins: bool) -> None:
        self.ready[name] = asyncio.Event()

        async def work() -> None:
            self.begun.append(name)
            if joins:
                pass_on()
            await self.ready[name].wait()
            before = turn()
            if before is not None:
                await before
            self.answered.append(name)

        assert self.lanes.submit("room", 1, work, joins=joins)


async def quiet() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class TestPassingOn:
    async def test_sends_begin_without_waiting_for_each_other_and_are_answered_in_order(
        self,
    ) -> None:
        desk = Desk()
        names = [str(number) for number in range(10)]
        for name in names:
            desk.send(name)
        await quiet()
        assert desk.begun == names
        for name in reversed(names):
            desk.ready[name].set()
            await quiet()
        assert desk.answered == names
        await desk.lanes.finish()
        assert (desk.lanes.pending, desk.lanes.bytes, desk.lanes._lanes) == (0, 0, {})

    async def test_one_that_comes_later_begins_at_once_too(self) -> None:
        desk = Desk()
        desk.send("1")
        await quiet()
        desk.send("2")
        await quiet()
        assert desk.begun == ["1", "2"]

    async def test_what_is_no_send_waits_for_all_before_it_and_is_waited_for(self) -> None:
        desk = Desk()
        desk.send("1")
        desk.send("2")
        desk.other("read")
        desk.send("3")
        await quiet()
        assert desk.begun == ["1", "2"]
        desk.ready["2"].set()
        await quiet()
        assert desk.begun == ["1", "2"]
        desk.ready["1"].set()
        await quiet()
        assert desk.begun == ["1", "2", "read"]
        assert desk.answered == ["1", "2"]
        desk.ready["read"].set()
        await quiet()
        assert desk.begun == ["1", "2", "read", "3"]
        desk.ready["3"].set()
        await desk.lanes.finish()
        assert desk.answered == ["1", "2", "read", "3"]

    async def test_who_is_given_up_leaves_nothing_behind(self) -> None:
        desk = Desk()
        for name in "123":
            desk.send(name)
        await quiet()
        desk.send("4")
        desk.lanes.cancel()
        await desk.lanes.finish()
        await quiet()
        assert desk.answered == []
        desk.send("5")
        desk.ready["5"].set()
        await desk.lanes.finish()
        assert desk.answered == ["5"]

    def test_outside_of_a_lane_there_is_nothing_to_wait_for(self) -> None:
        pass_on()
        assert turn() is None
