"""The buckets that all nodes share, on a real Valkey: never too much, never too little."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatserver.infra.rate_limits import BUDGET_S, TRUST, RateLimiter
from chatserver.infra.redis_scripts import RedisAwayError, RedisScripts
from chatserver.infra.token_buckets import Policy, Refusal
from tests.support.realtime import until
from tests.support.servers import Servers, run

SLACK = 1e-3


class Line(RedisScripts):
    """A connection to a real Redis that a test may cut, and mend."""

    is_cut = False

    async def _open(self) -> None:
        if self.is_cut:
            raise RedisAwayError
        await super()._open()

    def cut(self) -> None:
        self.is_cut = True
        self._break()

    async def mend(self) -> None:
        self.is_cut = False
        await until(lambda: self.is_there)


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def limiter_at(
    url: str,
    prefix: str,
    clock: Callable[[], float] | None = None,
    *,
    nodes: int = 1,
    budget_s: float = 5.0,
) -> tuple[RateLimiter, Line]:
    if clock is None:
        made = RateLimiter(url, prefix=prefix, budget_s=budget_s)
    else:
        made = RateLimiter(url, prefix=prefix, clock=clock, redis_clock=clock)
    line = Line(url, made.redis._script)
    line.returned = made._settle
    line._retry_s = 0.001
    made.redis = line
    made.nodes = nodes
    await made.start()
    await until(lambda: line.is_there)
    return made, line


def most_in_a_window(times: list[float], rate: float) -> float:
    """Tell the least `burst` with which a bucket could have allowed all of these."""
    worst = level = 0.0
    before: float | None = None
    for at in times:
        if before is not None:
            level = max(0.0, level - rate * (at - before))
        level += 1
        worst, before = max(worst, level), at
    return worst


@pytest.fixture(scope="module")
def url(servers: Servers) -> str:
    return servers.valkey.url


@pytest.fixture
def prefix() -> str:
    return f"test:{secrets.token_hex(4)}:"


@pytest.fixture
async def limiter(url: str, prefix: str) -> AsyncIterator[RateLimiter]:
    made, _ = await limiter_at(url, prefix)
    yield made
    await made.stop()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 25)),
        st.tuples(st.just("wait"), st.floats(0.001, 3.0)),
        st.tuples(st.just("cut"), st.just(0)),
        st.tuples(st.just("mend"), st.just(0)),
        st.tuples(st.just("lose"), st.just(0)),
    ),
    min_size=5,
    max_size=60,
)


class TestProperty:
    @given(
        steps=STEPS, rate=st.sampled_from([0.5, 3.0, 20.0]), burst=st.sampled_from([1, 7, 20, 64])
    )
    @settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_no_window_sees_more_than_burst_and_rate_whatever_redis_does(
        self, url: str, steps: list[tuple[str, float]], rate: float, burst: int
    ) -> None:
        async def play() -> list[float]:
            clock = Time()
            made, line = await limiter_at(url, f"test:{secrets.token_hex(6)}:", clock)
            bucket = made.bucket(Policy("things", rate, burst), "a")
            allowed: list[float] = []
            try:
                for name, value in steps:
                    if name == "take":
                        answers = [await made.take([bucket]) for _ in range(int(value))]
                        allowed += [clock.now] * answers.count(None)
                    elif name == "wait":
                        clock.now += value
                    elif name == "cut":
                        line.cut()
                    elif name == "mend":
                        await line.mend()
                    elif line.is_there:
                        # Redis came back empty, as after a crash without a dump.
                        await line.run("DEL", bucket.key)
            finally:
                await made.stop()
            return allowed

        allowed = run(play())
        assert most_in_a_window(allowed, rate) <= burst + SLACK

    @given(
        steps=st.lists(
            st.tuples(st.integers(0, 2), st.integers(1, 30), st.floats(0, 1.5)),
            min_size=3,
            max_size=40,
        )
    )
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_three_nodes_together_stay_within_the_bucket_and_an_eighth_on_trust(
        self, url: str, steps: list[tuple[int, int, float]]
    ) -> None:
        rate, burst = 10.0, 40

        async def play() -> list[float]:
            clock = Time()
            prefix = f"test:{secrets.token_hex(6)}:"
            nodes = [(await limiter_at(url, prefix, clock, nodes=3))[0] for _ in range(3)]
            policy = Policy("things", rate, burst)
            allowed = []
            for number, count, pause in steps:
                node = nodes[number]
                bucket = node.bucket(policy, "a")
                answers = await asyncio.gather(*(node.take([bucket]) for _ in range(count)))
                allowed += [clock.now for answer in answers if answer is None]
                clock.now += pause
            for node in nodes:
                await node.stop()
            return allowed

        assert most_in_a_window(run(play()), rate) <= burst * (1 + TRUST) + SLACK

    @given(
        steps=st.lists(
            st.tuples(
                st.integers(0, 2),
                st.sampled_from(["take", "take", "take", "cut", "mend", "cut all", "mend all"]),
                st.integers(1, 50),
                st.floats(0, 1.5),
            ),
            min_size=3,
            max_size=40,
        )
    )
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_in_any_outage_three_nodes_overrun_by_half_a_burst_and_half_the_rate_at_most(
        self, url: str, steps: list[tuple[int, str, int, float]]
    ) -> None:
        """What docs/limits.md promises: lines are cut and mended in any order, one or all."""
        rate, burst = 10.0, 60

        async def play() -> list[float]:
            clock = Time()
            prefix = f"test:{secrets.token_hex(6)}:"
            nodes = [await limiter_at(url, prefix, clock, nodes=3) for _ in range(3)]
            policy = Policy("things", rate, burst)
            allowed = []
            for number, what, count, pause in steps:
                concerned = nodes if what.endswith("all") else [nodes[number]]
                for node, line in concerned:
                    if what.startswith("cut"):
                        line.cut()
                    elif what.startswith("mend"):
                        await line.mend()
                    else:
                        answers = [
                            await node.take([node.bucket(policy, "a")]) for _ in range(count)
                        ]
                        allowed += [clock.now] * answers.count(None)
                clock.now += pause
            for node, _ in nodes:
                await node.stop()
            return allowed

        assert most_in_a_window(run(play()), 1.5 * rate) <= 1.5 * burst + SLACK


class TestExactness:
    async def test_the_whole_burst_is_given_and_not_one_more(self, limiter: RateLimiter) -> None:
        bucket = limiter.bucket(Policy("things", 0.0001, 200), "a")
        answers = await asyncio.gather(*(limiter.take([bucket]) for _ in range(300)))
        assert answers.count(None) == 200
        refusal = await limiter.take([bucket])
        assert isinstance(refusal, Refusal)
        assert 9_000 < refusal.retry_after_s <= 10_000

    async def test_three_nodes_at_once_share_one_burst(self, url: str, prefix: str) -> None:
        nodes = [(await limiter_at(url, prefix, nodes=3))[0] for _ in range(3)]
        policy = Policy("things", 0.01, 90)

        async def storm(node: RateLimiter) -> int:
            bucket = node.bucket(policy, "a")
            answers = await asyncio.gather(*(node.take([bucket]) for _ in range(100)))
            return answers.count(None)

        counted = await asyncio.gather(*(storm(node) for node in nodes))
        for node in nodes:
            await node.stop()
        assert sum(counted) <= 90 * (1 + TRUST)
        # Portions that a node did not spend melt; with a storm everywhere little is left over.
        assert sum(counted) >= 85

    async def test_all_buckets_give_or_none_does(self, limiter: RateLimiter) -> None:
        wide = limiter.bucket(Policy("wide", 0.001, 100), "a")
        narrow = limiter.bucket(Policy("narrow", 0.001, 3), "a")
        answers = [await limiter.take([wide, narrow]) for _ in range(10)]
        assert answers.count(None) == 3
        assert [answer.policy.name for answer in answers if answer] == ["narrow"] * 7
        assert limiter.levels([wide, narrow])[0].remaining == 97
        more = await asyncio.gather(*(limiter.take([wide]) for _ in range(100)))
        assert more.count(None) == 97

    async def test_a_steady_sender_below_the_rate_is_never_refused(
        self, limiter: RateLimiter
    ) -> None:
        bucket = limiter.bucket(Policy("things", 200, 20), "a")
        for _ in range(100):
            assert await limiter.take([bucket]) is None
            await asyncio.sleep(0.006)

    async def test_most_takes_need_no_round_trip(self, limiter: RateLimiter) -> None:
        bucket = limiter.bucket(Policy("things", 100, 1000), "a")
        for _ in range(500):
            assert await limiter.take([bucket]) is None
        assert limiter.asked <= 10

    async def test_a_refused_sender_does_not_reach_redis_again_until_a_token_is_due(
        self, limiter: RateLimiter
    ) -> None:
        bucket = limiter.bucket(Policy("things", 0.1, 5), "a")
        for _ in range(6):
            await limiter.take([bucket])
        asked = limiter.asked
        for _ in range(1000):
            assert await limiter.take([bucket]) is not None
        assert limiter.asked == asked

    async def test_a_changed_limit_counts_at_once(self, limiter: RateLimiter) -> None:
        limiter.bucket(Policy("things", 0.001, 100), "a")
        bucket = limiter.bucket(Policy("things", 0.001, 2), "a")
        answers = [await limiter.take([bucket]) for _ in range(4)]
        assert [answer is None for answer in answers] == [True, True, False, False]


class TestWithoutRedis:
    async def test_a_dead_redis_delays_nobody_and_a_node_takes_half(self, prefix: str) -> None:
        made = RateLimiter("redis://127.0.0.1:1/0", prefix=prefix)
        await made.start()
        bucket = made.bucket(Policy("things", 0.001, 100), "a")
        started = time.monotonic()
        answers = [await made.take([bucket]) for _ in range(200)]
        assert time.monotonic() - started < 0.5
        assert answers.count(None) == 50
        await made.stop()

    async def test_a_share_gets_smaller_with_the_number_of_nodes(self, prefix: str) -> None:
        made = RateLimiter("redis://127.0.0.1:1/0", prefix=prefix)
        made.nodes = 5
        await made.start()
        bucket = made.bucket(Policy("things", 0.001, 100), "a")
        answers = [await made.take([bucket]) for _ in range(200)]
        assert answers.count(None) == 10
        await made.stop()

    async def test_a_frozen_redis_costs_the_budget_and_then_nothing(self, servers: Servers) -> None:
        with Servers(tcp=True) as own:
            made, _ = await limiter_at(own.valkey.url, "test:", budget_s=BUDGET_S)
            policy = Policy("things", 1000, 7)  # so few that none is given on trust
            assert await made.take([made.bucket(policy, "before")]) is None
            own.valkey.pause()
            waits = []
            for number in range(40):
                started = time.monotonic()
                assert await made.take([made.bucket(policy, f"user {number}")]) is None
                waits.append(time.monotonic() - started)
            own.valkey.resume()
            assert max(waits) < 0.2  # the budget is 50 ms; the rest is for a busy machine
            assert max(waits[20:]) < 0.02
            await until(lambda: made.redis.is_there)
            asked = made.asked
            assert await made.take([made.bucket(policy, "after")]) is None
            assert made.asked == asked + 1
            await made.stop()

    async def test_a_redis_that_was_killed_is_used_again_by_itself(self) -> None:
        with Servers(tcp=True) as own:
            made, _ = await limiter_at(own.valkey.url, "test:")
            bucket = made.bucket(Policy("things", 0.001, 100), "a")
            answers = await asyncio.gather(*(made.take([bucket]) for _ in range(60)))
            assert answers.count(None) == 60
            own.valkey.kill()
            # Whoever asks first notices it.
            assert await made.take([made.bucket(Policy("things", 1, 10), "other")]) is None
            alone = [await made.take([bucket]) for _ in range(100)]
            own.valkey.start()
            await until(lambda: made.redis.is_there)
            after = [await made.take([bucket]) for _ in range(100)]
            # It came back empty, and is told what this node knows.
            assert alone.count(None) + after.count(None) <= 40
            assert alone.count(None) >= 1
            await made.stop()


class TestLevels:
    async def test_levels_tell_what_is_left_and_when_it_is_back(self, limiter: RateLimiter) -> None:
        bucket = limiter.bucket(Policy("things", 10, 100), "a")
        for _ in range(30):
            await limiter.take([bucket])
        (level,) = limiter.levels([bucket])
        assert 69 <= level.remaining <= 75
        assert level.full_in_s in (3, 4)
        assert level.policy.window_s == 10
