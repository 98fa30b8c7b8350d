"""A primary of a Redis Cluster is lost, and its replica takes over: everything in Redis goes on."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from operator import methodcaller
from typing import Any

from chatserver.infra.rate_limits import RateLimiter
from chatserver.infra.token_buckets import Policy
from chatserver.kernel.ids import uuid7
from chatserver.realtime.store import Store
from tests.support.nodes import eventually
from tests.support.realtime import Node, Person, Truth, node, until
from tests.support.redis_cluster import redis_cluster

KEYS = 12  # enough for each server to have some


@asynccontextmanager
async def limiter(url: str, prefix: str) -> AsyncIterator[RateLimiter]:
    made = RateLimiter(url, prefix=prefix, budget_s=5.0)
    await made.start()
    yield made
    await made.stop()


async def _all_answer(store: Store) -> None:
    """Wait until whatever is asked of any server is answered, alone and in a pipeline."""

    names = [f"{store.prefix}{number}" for number in range(KEYS)]

    def read(pipe: Any) -> None:
        for name in names:
            pipe.get(name)

    async def done() -> bool:
        try:
            for name in names:
                await store.ask(methodcaller("set", name, "1"))
            await store.ask_all(read)
        except ConnectionError:
            return False
        return True

    await eventually(done, within_s=15, why="every server is asked where it is now")


async def test_small_questions_find_the_replica_of_one_that_stands_still() -> None:
    """Nobody is told that it is lost: it takes every question, and answers none."""
    with redis_cluster(3, replicated=True) as members:
        store = Store(members[0].url, prefix=secrets.token_hex(4))
        await _all_answer(store)
        members[0].pause()
        try:
            await eventually(lambda: members[3].says("replication", "role:master"))
            await _all_answer(store)
        finally:
            members[0].resume()
        await store.close()


class _Failover:
    """A Cluster with replicas, two nodes and two limiters that were given the first server's
    address; everything that one does there."""

    slowly = Policy("things", 0.001, 30)

    def __init__(
        self, truth: Truth, nodes: tuple[Node, Node], limiters: list[RateLimiter], store: Store
    ) -> None:
        self.nodes = nodes
        self.limiters = limiters
        self.allowed = dict.fromkeys((secrets.token_hex(8) for _ in range(6)), 0)
        self.rooms = [uuid7() for _ in range(20)]
        self.store = store
        self._truth = truth
        for room in self.rooms:
            truth.join(room, "ann", "ben")

    @classmethod
    @asynccontextmanager
    async def on(cls, truth: Truth, url: str) -> AsyncIterator["_Failover"]:
        prefix = f"{secrets.token_hex(4)}:"
        async with (
            node(truth, url, "a") as a,
            node(truth, url, "b", leads=False) as b,
            limiter(url, prefix) as one,
            limiter(url, prefix) as other,
        ):
            store = Store(url, prefix=prefix)
            await _all_answer(store)
            yield cls(truth, (a, b), [one, other], store)
            await store.close()

    def talk(self) -> None:
        for at in self.nodes:
            at.realtime.publish([self._truth.commit(room) for room in self.rooms])

    async def take(self, made: RateLimiter, times: int) -> None:
        for home in self.allowed:
            for _ in range(times):
                bucket = made.bucket(self.slowly, home, home=home)
                self.allowed[home] += await made.take([bucket]) is None

    async def ask(self) -> None:
        """Let the limiters ask for more than they would give on trust."""
        for made in self.limiters:
            await made.take([made.bucket(self.slowly, secrets.token_hex(8))], cost=10)

    async def whole_again(self) -> None:
        for at in self.nodes:
            bus = at.realtime.bus
            await until(lambda bus=bus: bus.healthy and not bus.publisher.is_away, within_s=15)
        for made in self.limiters:
            await until(lambda made=made: made.redis.is_there, within_s=15)

    def misses(self) -> list[int]:
        """Count what was not told to the other node, and what a limiter decided alone."""
        dropped = [at.realtime.bus.publisher.counters.dropped for at in self.nodes]
        return [*dropped, *(made.went_alone for made in self.limiters)]


async def test_a_primary_dies_and_its_replica_takes_over(truth: Truth) -> None:
    """In its place facts go on, each once and in order, and limits know what they knew."""
    with redis_cluster(3, replicated=True) as members:
        async with _Failover.on(truth, members[0].url) as scene:
            people = [
                await Person(name).connect(at)
                for name, at in zip(("ann", "ben"), scene.nodes, strict=True)
            ]
            await scene.take(scene.limiters[0], 15)
            members[0].kill()
            while not members[3].says("replication", "role:master"):
                scene.talk()
                await scene.ask()
                await asyncio.sleep(0.05)
            await scene.whole_again()
            await _all_answer(scene.store)
            missed = scene.misses()
            assert min(missed) > 0  # there was an outage, for everyone
            scene.talk()
            # What nobody heard of is in the log: the leader reads it out every few seconds.
            heads = {room: list(range(2, len(truth.facts[room]) + 1)) for room in scene.rooms}
            for person in people:
                await until(
                    lambda person=person: {room: person.seqs(room) for room in heads} == heads,
                    within_s=15,
                )
            for made in scene.limiters * 3:
                await scene.take(made, 10)
            assert scene.misses() == missed
            # What one has fetched the other can't have; nobody gets again what was spent.
            assert all(20 <= count <= 30 for count in scene.allowed.values()), scene.allowed
            for person in people:
                await person.leave()
