"""Small questions to Redis, each with a deadline. Whoever asks copes without an answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, ResponseError

from chatserver.kernel.tasks import end
from chatserver.realtime.redis import AWAY

Answer = TypeVar("Answer")

DEADLINE_S: Final = 1.0
# Of one server of a Cluster: within a deadline there is time for another one to be asked.
SILENCE_S: Final = 0.4
# To find out what a Cluster looks like. It goes on when whoever asked first has given up.
LOOK_S: Final = 10.0
CONNECTIONS: Final = 8
# After a failure nobody asks for so long: a dead Redis must not cost every caller a second.
PAUSE_S: Final = 0.5
_TIME: Final = "return redis.call('TIME')"


class Store:
    """Redis for what may be lost: where nodes are, who is present, how far sockets had come.

    A Redis Cluster is as good: what is asked there goes to the servers that have the keys.
    """

    def __init__(self, url: str, *, prefix: str) -> None:
        self.prefix = prefix
        self.failures = 0
        self._url = url
        self._asleep_until = 0.0
        # redis-py types one class for both its worlds: every answer is "awaitable or not".
        self._redis: Any = None
        self._is_cluster: bool | None = None
        # Where else a Cluster may be found when the URL's own server is gone.
        self._known: list[tuple[str, int]] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[Any] | None = None

    async def ask(self, question: Callable[[Any], Awaitable[Answer]]) -> Answer:
        """Ask a question of redis-py's client, and wait for the answer, for a second at most.

        Raises:
            ConnectionError: Redis is away, or was a moment ago.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._asleep_until:
            raise ConnectionError("Redis was away a moment ago")
        asked = None
        try:
            async with asyncio.timeout(DEADLINE_S):
                asked = await self._client()
                return await question(asked)
        except (*AWAY, RedisClusterException) as error:
            self.failures += 1
            self._asleep_until = loop.time() + PAUSE_S
            self._give_up(asked)
            raise ConnectionError("Redis is away") from error

    async def ask_all(self, fill: Callable[[Any], object]) -> list[Any]:
        """Fill a pipeline and give its answers. Raises as `ask`."""

        async def execute(redis: Any) -> list[Any]:
            pipe = redis.pipeline(transaction=False)
            fill(pipe)
            answers: list[Any] = await pipe.execute()
            return answers

        return await self.ask(execute)

    async def write_all(
        self,
        script: str,
        keys: Sequence[str],
        values: Sequence[str | int],
        each: Sequence[tuple[str | int, ...]],
    ) -> None:
        """Run a script over keys, with some values, then with those of each key. Raises as `ask`.

        In a Cluster keys are on several servers: there it is run for each key by itself.
        """

        async def run(redis: Any) -> None:
            if self._is_cluster:
                pipe = redis.pipeline(transaction=False)
                for key, more in zip(keys, each, strict=True):
                    pipe.eval(script, 1, key, *values, *more)
                await pipe.execute()
            else:
                flat = [value for more in each for value in more]
                await redis.register_script(script)(keys=keys, args=[*values, *flat])

        await self.ask(run)

    async def now_ms(self, key: str) -> int:
        """Tell Redis's time; in a Cluster that of the server that has this key. Raises as `ask`."""

        async def time(redis: Any) -> Any:
            if self._is_cluster:
                return await redis.eval(_TIME, 1, key)
            return await redis.time()

        seconds, micros = await self.ask(time)
        return int(seconds) * 1000 + int(micros) // 1000

    async def close(self) -> None:
        await end(self._looking)
        redis, self._redis = self._redis, None
        if redis is not None and self._is_cluster:
            await redis.aclose()
        elif redis is not None:
            await redis.aclose(close_connection_pool=True)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _give_up(self, asked: Any) -> None:
        """Let another client find out who has which slots of a Cluster now.

        redis-py's own looks again after some errors only: after none that a pipeline meets, and
        after none that our deadline was quicker than.
        """
        if asked is None or asked is not self._redis or not self._is_cluster:
            return
        self._known = [(node.host, node.port) for node in asked.get_nodes()] or self._known
        self._redis = None
        task = asyncio.get_running_loop().create_task(_close(asked))
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def _closed(self, task: "asyncio.Task[None]") -> None:
        self._closing.discard(task)
        if not task.cancelled():
            task.exception()  # the line was lost already

    async def _client(self) -> Any:
        if self._redis is not None:
            return self._redis
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
            self._looking.add_done_callback(self._looked)
        return await asyncio.shield(self._looking)

    def _looked(self, task: "asyncio.Task[Any]") -> None:
        self._looking = None
        if not task.cancelled() and task.exception() is None:
            self._redis = task.result()

    async def _look(self) -> Any:
        """Make a client of the kind that it takes here, whoever answers now."""
        if self._is_cluster:
            return await self._cluster()
        alone = Redis(
            connection_pool=BlockingConnectionPool.from_url(
                self._url,
                protocol=2,
                max_connections=CONNECTIONS,
                timeout=DEADLINE_S,
                socket_timeout=DEADLINE_S,
                socket_connect_timeout=DEADLINE_S,
                retry=Retry(NoBackoff(), 0),
            )
        )
        try:
            self._is_cluster = await _is_cluster(alone)
        except BaseException:
            await alone.aclose(close_connection_pool=True)
            raise
        if not self._is_cluster:
            return alone
        await alone.aclose(close_connection_pool=True)
        return await self._cluster()

    async def _cluster(self) -> Any:
        # One that is silent must not be the first to be asked each time.
        first = self.failures % max(1, len(self._known))
        made = RedisCluster.from_url(
            self._url,
            startup_nodes=[ClusterNode(*at) for at in self._known[first:] + self._known[:first]],
            protocol=2,
            socket_timeout=SILENCE_S,
            socket_connect_timeout=SILENCE_S,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            async with asyncio.timeout(LOOK_S):
                return await made.initialize()
        except BaseException:
            await _close(made)
            raise


async def _close(cluster: Any) -> None:
    await cluster.aclose()
    # Which does nothing after an error.
    await cluster.nodes_manager.aclose()
    await cluster.nodes_manager.aclose("startup_nodes")


async def _is_cluster(redis: Redis) -> bool:
    try:
        found: Any = await redis.execute_command("INFO", "cluster")  # type: ignore[no-untyped-call]
    except ResponseError:
        return False  # it won't tell us, so it is not for us to know
    return bool(found.get("cluster_enabled"))
