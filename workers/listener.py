"""Hears doorbells: a Dramatiq worker whose actors do nothing but wake this process's loop."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import BrokerConnectionError
from redis import RedisError

from chatserver.infra.jobs import message, queue_client
from workers.condition import Condition

# Doorbell to start: p50 about 30 ms instead of 530 at the default of a second.
IDLE_MS: Final = 75
THREADS: Final = 2
COMMAND_S: Final = 2.0
HEARTBEAT_MS: Final = 20_000
# In a million commands. The default, 1,000, finds a dead worker's messages after many minutes.
MAINTENANCE_CHANCE: Final = 100_000
DEAD_MESSAGES_MS: Final = 3_600_000
# Between tries while Redis is away.
AGAIN_S: Final = 0.5
OUTAGES: Final = (BrokerConnectionError, RedisError, OSError)


class Listener:
    """Runs in threads of its own, needs Redis neither to start nor to go on, never raises."""

    def __init__(self, url: str, bells: Mapping[str, Callable[[], None]]) -> None:
        self._broker = _Broker(url)
        for name, ring in bells.items():
            dramatiq.Actor(
                ring,
                broker=self._broker,
                actor_name=name,
                queue_name=message(name).queue_name,
                priority=0,
                options={},
            )
        self._worker = dramatiq.Worker(self._broker, worker_timeout=IDLE_MS, worker_threads=THREADS)

    def start(self) -> None:
        self._worker.start()

    def stop(self, *, timeout_s: float = 2.0) -> None:
        """Stop the threads; blocks for up to `timeout_s` twice."""
        self._worker.stop(timeout=int(timeout_s * 1000))
        self._broker.client.close()


class _Broker(RedisBroker):
    """A RedisBroker without delay queues: time is PostgreSQL's affair, and each queue is polled."""

    def __init__(self, url: str) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            client=queue_client(url, timeout_s=COMMAND_S),
            # None: not even retries. A ring that went wrong is made good by the next poll.
            middleware=[],
            heartbeat_timeout=HEARTBEAT_MS,
            maintenance_chance=MAINTENANCE_CHANCE,
            dead_message_ttl=DEAD_MESSAGES_MS,
        )
        self._condition = Condition("doorbells", outages=OUTAGES)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> dramatiq.Consumer:
        return _Patient(super().consume(queue_name, prefetch, timeout), self._condition)

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)


class _Patient(dramatiq.Consumer):
    """A consumer that outlives Redis: it waits and asks again, where Dramatiq's own would raise.

    Raised errors cost three seconds and a CRITICAL line each, an unanswered ack blocks its thread
    until Redis is back, and some end the consumer's thread for good.
    """

    def __init__(self, inner: dramatiq.Consumer, condition: Condition) -> None:
        self._inner = inner
        self._condition = condition

    def __next__(self) -> "dramatiq.MessageProxy | None":
        try:
            heard = next(self._inner)
        except OUTAGES as error:
            self._condition.fails(error)
            time.sleep(AGAIN_S)
            return None
        self._condition.works()
        return heard

    def ack(self, heard: dramatiq.MessageProxy) -> None:
        self._try(self._inner.ack, heard)

    def nack(self, heard: dramatiq.MessageProxy) -> None:
        self._try(self._inner.nack, heard)

    def requeue(self, messages: Iterable[dramatiq.MessageProxy]) -> None:
        self._try(self._inner.requeue, list(messages))

    def close(self) -> None:
        self._try(self._inner.close)

    def _try(self, act: Callable[..., Any], *args: Any) -> None:  # noqa: ANN401 - passed on
        # A ring that stays unacknowledged is heard once more after this process has ended.
        try:
            act(*args)
        except OUTAGES as error:
            self._condition.fails(error)
