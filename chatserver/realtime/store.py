"""Small questions to Redis, each with a deadline. Whoever asks copes without an answer."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from chatserver.realtime.redis import AWAY

Answer = TypeVar("Answer")

DEADLINE_S: Final = 1.0
CONNECTIONS: Final = 8
# After a failure nobody asks for so long: a dead Redis must not cost every caller a second.
PAUSE_S: Final = 0.5


class Store:
    """Redis for what may be lost: where nodes are, who is present, how far sockets had come."""

    def __init__(self, url: str, *, prefix: str) -> None:
        self.prefix = prefix
        self.failures = 0
        self._asleep_until = 0.0
        pool = BlockingConnectionPool.from_url(
            url,
            protocol=2,
            max_connections=CONNECTIONS,
            timeout=DEADLINE_S,
            socket_timeout=DEADLINE_S,
            socket_connect_timeout=DEADLINE_S,
            retry=Retry(NoBackoff(), 0),
        )
        # redis-py types one class for both its worlds: every answer is "awaitable or not".
        self.redis: Any = Redis(connection_pool=pool)

    async def ask(self, question: Awaitable[Answer]) -> Answer:
        """Wait for an answer, for a second at most.

        Raises:
            ConnectionError: Redis is away, or was a moment ago.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._asleep_until:
            if asyncio.iscoroutine(question):
                question.close()
            raise ConnectionError("Redis was away a moment ago")
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await question
        except AWAY as error:
            self.failures += 1
            self._asleep_until = loop.time() + PAUSE_S
            raise ConnectionError("Redis is away") from error

    def pipeline(self) -> Any:
        """Give a pipeline; what it executes is asked with `ask`."""
        return self.redis.pipeline(transaction=False)

    async def close(self) -> None:
        await self.redis.connection_pool.disconnect()
