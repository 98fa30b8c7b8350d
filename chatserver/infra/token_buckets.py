"""Token buckets as one node knows them; `rate_limits` keeps them true to Redis. Pure."""

import asyncio
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """How often something may be done: `rate` a second, `burst` at once. `name` is announced."""

    name: str
    rate: float
    burst: float

    @property
    def window_s(self) -> int:
        """How long an empty bucket takes to be full again, in whole seconds."""
        return max(1, math.ceil(self.burst / self.rate))


@dataclass(frozen=True, slots=True)
class Level:
    """What is left of a policy, and in how many seconds all of it is back."""

    policy: Policy
    remaining: int
    full_in_s: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which policy was over, and when it may be tried again."""

    policy: Policy
    retry_after_s: float


class Bucket:
    """What this node knows of one bucket. `subject` is whose it is."""

    __slots__ = (
        "alone",
        "alone_at",
        "belief",
        "belief_at",
        "burst",
        "debt",
        "debt_at",
        "denied_until",
        "fetching",
        "key",
        "leased",
        "leased_at",
        "policy",
        "portion",
        "rate",
    )  # fmt: skip

    def __init__(self, policy: Policy, key: str, now: float) -> None:
        self.policy = policy
        self.key = key
        self.rate = policy.rate
        self.burst = policy.burst
        self.leased = 0.0
        self.portion = 0.0
        self.leased_at = now
        self.belief = policy.burst
        self.belief_at = now
        # What was spent here and Redis does not know yet, and when the last of it was.
        self.debt = 0.0
        self.debt_at = now
        self.denied_until = 0.0
        self.alone: float | None = None
        self.alone_at = now
        self.fetching: asyncio.Future[None] | None = None

    def change(self, policy: Policy) -> None:
        """Follow a changed limit; what is there stays, as far as it fits."""
        self.policy = policy
        self.rate, self.burst = policy.rate, policy.burst
        self.belief = min(self.belief, self.burst)
        self.leased = min(self.leased, self.burst)
        self.portion = min(self.portion, self.burst)
        self.denied_until = 0.0

    def lease(self, now: float) -> float:
        """Tell what is left of the portion: it melts as fast as the bucket gains."""
        if self.leased <= 0:
            return 0.0
        return max(0.0, min(self.leased, self.portion - self.rate * (now - self.leased_at)))

    def spend(self, cost: float, now: float) -> None:
        """Take from the portion what is still in it: never from what has melted."""
        self.leased = self.lease(now) - cost

    def may_trust(self, cost: float, now: float, share: float) -> bool:
        """Tell whether to spend before Redis is told: little, of a bucket that is far from empty.

        `share` is how much of the burst may be owed.
        """
        return (
            self.debt + cost <= share * self.burst
            and self.fetching is None
            and self.denied_until <= now
            and self.belief + self.rate * (now - self.belief_at) - cost >= self.burst / 2
        )

    def spend_on_trust(self, cost: float, now: float) -> None:
        """Spend what Redis is told of with the next question."""
        self.debt += cost
        self.debt_at = now
        level = self.belief + self.rate * (now - self.belief_at)
        self.belief = (min(self.burst, level)) - cost
        self.belief_at = now

    def believed(self, now: float) -> float:
        """Tell how much is in Redis at least, unless other nodes took it."""
        return min(self.burst, self.belief + self.rate * max(0.0, now - self.belief_at))

    def believe(self, level: float, now: float) -> None:
        self.belief, self.belief_at = level, now

    def left_alone(self, now: float, share: float) -> float:
        """Tell what this node may spend without Redis."""
        most = max(0.0, min(share * self.burst, self.believed(now)))
        if self.alone is None:
            # What is owed already was spent without Redis, too.
            self.alone = max(0.0, min(share * self.burst - self.debt, self.believed(now)))
        else:
            gained = share * self.rate * max(0.0, now - self.alone_at)
            self.alone = min(most, self.alone + gained)
        self.alone_at = now
        return self.alone

    def spend_alone(self, cost: float, now: float) -> None:
        assert self.alone is not None  # noqa: S101 - `left_alone` comes first
        self.alone -= cost
        self.spend_on_trust(cost, now)

    def level(self, now: float) -> Level:
        """Say it to the caller: whole tokens, whole seconds."""
        left = min(self.burst, self.lease(now) + max(0.0, self.believed(now)))
        missing = self.burst - left
        return Level(self.policy, max(0, int(left + 0.01)), max(0, math.ceil(missing / self.rate)))
