"""Who publishes to whom: nobody to nobody, everyone to whoever has come; over one Redis or many."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
import redis.asyncio
from redis.crc import key_slot

from chatserver.kernel.ids import uuid7
from chatserver.realtime import fellows
from chatserver.realtime.publisher import bucket
from tests.support.proxy import Proxy
from tests.support.realtime import Node, Person, Truth, node, until
from tests.support.redis_cluster import SLOTS, ClusterMember, redis_cluster
from tests.support.servers import TestValkey


class Talk:
    """Somebody on a node who doesn't stop talking, in a room that is never quiet for long."""

    def __init__(self, truth: Truth, at: Node, room: UUID) -> None:
        self.last = 0
        self._truth, self._at, self._room = truth, at, room
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> int:
        """Give the last seq."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self.last

    async def _run(self) -> None:
        while True:
            fact = self._truth.commit(self._room)
            self._at.realtime.publish([fact])
            self.last = fact.seq or 0
            await asyncio.sleep(0.002)


def is_alone(at: Node) -> bool:
    return at.realtime.bus.fellows.alone


class TestAlone:
    async def test_nobody_is_told_what_nobody_else_listens_to(
        self, truth: Truth, valkey: TestValkey
    ) -> None:
        room = uuid7()
        truth.join(room, "ann", "ben")
        async with node(truth, valkey.url, "a") as a:
            ann = await Person("ann").connect(a)
            published = a.realtime.bus.publisher.counters
            a.realtime.publish([truth.commit(room), truth.commit(room)])
            await until(lambda: ann.seqs(room) == [2, 3])
            assert (is_alone(a), published.spared) == (True, 2)
            async with node(truth, valkey.url, "b", leads=False) as b:
                for at in (a, b):
                    at.realtime.recovery._hold_s = 60  # nothing that is lost would be found in time
                assert not is_alone(a)
                assert not is_alone(b)
                ben = await Person("ben").connect(b)
                a.realtime.publish([truth.commit(room)])
                b.realtime.publish([truth.commit(room)])
                await until(lambda: ann.seqs(room) == [2, 3, 4, 5])
                await until(lambda: ben.seqs(room) == [4, 5])
                assert published.spared == 2
                await ben.leave()
            await ann.leave()

    async def test_whoever_comes_in_the_middle_of_a_talk_misses_nothing_from_then_on(
        self, truth: Truth, valkey: TestValkey
    ) -> None:
        room = uuid7()
        truth.join(room, "ann", "ben")
        async with node(truth, valkey.url, "a", leads=False) as a:
            talk = Talk(truth, a, room)
            for _ in range(3):
                # Nobody leads, so nothing that is lost would be found.
                async with node(truth, valkey.url, "b", leads=False) as b:
                    await _hears_all(b, talk, room)
            await talk.stop()

    async def test_who_is_left_alone_finds_out(
        self, truth: Truth, valkey: TestValkey, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fellows, "AGAIN_S", 0.3)
        async with node(truth, valkey.url, "a", heartbeat_s=0.1) as a:
            async with node(truth, valkey.url, "b", heartbeat_s=0.1):
                await asyncio.sleep(0.5)  # it asks again meanwhile, and is told of the other
                assert not is_alone(a)
            await until(lambda: is_alone(a))

    async def test_a_node_whose_line_is_lost_takes_nobody_for_granted(
        self, truth: Truth, line: Proxy
    ) -> None:
        async with node(truth, f"redis://127.0.0.1:{line.port}/0", "a") as a:
            assert is_alone(a)
            line.refuse()
            await until(lambda: not a.realtime.bus.healthy)
            assert not is_alone(a)
            line.heal()
            await until(lambda: is_alone(a))

    async def test_a_deaf_one_keeps_a_newcomer_waiting_until_it_must_have_noticed(
        self, truth: Truth, valkey: TestValkey, line: Proxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fellows, "PATIENCE_S", 1.2)
        url = f"redis://127.0.0.1:{line.port}/0"
        async with node(truth, url, "a", heartbeat_s=0.4) as a:
            line.blackhole()
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with node(truth, valkey.url, "b", heartbeat_s=0.4) as b:
                await until(lambda: b.realtime.bus.healthy)
                assert loop.time() - began > 1.0
                assert not a.realtime.bus.healthy
                assert not is_alone(a)
            line.heal()

    async def test_another_deployment_on_the_same_redis_is_no_fellow(
        self, truth: Truth, valkey: TestValkey
    ) -> None:
        async with node(truth, valkey.url, "a") as a:
            stranger = redis.asyncio.Redis.from_url(valkey.url)
            listening = stranger.pubsub()
            await listening.subscribe("test:all")
            async with node(truth, valkey.url, "b") as b:
                assert b.realtime.bus.healthy
            await listening.aclose()  # type: ignore[no-untyped-call]
            await stranger.aclose()
            assert a.realtime.bus.counters.forged == 0


@pytest.fixture(scope="module", params=[1, 3], ids=["one server", "three servers"])
def cluster(request: pytest.FixtureRequest) -> Iterator[list[ClusterMember]]:
    with redis_cluster(request.param) as members:
        yield members


@asynccontextmanager
async def two_nodes(truth: Truth, url: str) -> AsyncIterator[tuple[Node, Node]]:
    async with (
        node(truth, url, "a", leads=False) as a,
        node(truth, url, "b", leads=False) as b,
    ):
        yield a, b


class TestCluster:
    async def test_facts_of_all_rooms_arrive_over_sharded_channels(
        self, truth: Truth, cluster: list[ClusterMember]
    ) -> None:
        rooms = [uuid7() for _ in range(40)]
        for room in rooms:
            truth.join(room, "ann", "ben")
        async with two_nodes(truth, cluster[-1].url) as (a, b):
            for at in (a, b):
                at.realtime.recovery._hold_s = 60  # nothing that is lost would be found in time
            ann, ben = await Person("ann").connect(a), await Person("ben").connect(b)
            for count in range(10):
                for room in rooms:
                    (a if count % 2 else b).realtime.publish([truth.commit(room)])
            expected = {room: list(range(2, 12)) for room in rooms}
            for person in (ann, ben):
                await until(
                    lambda person=person: {room: person.seqs(room) for room in rooms} == expected
                )
            for at in (a, b):
                assert at.realtime.bus.publisher.counters.dropped == 0
            assert _sharded_channels(cluster) > 40
            assert _plain_channels(cluster) == 0
            await ann.leave()
            await ben.leave()

    async def test_one_alone_there_publishes_nothing_until_another_comes(
        self, truth: Truth, cluster: list[ClusterMember]
    ) -> None:
        room = uuid7()
        truth.join(room, "ben")
        async with node(truth, cluster[0].url, "a", leads=False) as a:
            assert is_alone(a)
            talk = Talk(truth, a, room)
            async with node(truth, cluster[0].url, "b", leads=False) as b:
                await _hears_all(b, talk, room)
            await talk.stop()

    async def test_a_line_that_is_cut_by_one_server_is_made_again(
        self, truth: Truth, cluster: list[ClusterMember]
    ) -> None:
        rooms = [uuid7() for _ in range(20)]
        for room in rooms:
            truth.join(room, "ann")
        async with two_nodes(truth, cluster[0].url) as (a, b):
            ann = await Person("ann").connect(b)
            _kick(cluster[-1])
            await until(lambda: not a.realtime.bus.healthy and not b.realtime.bus.healthy)
            for room in rooms:
                a.realtime.publish([truth.commit(room)])
            await until(lambda: a.realtime.bus.healthy and b.realtime.bus.healthy, within_s=10)
            for room in rooms:
                a.realtime.publish([truth.commit(room)])
            await until(lambda: all(ann.seqs(room) == [2, 3] for room in rooms), within_s=10)
            await ann.leave()


async def test_a_channel_that_moves_to_another_server_is_followed(truth: Truth) -> None:
    room = uuid7()
    truth.join(room, "ann")
    with redis_cluster(2) as members:
        async with two_nodes(truth, members[0].url) as (a, b):
            ann = await Person("ann").connect(b)
            a.realtime.publish([truth.commit(room)])
            await until(lambda: ann.seqs(room) == [2])
            slot = key_slot(f"{a.realtime.bus.publisher.prefix}:r{bucket(room)}".encode())
            at = 0 if slot < SLOTS // 2 else 1
            target = members[1 - at]
            name = target.ask("CLUSTER", "MYID").decode()
            for member in (target, members[at]):
                member.ask("CLUSTER", "SETSLOT", str(slot), "NODE", name)
            # Who listens there is told that it ended, and asks for all again.
            await until(lambda: b.realtime.bus.counters.reconnects > 0)
            await until(lambda: b.realtime.bus.healthy, within_s=10)
            # Who publishes there hears of it only now.
            a.realtime.publish([truth.commit(room)])
            await until(lambda: ann.seqs(room) == [2, 3])
            assert a.realtime.bus.publisher.counters.dropped == 0
            await ann.leave()


async def test_sharded_pub_sub_may_be_asked_for_without_a_cluster(
    truth: Truth, valkey: TestValkey
) -> None:
    room = uuid7()
    truth.join(room, "ann")
    async with (
        node(truth, valkey.url, "a", sharded=True) as a,
        node(truth, valkey.url, "b", sharded=True) as b,
    ):
        ann = await Person("ann").connect(b)
        a.realtime.publish([truth.commit(room)])
        await until(lambda: ann.seqs(room) == [2])
        asking = redis.asyncio.Redis.from_url(valkey.url)
        names = await asking.execute_command("PUBSUB", "SHARDCHANNELS", "*")  # type: ignore[no-untyped-call]
        assert a.realtime.bus.publisher.prefix.encode() + b":all" in names
        await asking.aclose()
        await ann.leave()


async def _hears_all(at: Node, talk: Talk, room: UUID) -> None:
    """Check that ben, who connects now, is told all that follows, and at once."""
    at.realtime.recovery._hold_s = 60  # nothing that is lost would be found in time
    ben = await Person("ben").connect(at)
    until_seq = talk.last + 50
    await until(lambda: ben.seqs(room)[-1:] >= [until_seq], within_s=3)
    heard = ben.seqs(room)
    assert heard == list(range(heard[0], heard[0] + len(heard)))
    assert heard[0] <= until_seq - 49
    await ben.leave()


def _sharded_channels(cluster: list[ClusterMember]) -> int:
    return sum(len(member.ask("PUBSUB", "SHARDCHANNELS", "*")) for member in cluster)


def _plain_channels(cluster: list[ClusterMember]) -> int:
    return sum(len(member.ask("PUBSUB", "CHANNELS", "*")) for member in cluster)


def _kick(member: ClusterMember) -> None:
    member.ask("CLIENT", "KILL", "TYPE", "pubsub")
