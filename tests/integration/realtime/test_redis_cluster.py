"""What else is in Redis, on a Cluster of three servers: limits, presence, nodes, deltas."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from redis.exceptions import RedisError

from chatserver.assistant.generation.events import passing
from chatserver.assistant.generation.stream_log import SCRIPT, Outcome, Piece, StreamLog
from chatserver.cli import check
from chatserver.infra.rate_limits import RateLimiter
from chatserver.infra.redis_scripts import RedisAwayError, RedisScripts
from chatserver.infra.shared_counts import RedisCounts
from chatserver.infra.token_buckets import Policy
from chatserver.kernel.events import Committed
from chatserver.kernel.ids import uuid7
from chatserver.realtime.hub import Connection
from chatserver.realtime.links import RedisLinks
from chatserver.realtime.nodes import NodeRegistry
from chatserver.realtime.presence import OFFLINE, ONLINE, Presence
from chatserver.realtime.publisher import BusPublisher, BusSettings
from chatserver.realtime.store import Store
from tests.support.nodes import eventually
from tests.support.realtime import CLIENT, Person, Truth, node, principal, until, user_id
from tests.support.redis_cluster import SLOTS, ClusterMember, redis_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[ClusterMember]]:
    with redis_cluster(3) as members:
        yield members


@pytest.fixture
def url(cluster: list[ClusterMember]) -> str:
    return cluster[1].url


class _Seen(Connection):
    def __init__(self, name: str) -> None:
        super().__init__("/rooms", principal(name), "sid", self, self)
        self.open()

    def put_nowait(self, item: object) -> None: ...


def _delta(room: UUID, message: UUID, piece: Piece, audience: tuple[UUID, ...]) -> Committed:
    return passing(
        "message.delta",
        client_id=CLIENT,
        room_id=room,
        bot_id=uuid7(),
        ts=datetime.now(UTC),
        data={"message_id": str(message), "index": piece.index, "text": piece.text},
        follows=1,
        audience=audience,
    )


def _indexes(person: Person) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for event, fact in person.events:
        if event == "message.delta":
            found.setdefault(fact["room_id"], []).append(fact["data"]["index"])
    return found


@asynccontextmanager
async def limiter(url: str, prefix: str) -> AsyncIterator[RateLimiter]:
    made = RateLimiter(url, prefix=prefix, budget_s=5.0)
    await made.start()
    assert made.redis.is_cluster
    yield made
    await made.stop()


class TestLimits:
    async def test_two_nodes_share_buckets_that_are_on_three_servers(
        self, url: str, cluster: list[ClusterMember]
    ) -> None:
        prefix = f"{secrets.token_hex(4)}:"
        slowly = Policy("things", 0.001, 30)
        async with limiter(url, prefix) as one, limiter(cluster[0].url, prefix) as other:
            for home in (secrets.token_hex(8) for _ in range(8)):
                allowed = 0
                for made in (one, other) * 30:
                    # The caller's own two are of one home, his address is another's.
                    mine = [made.bucket(slowly, f"{home}-{of}", home=home) for of in "ab"]
                    refused = await made.take([*mine, made.bucket(slowly, f"at {home}")])
                    allowed += refused is None
                # What one has fetched the other can't have: some of it is left over at the end.
                assert 20 <= allowed <= 30
            assert one.went_alone == other.went_alone == 0

    async def test_every_command_goes_where_its_key_is(self, url: str) -> None:
        scripts = RedisScripts(url, "return redis.call('GET', KEYS[1])")
        await scripts.start()
        names = [f"{secrets.token_hex(4)}:{number}" for number in range(60)]
        await asyncio.gather(*(scripts.run("SET", name, name) for name in names))
        answers = await asyncio.gather(*(scripts.ask([name], []) for name in names))
        assert answers == [name.encode() for name in names]
        assert len(scripts.apart(names)) > 50
        counts = [RedisCounts(scripts, node, prefix=f"{names[0]}:") for node in ("a", "b")]
        for count in counts * 2:
            await count.exchange({"rooms": 3, "users": 4})
        assert await counts[0].exchange({"rooms": 1}) == {"rooms": {"b": 3}}
        assert counts[0].nodes == 2
        await scripts.stop()


async def test_check_says_that_doorbells_need_a_redis_of_their_own(url: str) -> None:
    given: Any = SimpleNamespace(redis_url=SecretStr(url), queue_url=url)
    (shared,) = await check._redis(given)
    (queue,) = await check._queue(given)
    assert (shared.ok, shared.mend) == (True, "")
    assert not queue.ok
    assert "QUEUE_REDIS_URL" in queue.mend


async def test_presence_and_nodes_are_found_by_every_node(
    url: str, cluster: list[ClusterMember]
) -> None:
    stores = [Store(each, prefix=secrets.token_hex(4)) for each in (url, cluster[2].url)]
    stores[1].prefix = stores[0].prefix
    people = [Presence(store, tick_s=0.05) for store in stores]
    for presence in people:
        presence.start()
    names = [f"user-{number}" for number in range(40)]
    seen = [_Seen(name) for name in names]
    for connection in seen:
        people[0].enter(connection)
    ids = [user_id(name) for name in names]
    await until(lambda: len(people[0]._unsent) == 0 and people[0].now_ms > 0)

    async def all_are(status: str) -> bool:
        found = await people[1].read(ids)
        return {each.status for each in found.values()} == {status}

    await eventually(lambda: all_are(ONLINE))
    assert await people[1].changes() >= set(ids)
    for connection in seen:
        connection.goodbye = True
        people[0].leave(connection)
    await eventually(lambda: all_are(OFFLINE))
    registries = [
        NodeRegistry(store, key=b"k" * 32, node_id=name, url=f"http://{name}")
        for store, name in zip(stores, ("a", "b"), strict=True)
    ]
    for registry in registries:
        await registry.start()
    assert await registries[0].where("b") == "http://b"
    for presence in people:
        await presence.stop()
    for registry in registries:
        await registry.stop()


async def test_deltas_are_published_where_the_room_s_channel_is(
    url: str, truth: Truth, cluster: list[ClusterMember]
) -> None:
    rooms = [uuid7() for _ in range(12)]
    for room in rooms:
        truth.join(room, "ann", "ben")
    scripts = RedisScripts(url, SCRIPT)
    await scripts.start()
    async with node(truth, cluster[0].url, "a", leads=False) as a:
        settings = BusSettings(url=url, key=b"k" * 32, prefix="test")
        bus = BusPublisher(settings, "worker")
        await bus.start()
        stream = StreamLog(scripts, bus)
        ann, ben = await Person("ann").connect(a), await Person("ben").connect(a)
        for room in rooms:
            message = uuid7()
            assert await stream.take(room, message, 1) == []
            for index, audience in ((1, ()), (2, (user_id("ann"),))):
                piece = Piece(index, 1, f"piece {index}")
                fact = _delta(room, message, piece, audience)
                sent = await stream.emit(room, message, piece, fact)
                assert sent.outcome is Outcome.DONE
            assert [each.text for each in await stream.read(room, message)] == [
                "piece 1",
                "piece 2",
            ]
            late = Piece(3, 0, "of a zombie")
            outcome = await stream.emit(room, message, late, _delta(room, message, late, ()))
            assert outcome.outcome is Outcome.FENCED
        expected = {str(room): [1, 2] for room in rooms}
        await until(lambda: _indexes(ann) == expected, within_s=5)
        assert _indexes(ben) == {room: [1] for room in expected}
        await ann.leave()
        await ben.leave()
        await bus.stop()
    await scripts.stop()


async def test_when_the_named_server_is_gone_another_one_is_asked(
    cluster: list[ClusterMember],
) -> None:
    """The last test here: it leaves a Cluster of two, one of which took over what the first had."""
    gone, heir, third = cluster
    scripts = RedisScripts(gone.url, "return redis.call('GET', KEYS[1])")
    scripts._retry_s = 0.05
    links = RedisLinks(gone.url)
    store = Store(gone.url, prefix="test")
    await scripts.start()
    await links.open()
    assert await store.now_ms("a") > 0
    gone.kill()
    with pytest.raises(RedisAwayError):
        await asyncio.gather(*(scripts.run("GET", str(number)) for number in range(20)))
    slots = ["0", str(SLOTS // 3 - 1)]
    for member in (heir, third):
        member.ask("CLUSTER", "DELSLOTSRANGE", *slots)
    heir.ask("CLUSTER", "ADDSLOTSRANGE", *slots)
    names = [str(number) for number in range(20)]
    await links.drop()

    async def is_open() -> bool:
        try:
            await links.open()
            await store.now_ms("a")
            await asyncio.gather(*(scripts.run("SET", name, name) for name in names))
        except (OSError, RedisError, RedisAwayError):
            await links.drop()
            return False
        return True

    await eventually(is_open)
    assert len(links) == 2
    await links.drop()
    await scripts.stop()
    await store.close()
