"""Token buckets that all nodes share: exact in Redis, leased in portions, local when it is away.

A bucket holds `burst` tokens and gains `rate` a second. A node takes tokens out of Redis in
portions and spends them from memory, so that most commands cost no round trip. A portion melts as
fast as the bucket fills up again, hence portions and bucket together never hold more than `burst`:
no window of t seconds sees more than burst + rate * t, on however many nodes. Of a bucket that is
far from empty a node may spend a few tokens before it asks at all: all nodes together an eighth of
the burst. What is owed is taken out of the bucket with the next question, as of when it was spent.

Without Redis a node goes on alone, with half its share of the rate, starting from what it knew;
what it spent meanwhile is taken out of the bucket before Redis is asked again.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from chatserver.infra.redis_scripts import RedisAwayError, RedisScripts
from chatserver.infra.token_buckets import Bucket, Level, Policy, Refusal
from chatserver.kernel.tasks import end

# Of everything that may be waited for; Redis answers in well below one millisecond.
BUDGET_S: Final = 0.05
REMEMBERED: Final = 100_000
# A portion is at most this part of a bucket, and at most half of what is in it: others want some.
PORTION: Final = 4
# Alone, a node takes half its share: the others may see Redis all the same.
SHARE: Final = 0.5
# How much of a burst all nodes together may spend before Redis hears of it.
TRUST: Final = 1 / 8
# A crowd that empties a bucket halves what is left time and again; the budget ends it anyway.
ROUNDS: Final = 40
# How often the loop may turn until an answer that has arrived is surely read.
TURNS: Final = 6
# What every bucket has, even one that is in debt.
NOTHING: Final = -1e15

_SCRIPT: Final = """
local now = tonumber(ARGV[1])
if not now then
  local t = redis.call('TIME')
  now = tonumber(t[1]) + tonumber(t[2]) / 1000000
end
local levels, is_given = {}, 1
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 7 + 1
  local rate, burst, need = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local known = redis.call('HMGET', key, 'l', 't')
  if known[1] then
    local level, since, debt = tonumber(known[1]), tonumber(known[2]), tonumber(ARGV[at + 6])
    local spent_at = now - tonumber(ARGV[at + 7])
    if since < spent_at then
      level = math.min(burst, level + (spent_at - since) * rate) - debt
      since, debt = spent_at, 0
    end
    level = math.min(burst, level + math.max(0, now - since) * rate)
    levels[i] = math.min(burst, level - debt)
  else
    levels[i] = tonumber(ARGV[at + 5])
  end
  if levels[i] < need - 0.001 then
    is_given = 0
  end
end
local answer = {is_given}
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 7 + 1
  local rate, burst, need = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local given = 0
  if is_given == 1 then
    given = math.max(0, need, math.min(tonumber(ARGV[at + 4]), math.floor(levels[i] / 2)))
  end
  local level = levels[i] - given
  redis.call('HSET', key, 'l', string.format('%.6f', level), 't', string.format('%.6f', now))
  redis.call('PEXPIRE', key, math.ceil((burst - level) / rate * 1000) + 1000)
  answer[#answer + 1] = string.format('%.6f', given)
  answer[#answer + 1] = string.format('%.6f', level)
end
return answer
"""


class _Trip:
    """One question to Redis, and whether the one who asked still waits for the answer."""

    __slots__ = ("buckets", "cost", "done", "granted", "is_waited_for")

    def __init__(self, buckets: list[Bucket], cost: float) -> None:
        self.buckets = buckets
        self.cost = cost
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_waited_for = True
        self.granted = False


class RateLimiter:
    """All buckets of one node. `nodes` is how many nodes share them, for when Redis is away.

    `redis_clock` replaces Redis's own clock, in tests only.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        prefix: str = "cs:rl:",
        clock: Callable[[], float] = time.monotonic,
        redis_clock: Callable[[], float] | None = None,
        budget_s: float = BUDGET_S,
    ) -> None:
        self._prefix = prefix
        self._clock = clock
        self._redis_clock = redis_clock
        self._budget_s = budget_s
        self._buckets: OrderedDict[tuple[str, str], Bucket] = OrderedDict()
        self._fetches: set[asyncio.Task[None]] = set()
        self.redis = RedisScripts(redis_url, _SCRIPT)
        self.redis.returned = self._settle
        self.nodes = 1
        # For metrics and tests: how often Redis was asked, and how often we went on without it.
        self.asked = 0
        self.went_alone = 0

    async def start(self) -> None:
        await self.redis.start()

    async def stop(self) -> None:
        await end(*self._fetches)
        await self.redis.stop()

    def bucket(self, policy: Policy, subject: str, *, home: str = "") -> Bucket:
        """Give a bucket. A subject that was not seen for long starts anew from what Redis knows.

        `home`: in a Redis Cluster, buckets of the same one are on the same server, and are emptied
        together with one question; without it a subject is a home of its own.
        """
        name = (policy.name, subject)
        found = self._buckets.get(name)
        if found is None:
            key = f"{self._prefix}{{{home or subject}}}:{policy.name}:{subject}"
            found = self._buckets[name] = Bucket(policy, key, self._clock())
            if len(self._buckets) > REMEMBERED:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
            if found.policy is not policy and found.policy != policy:
                found.change(policy)
        return found

    def take_now(self, buckets: Sequence[Bucket], cost: float = 1.0) -> bool:
        """Take tokens that were leased, or on trust, all or none; False: only `take` can tell."""
        now = self._clock()
        trusted: list[Bucket] | None = None
        for bucket in buckets:
            if bucket.leased < cost or bucket.lease(now) < cost:
                share = TRUST / self.nodes
                if not (self.redis.is_there and bucket.may_trust(cost, now, share)):
                    return False
                if trusted is None:
                    trusted = []
                trusted.append(bucket)
        if trusted is None:
            for bucket in buckets:
                bucket.spend(cost, now)
            return True
        for bucket in buckets:
            if bucket in trusted:
                bucket.spend_on_trust(cost, now)
            else:
                bucket.spend(cost, now)
        return True

    async def take(self, buckets: Sequence[Bucket], cost: float = 1.0) -> Refusal | None:
        """Take `cost` tokens from every bucket, or from none and say which one lacks them.

        Waits for Redis 50 ms at most; never raises.
        """
        deadline = self._clock() + self._budget_s
        for _ in range(ROUNDS):
            now = self._clock()
            if (refusal := _denied(buckets, now)) is not None:
                return refusal
            if self.take_now(buckets, cost):
                return None
            if not self.redis.is_there or now >= deadline:
                break
            lacking = [bucket for bucket in buckets if bucket.lease(now) < cost]
            others = {bucket.fetching for bucket in lacking if bucket.fetching is not None}
            if others:
                await _any_of(others, deadline - now)
            elif await self._ask(buckets, lacking, cost, deadline - now):
                return None
        now = self._clock()
        if (refusal := _denied(buckets, now)) is not None:
            return refusal
        return self._take_alone(buckets, cost, now)

    def refusing(self, buckets: Sequence[Bucket]) -> Refusal | None:
        """Tell, without taking anything, whether one of them is known to be empty."""
        return _denied(buckets, self._clock())

    async def look(self, buckets: Sequence[Bucket]) -> None:
        """Ask Redis how full buckets of one home are, without taking anything."""
        now = self._clock()
        fresh = [bucket for bucket in buckets if bucket.fetching is None]
        arguments = self._arguments(fresh, NOTHING, [0.0] * len(fresh), now)
        debts = [bucket.debt for bucket in fresh]
        for bucket in fresh:
            bucket.debt = 0.0
        try:
            async with asyncio.timeout(self._budget_s):
                answer = await self.redis.ask([bucket.key for bucket in fresh], arguments)
        except (RedisAwayError, TimeoutError):
            for bucket, debt in zip(fresh, debts, strict=True):
                bucket.debt += debt
            return
        for bucket, level in zip(fresh, answer[2::2], strict=True):
            bucket.believe(float(level) - bucket.debt, self._clock())

    def levels(self, buckets: Sequence[Bucket]) -> list[Level]:
        now = self._clock()
        return [bucket.level(now) for bucket in buckets]

    async def _ask(
        self, buckets: Sequence[Bucket], lacking: list[Bucket], cost: float, within_s: float
    ) -> bool:
        """Ask Redis for what is lacking; True: the cost was taken from all of the buckets."""
        held = [bucket for bucket in buckets if bucket not in lacking]
        now = self._clock()
        for bucket in held:
            bucket.spend(cost, now)
        # One question, but in a Cluster, where each server has its own.
        groups = self.redis.apart([bucket.key for bucket in lacking])
        trips = [_Trip([lacking[place] for place in group], cost) for group in groups]
        for trip in trips:
            for bucket in trip.buckets:
                bucket.fetching = trip.done
            # A task of its own: an answer that comes too late for us is the next one's portion.
            task = asyncio.get_running_loop().create_task(self._fetch(trip))
            self._fetches.add(task)
            task.add_done_callback(self._fetches.discard)
        try:
            await _all_of([trip.done for trip in trips], within_s)
        finally:
            granted = all(trip.granted for trip in trips)
            for trip in trips:
                trip.is_waited_for = False
            if not granted:
                for bucket in held:
                    bucket.leased += cost
                for bucket in (it for trip in trips if trip.granted for it in trip.buckets):
                    bucket.leased += cost
                    bucket.portion += cost
        return granted

    async def _fetch(self, trip: "_Trip") -> None:
        buckets, cost, now = trip.buckets, trip.cost, self._clock()
        debts = [bucket.debt for bucket in buckets]
        for bucket in buckets:
            # What is left of the last portion goes back; else fractions of a token would be lost.
            rest = bucket.lease(now)
            bucket.leased = 0.0
            bucket.debt -= rest
            bucket.believe(min(bucket.burst, bucket.believed(now) + rest), now)
        wants = [max(cost, bucket.burst / PORTION) for bucket in buckets]
        arguments = self._arguments(buckets, cost, wants, now)
        given = [
            max(cost, min(want, bucket.believed(now) / 2))
            for bucket, want in zip(buckets, wants, strict=True)
        ]
        for bucket, most in zip(buckets, given, strict=True):
            # Until the answer is here, it may be given or not.
            bucket.believe(bucket.believed(now) - most, now)
            bucket.debt = 0.0
        self.asked += 1
        try:
            answer = await self.redis.ask([bucket.key for bucket in buckets], arguments)
        except RedisAwayError:
            later = self._clock()
            for bucket, debt, most in zip(buckets, debts, given, strict=True):
                bucket.debt += debt
                # If it was given, nobody else has it: it is still there to be spent. Else a few
                # questions that nobody answers would empty a bucket that is full.
                bucket.believe(bucket.believed(later) + most, later)
        else:
            self._take_in(trip, answer, now)
        finally:
            for bucket in buckets:
                bucket.fetching = None
            if not trip.done.done():
                trip.done.set_result(None)

    def _take_in(self, trip: "_Trip", answer: list[bytes], asked_at: float) -> None:
        now = self._clock()
        is_given, *numbers = (float(each) for each in answer)
        trip.granted = bool(is_given) and trip.is_waited_for
        for index, bucket in enumerate(trip.buckets):
            given, level = numbers[2 * index], numbers[2 * index + 1]
            # What was spent alone since we asked is still to be taken out there.
            bucket.believe(level - bucket.debt, now)
            if is_given:
                # What melted of it is counted from the question on, before Redis gave it.
                bucket.portion = given - trip.cost if trip.granted else given
                bucket.leased, bucket.leased_at = bucket.portion, asked_at
                bucket.alone = None
                bucket.denied_until = 0.0
            elif level < trip.cost:
                bucket.denied_until = now + (trip.cost - level) / bucket.rate

    def _arguments(
        self, buckets: Sequence[Bucket], need: float, wants: Sequence[float], now: float
    ) -> list[str]:
        arguments = ["" if self._redis_clock is None else repr(self._redis_clock())]
        for bucket, want in zip(buckets, wants, strict=True):
            age = now - bucket.debt_at if bucket.debt > 0 else 0.0
            numbers = (
                bucket.rate, bucket.burst, need, want, bucket.believed(now), bucket.debt, age
            )  # fmt: skip
            arguments += [repr(float(number)) for number in numbers]
        return arguments

    def _take_alone(self, buckets: Sequence[Bucket], cost: float, now: float) -> Refusal | None:
        self.went_alone += 1
        share = SHARE / max(1, self.nodes)
        lacking: list[tuple[float, Bucket]] = []
        spending: list[Bucket] = []
        for bucket in buckets:
            if bucket.lease(now) >= cost:
                continue
            missing = cost - bucket.left_alone(now, share)
            if missing > 0:
                lacking.append((missing / (share * bucket.rate), bucket))
            spending.append(bucket)
        if lacking:
            for retry_after_s, bucket in lacking:
                bucket.denied_until = now + retry_after_s
            retry_after_s, bucket = max(lacking, key=lambda each: each[0])
            return Refusal(bucket.policy, retry_after_s)
        for bucket in buckets:
            if bucket in spending:
                bucket.spend_alone(cost, now)
            else:
                bucket.spend(cost, now)
        return None

    async def _settle(self) -> None:
        """Take what was spent without Redis out of the buckets, before anybody asks again."""
        owing = []
        for bucket in self._buckets.values():
            bucket.denied_until = 0.0
            if bucket.debt > 0:
                owing.append(bucket)
        asked: list[tuple[Bucket, float, Any]] = []
        for bucket in owing:
            now = self._clock()
            arguments = self._arguments([bucket], NOTHING, [0.0], now)
            asked.append((bucket, bucket.debt, self.redis.ask_first([bucket.key], arguments)))
        for bucket, debt, answer in asked:
            _, _, level = await answer
            bucket.debt = max(0.0, bucket.debt - debt)
            bucket.believe(float(level) - bucket.debt, self._clock())
            bucket.alone = None


async def _all_of(futures: Sequence[asyncio.Future[None]], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    for future in futures:
        await _any_of({future}, max(0.0, deadline - time.monotonic()))


async def _any_of(futures: set[asyncio.Future[None]], within_s: float) -> None:
    done, _ = await asyncio.wait(futures, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    for _ in range(0 if done else TURNS):
        # A busy loop runs its timers before it reads: the answer may be here, only not looked at.
        await asyncio.sleep(0)
        if any(future.done() for future in futures):
            return


def _denied(buckets: Sequence[Bucket], now: float) -> Refusal | None:
    """Refuse without asking what Redis refused a moment ago: nothing can have come meanwhile."""
    for bucket in buckets:
        if bucket.denied_until > now:
            return Refusal(bucket.policy, bucket.denied_until - now)
    return None
