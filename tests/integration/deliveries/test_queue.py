"""The rows: who gets what, what a lost lease means, and whether the books balance."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from chatserver.deliveries.models import Claim, Planned, Sent, Target
from chatserver.deliveries.policies import SCHEDULE, Verdict
from chatserver.deliveries.queue import AHEAD, DeliveryQueue, Ended
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from tests.support.receiver import Post

# Of these tests alone: the database is shared with the webhooks' own.
CHANNEL = "test"


async def plan(post: Post, who: Principal, count: int, **more: Any) -> UUID:
    """A target with so many deliveries due."""
    target = Target(
        **{
            "id": uuid7(),
            "client_id": who.client_id,
            "channel": CHANNEL,
            "is_proven": True,
            "concurrency": 100,
            **more,
        }
    )
    open_work = post.talk.container.open(lambda work: work)
    async with open_work() as work:
        post.hooks.targets(work).add(target)
    async with post.hooks.open_deliveries() as deliveries:
        await deliveries.plan(
            [
                Planned(uuid7(), who.client_id, target.id, uuid7(), seq)
                for seq in range(1, count + 1)
            ],
            channel=CHANNEL,
        )
    return target.id


@pytest.fixture
async def queue(post: Post) -> DeliveryQueue:
    await post.talk.run("delete from delivery where channel = $1", CHANNEL)
    return post.hooks.queue


async def claim(queue: DeliveryQueue, limit: int = 1000, full: Sequence[UUID] = ()) -> list[Claim]:
    return await queue.claim(CHANNEL, limit=limit, full=full)


async def states(post: Post, target_id: UUID) -> Counter[str]:
    return await post.states(target_id)


ACCEPTED = Sent(outcome="accepted", status=200)


class TestClaims:
    async def test_many_at_once_never_get_the_same(
        self, post: Post, master: Principal, queue: DeliveryQueue
    ) -> None:
        for _ in range(5):
            await plan(post, master, 40)
        taken = await asyncio.gather(*(claim(queue, 60) for _ in range(8)))
        ids = [each.id for claims in taken for each in claims]
        rest = await claim(queue)
        ids += [each.id for each in rest]
        assert len(ids) == len(set(ids)) == 200

    async def test_clients_take_turns_however_many_targets_they_have(
        self, post: Post, master: Principal, queue: DeliveryQueue
    ) -> None:
        for _ in range(20):
            await plan(post, master, 10, concurrency=5)
        other = await post.talk.client(f"other-{uuid7().hex[-8:]}")
        await plan(post, other, 10, concurrency=5)
        claims = await claim(queue, 20)
        shares = Counter(each.client_id for each in claims)
        assert shares == {master.client_id: 10, other.client_id: 10}
        assert {each.client_id for each in await claim(queue, 20, full=[master.client_id])} == set()
        await plan(post, other, 3)
        again = await claim(queue, 50, full=[master.client_id])
        assert {each.client_id for each in again} == {other.client_id}

    async def test_a_target_gets_a_few_ahead_and_no_more_until_they_are_done(
        self, post: Post, master: Principal, queue: DeliveryQueue
    ) -> None:
        await plan(post, master, 50, concurrency=4)
        first = await claim(queue)
        assert len(first) == 4 * AHEAD
        assert await claim(queue) == []
        await queue.record([Ended(each, ACCEPTED, Verdict("delivered")) for each in first[:4]])
        assert len(await claim(queue)) == 4

    @pytest.mark.parametrize(
        ("more", "expected"),
        [
            ({"is_proven": False}, 1),
            ({"state": "paused"}, 1),
            ({"state": "disabled"}, 0),
            ({"state": "deleted"}, 0),
            ({"state": "degraded"}, 20),
            ({"rate_per_s": 0.001}, 0),
        ],
    )
    async def test_how_much_a_target_gets(
        self,
        post: Post,
        master: Principal,
        queue: DeliveryQueue,
        more: dict[str, Any],
        expected: int,
    ) -> None:
        await plan(post, master, 20, **more)
        assert len(await claim(queue)) == expected

    async def test_two_probes_at_once_are_one(
        self, post: Post, master: Principal, queue: DeliveryQueue
    ) -> None:
        await plan(post, master, 20, state="paused")
        taken = await asyncio.gather(*(claim(queue) for _ in range(8)))
        assert sum(len(claims) for claims in taken) == 1

    async def test_the_oldest_go_first(
        self, post: Post, master: Principal, queue: DeliveryQueue
    ) -> None:
        target = await plan(post, master, 10)
        await post.talk.run(
            "update delivery set next_at = next_at - make_interval(secs => 100 - source_seq)"
            " where target_id = $1",
            target,
        )
        claims = await claim(queue, 4)
        assert sorted(each.source_seq or 0 for each in claims) == [1, 2, 3, 4]


class TestLeases:
    async def test_who_lost_a_lease_writes_nothing(
        self, post: Post, master: Principal, queue: DeliveryQueue
    ) -> None:
        target = await plan(post, master, 1)
        (lost,) = await claim(queue)
        await post.advance(61)
        assert await queue.take_back() == 1
        (again,) = await claim(queue)
        ended = [Ended(lost, ACCEPTED, Verdict("delivered"))]
        assert await queue.record(ended) == [False]
        assert await states(post, target) == {"sending": 1}
        retry = Ended(again, Sent(outcome="retryable"), Verdict("retry_wait", "x", 5.0))
        assert await queue.record([retry]) == [True]
        assert await queue.record([retry]) == [False]
        rows = await post.talk.rows(
            "select no, outcome, error from delivery_attempt where delivery_id = $1 order by no",
            lost.id,
        )
        assert [(row["no"], row["outcome"]) for row in rows] == [(1, "unknown"), (2, "retryable")]

    async def test_what_kills_its_worker_ends_after_the_last_try(
        self, post: Post, master: Principal, queue: DeliveryQueue
    ) -> None:
        target = await plan(post, master, 1)
        for _ in SCHEDULE:
            assert len(await claim(queue)) == 1
            await post.advance(61)
            await queue.take_back()
        assert await states(post, target) == {"failed": 1}
        assert await claim(queue) == []
        (count,) = await post.talk.rows(
            "select count(*) as n from delivery_attempt where target_id = $1", target
        )
        assert count["n"] == len(SCHEDULE)

    async def test_what_is_given_back_was_not_tried(
        self, post: Post, master: Principal, queue: DeliveryQueue
    ) -> None:
        await plan(post, master, 3)
        claims = await claim(queue)
        await queue.give_back(claims)
        again = await claim(queue)
        assert {(each.id, each.tries) for each in again} == {(each.id, 1) for each in claims}
        assert {each.fence for each in again} == {2}

    async def test_what_has_no_time_or_no_target_is_settled(
        self, post: Post, master: Principal, queue: DeliveryQueue
    ) -> None:
        late, dead = await plan(post, master, 3), await plan(post, master, 3)
        await post.talk.run(
            "update delivery set expires_at = clock_timestamp() where target_id = $1", late
        )
        await post.talk.run("update delivery_target set state = 'disabled' where id = $1", dead)
        while await queue.settle():
            continue
        assert await states(post, late) == {"expired": 3}
        assert await states(post, dead) == {"failed": 3}


class TestLedger:
    async def test_it_balances_whatever_becomes_of_deliveries(
        self, post: Post, master: Principal, queue: DeliveryQueue
    ) -> None:
        await plan(post, master, 10)
        claims = await claim(queue)
        outcomes = ["delivered", "failed", "retry_wait", "expired", "cancelled"]
        await queue.record(
            [
                Ended(each, ACCEPTED, Verdict(state))
                for each, state in zip(claims, outcomes, strict=False)
            ]
        )
        ledger = await post.ledger(master)
        assert ledger.balanced
        (line,) = ledger.channels
        assert (line.accepted, line.in_flight) == (10, 6)
        assert {state: n for state, n in line.states.items() if n} == {
            "delivered": 1,
            "failed": 1,
            "expired": 1,
            "cancelled": 1,
        }

    async def test_it_shows_what_is_lost(
        self, post: Post, master: Principal, queue: DeliveryQueue
    ) -> None:
        target = await plan(post, master, 3)
        assert (await post.ledger(master)).balanced
        await post.talk.run("delete from delivery where target_id = $1 and source_seq = 2", target)
        ledger = await post.ledger(master)
        assert not ledger.balanced
        assert [(line.accepted, line.in_flight) for line in ledger.channels] == [(3, 2)]

    async def test_planning_twice_is_planning_once(
        self, post: Post, master: Principal, queue: DeliveryQueue
    ) -> None:
        target = await plan(post, master, 3)
        async with post.hooks.open_deliveries() as deliveries:
            made = await deliveries.plan(
                [Planned(uuid7(), master.client_id, target, uuid7(), seq) for seq in (2, 3, 4)],
                channel=CHANNEL,
            )
        assert made == 1
        assert (await post.ledger(master)).channels[0].accepted == 4
