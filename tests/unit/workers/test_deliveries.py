"""The lane by itself: what one bad row, a lost database and a stop do to the others."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from chatserver.deliveries.models import Claim, Sent
from chatserver.deliveries.queue import Ended
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.ids import uuid7
from tests.support.nodes import eventually
from workers.deliveries import Lane

CLIENT, BAD = UUID(int=1), UUID(int=2)


def claim(target: UUID, *, concurrency: int = 4) -> Claim:
    return Claim(
        id=uuid7(),
        client_id=CLIENT,
        target_id=target,
        source_id=uuid7(),
        source_seq=1,
        generation=1,
        fence=1,
        attempts=0,
        tries=1,
        age_s=0,
        left_s=1000,
        concurrency=concurrency,
        is_plain=True,
        is_probe=False,
    )


class Rows:
    """What a queue gives once, and what it is told."""

    def __init__(self, *claims: Claim) -> None:
        self.claims = list(claims)
        self.recorded: list[Ended] = []
        self.given_back: list[Claim] = []
        self.outages = 0

    async def claim(
        self, channel: str, *, limit: int, after: UUID, full: Sequence[UUID]
    ) -> list[Claim]:
        given, self.claims = self.claims[:limit], self.claims[limit:]
        return given

    async def record(self, ended: Sequence[Ended]) -> list[bool]:
        if self.outages:
            self.outages -= 1
            raise UnavailableError
        if len(ended) > 1 and any(each.claim.target_id == BAD for each in ended):
            raise ValueError("one of these can't be written with others")
        self.recorded += ended
        return [True] * len(ended)

    async def give_back(self, claims: Sequence[Claim]) -> None:
        self.given_back += claims

    async def take_back(self) -> int:
        return 0

    async def settle(self) -> int:
        return 0


class Ways:
    """A sender whose sends end when they are let."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.begun: list[Claim] = []

    async def load(self, claims: Sequence[Claim]) -> list[str]:
        if len(claims) > 1 and any(each.target_id == BAD for each in claims):
            raise ValueError("one of these can't be read with others")
        return ["x"] * len(claims)

    async def send(self, claim: Claim, loaded: str) -> Sent:
        self.begun.append(claim)
        await self.go_on.wait()
        return Sent(outcome="accepted")


class Nothing:
    async def failed(self, claim: Claim, sent: Sent, *, is_flapping: bool) -> bool:
        return False

    async def succeeded(self, claim: Claim) -> None:
        return

    async def lost(self, claim: Claim, sent: Sent) -> None:
        return

    async def pass_on(self) -> bool:
        return False

    async def gave_back(self, target_id: UUID) -> None:
        return


def lane_of(rows: Rows, ways: Ways) -> Lane:
    return Lane(channel="test", queue=rows, sender=ways, notes=Nothing(), poll_s=0.01)


async def test_one_bad_row_takes_no_neighbour_with_it() -> None:
    rows = Rows(*(claim(uuid7()) for _ in range(5)), claim(BAD))
    ways = Ways()
    ways.go_on.set()
    lane = lane_of(rows, ways)
    running = asyncio.create_task(lane.run())
    await eventually(lambda: len(rows.recorded) == 6, why="all are written")
    await lane.stop(grace_s=1)
    await running
    assert len({each.claim.id for each in rows.recorded}) == 6
    assert lane.held == 0


async def test_an_outage_delays_what_is_written_down_and_repeats_no_send() -> None:
    rows, ways = Rows(claim(uuid7())), Ways()
    rows.outages = 2
    ways.go_on.set()
    lane = lane_of(rows, ways)
    running = asyncio.create_task(lane.run())
    await eventually(lambda: rows.recorded, why="it is written in the end")
    await lane.stop(grace_s=1)
    await running
    assert len(ways.begun) == 1


async def test_a_target_gets_no_more_at_once_than_it_may_have() -> None:
    target = uuid7()
    rows = Rows(*(claim(target, concurrency=2) for _ in range(6)), claim(uuid7()))
    ways = Ways()
    lane = lane_of(rows, ways)
    running = asyncio.create_task(lane.run())
    await eventually(lambda: len(ways.begun) == 3, why="two and the other one")
    assert (lane.running, lane.held) == (3, 7)
    ways.go_on.set()
    await eventually(lambda: len(rows.recorded) == 7, why="all of them")
    await lane.stop(grace_s=1)
    await running


async def test_a_stop_gives_back_what_was_not_begun_and_tells_what_was_cut_off() -> None:
    target = uuid7()
    rows = Rows(*(claim(target, concurrency=1) for _ in range(4)))
    ways = Ways()
    lane = lane_of(rows, ways)
    running = asyncio.create_task(lane.run())
    await eventually(lambda: len(ways.begun) == 1, why="the first is sent")
    await lane.stop(grace_s=0.05)
    await running
    assert len(rows.given_back) == 3
    (cut,) = rows.recorded
    assert (cut.sent.error, cut.verdict.state, cut.verdict.counts) == (
        *("interrupted", "retry_wait"),
        True,
    )
