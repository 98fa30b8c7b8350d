"""What each node has of something, told to the others through Redis.

A node that says nothing for 10 s is taken for dead, and what it had is forgotten.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from chatserver.infra.redis_scripts import RedisAwayError, RedisScripts

DEAD_S: Final = 10.0
KEPT_MS: Final = 60_000
# Every node tells of itself under this name, so that they know how many they are.
NODES: Final = "nodes"


class RedisCounts:
    """See `realtime.census.SharedCounts`. While Redis is away, what was learnt last counts."""

    def __init__(
        self,
        redis: RedisScripts,
        node_id: str,
        *,
        prefix: str = "cs:count:",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._node_id = node_id
        self._prefix = prefix
        self._clock = clock
        self._beat = 0
        self._told: set[str] = set()
        self._last: dict[str, dict[str, int]] = {}
        # When a node's word on a subject was seen to change: its clock is none of our business.
        self._heard: dict[tuple[str, str], tuple[bytes, float]] = {}
        self.nodes = 1

    async def exchange(self, own: dict[str, int]) -> dict[str, dict[str, int]]:
        """Tell what this node has, and learn what each other node has of the same subjects."""
        self._beat += 1
        own = {**own, NODES: 1}
        try:
            for subject in self._told - own.keys():
                _ = self._redis.run("HDEL", self._prefix + subject, self._node_id)
            asked = {subject: self._ask(subject, count) for subject, count in own.items()}
            found = {subject: await answer for subject, answer in asked.items()}
        except RedisAwayError:
            return self._last
        self._told = set(own)
        living = {subject: self._living(subject, fields) for subject, fields in found.items()}
        self._heard = {name: it for name, it in self._heard.items() if name[0] in own}
        self.nodes = 1 + len(living.pop(NODES))
        self._last = living
        return living

    def _ask(self, subject: str, count: int) -> "asyncio.Future[Any]":
        key = self._prefix + subject
        _ = self._redis.run("HSET", key, self._node_id, f"{count}:{self._beat}")
        _ = self._redis.run("PEXPIRE", key, KEPT_MS)
        return self._redis.run("HGETALL", key)

    def _living(self, subject: str, fields: list[bytes]) -> dict[str, int]:
        now = self._clock()
        living = {}
        for node, said in zip(fields[::2], fields[1::2], strict=True):
            name = node.decode()
            if name == self._node_id:
                continue
            heard = self._heard.get((subject, name))
            if heard is None or heard[0] != said:
                heard = self._heard[subject, name] = (said, now)
            if now - heard[1] > DEAD_S:
                _ = self._redis.run("HDEL", self._prefix + subject, name)
                continue
            living[name] = int(said.partition(b":")[0])
        return living
