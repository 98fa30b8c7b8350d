"""What a node believes of a bucket while Redis flaps, and what it spends before it asks."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from chatserver.infra.rate_limits import TRUST, RateLimiter
from chatserver.infra.redis_scripts import RedisAwayError
from chatserver.infra.token_buckets import Policy


class Silent:
    """A Redis that takes every question and answers none: the line breaks instead."""

    def __init__(self) -> None:
        self.is_there = True
        self.asked = 0

    def apart(self, keys: Sequence[str]) -> list[list[int]]:
        return [list(range(len(keys)))]

    def ask(self, _keys: Sequence[str], _arguments: Sequence[Any]) -> "asyncio.Future[Any]":
        self.asked += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer.set_exception(RedisAwayError())
        return answer


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def limiter(redis: Silent, clock: Time) -> RateLimiter:
    made = RateLimiter("redis://127.0.0.1:1/0", clock=clock)
    made.redis = redis  # type: ignore[assignment]  # as much of it as is used
    return made


async def test_questions_that_nobody_answers_do_not_empty_a_bucket() -> None:
    redis, clock = Silent(), Time()
    made = limiter(redis, clock)
    bucket = made.bucket(Policy("things", 0.001, 100), "a")
    bucket.debt = TRUST * 100  # all that may be owed is owed: it has to ask
    for flap in range(20):
        redis.is_there = True
        assert await made.take([bucket]) is None, f"refused at flap {flap}"
        redis.is_there = False
        clock.now += 1
    assert redis.asked > 0
    (level,) = made.levels([bucket])
    assert level.remaining >= 75


async def test_a_few_tokens_of_a_full_bucket_are_spent_before_redis_is_asked() -> None:
    redis, clock = Silent(), Time()
    made = limiter(redis, clock)
    bucket = made.bucket(Policy("things", 0.001, 80), "a")
    spent = sum(made.take_now([bucket]) for _ in range(50))
    assert (spent, redis.asked) == (80 * TRUST, 0)
    assert made.levels([bucket])[0].remaining == 80 - spent


@pytest.mark.parametrize("nodes", [2, 5])
async def test_all_nodes_together_spend_no_more_before_they_ask(nodes: int) -> None:
    made = limiter(Silent(), Time())
    made.nodes = nodes
    bucket = made.bucket(Policy("things", 0.001, 80), "a")
    assert sum(made.take_now([bucket]) for _ in range(50)) == 80 * TRUST // nodes


async def test_nothing_is_spent_on_trust_of_a_bucket_that_may_be_half_empty() -> None:
    made = limiter(Silent(), clock := Time())
    bucket = made.bucket(Policy("things", 1, 80), "a")
    bucket.believe(40, clock.now)
    assert not made.take_now([bucket])
    clock.now += 10
    assert made.take_now([bucket])


async def test_one_bucket_that_lacks_a_token_keeps_the_others_from_being_spent() -> None:
    made = limiter(Silent(), clock := Time())
    wide, narrow = (made.bucket(Policy(name, 1, 80), "a") for name in ("wide", "narrow"))
    narrow.believe(0, clock.now)
    assert not made.take_now([wide, narrow])
    assert made.levels([wide])[0].remaining == 80
