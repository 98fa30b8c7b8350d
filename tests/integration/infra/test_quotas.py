"""What clients use: counted by every node, kept by PostgreSQL, with Redis and without."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from chatserver.infra.database import Database
from chatserver.infra.quotas import Quotas
from chatserver.infra.rate_limits import RateLimiter
from chatserver.infra.redis_scripts import RedisScripts
from chatserver.kernel.ids import uuid7
from tests.support.servers import Database as Address

LIMITS: dict[str, int | None] = {"messages_per_hour": 10, "messages_per_day": 100}


class Now:
    def __init__(self) -> None:
        self.now = datetime(2026, 5, 4, 10, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def store(database: Address) -> AsyncIterator[Database]:
    opened = Database(database.app_url, name="test")
    yield opened
    await opened.close()


@pytest.fixture
async def redis(database: Address) -> AsyncIterator[RedisScripts]:
    limiter = RateLimiter(database.redis_url)
    await limiter.start()
    yield limiter.redis
    await limiter.stop()


@pytest.fixture
def away() -> RedisScripts:
    return RedisScripts("redis://127.0.0.1:1/0", "return 1")


@pytest.fixture
async def client(store: Database) -> UUID:
    made = uuid7()
    pool = await store.fast()
    await pool.execute(
        "insert into client (id, slug, name, status) values ($1, $2, 'x', 'active')", made, made.hex
    )
    return made


async def used(quotas: Quotas, client: UUID) -> list[int]:
    uses = await quotas.uses(client, LIMITS)
    return [use.used for use in uses if use.metric == "messages"]


async def test_the_limit_is_the_last_that_passes(
    store: Database, redis: RedisScripts, client: UUID
) -> None:
    quotas = Quotas(store, redis, clock=Now())
    for _ in range(10):
        assert quotas.exceeded(client, "messages", LIMITS) is None
        quotas.spend(client, "messages")
    use = quotas.exceeded(client, "messages", LIMITS)
    assert use is not None
    assert (use.window, use.limit, use.used, use.left) == ("hour", 10, 10, 0)
    assert use.resets_at == datetime(2026, 5, 4, 11, tzinfo=UTC)
    assert quotas.exceeded(client, "notifications", LIMITS) is None


async def test_nodes_learn_from_each_other_through_redis(
    store: Database, redis: RedisScripts, client: UUID
) -> None:
    nodes = [Quotas(store, redis, clock=Now()) for _ in range(3)]
    for number, node in enumerate(nodes):
        node.spend(client, "messages", number + 1)
    await asyncio.gather(*(node.share() for node in nodes))
    nodes[0].spend(client, "messages", 1)
    await nodes[0].share()
    assert await used(nodes[0], client) == [7, 7]


@pytest.mark.parametrize("is_there", [True, False])
async def test_what_was_written_is_known_after_a_restart(
    store: Database, client: UUID, redis: RedisScripts, away: RedisScripts, *, is_there: bool
) -> None:
    clock = Now()
    redis = redis if is_there else away
    for _ in range(2):
        quotas = Quotas(store, redis, clock=clock)
        quotas.spend(client, "messages", 4)
        await quotas.share()
        await quotas.write()
    fresh = Quotas(store, redis, clock=clock)
    assert await used(fresh, client) == [8, 8]
    await fresh.write()  # there is nothing new
    assert await used(Quotas(store, redis, clock=clock), client) == [8, 8]


async def test_without_redis_nodes_learn_from_what_they_write(
    store: Database, away: RedisScripts, client: UUID
) -> None:
    one, other = (Quotas(store, away, clock=Now()) for _ in range(2))
    one.spend(client, "messages", 6)
    await one.share()
    await one.write()
    other.spend(client, "messages", 4)
    await other.write()
    assert other.exceeded(client, "messages", LIMITS) is not None


async def test_a_new_hour_and_a_new_day_begin_at_nothing(
    store: Database, redis: RedisScripts, client: UUID
) -> None:
    clock = Now()
    quotas = Quotas(store, redis, clock=clock)
    quotas.spend(client, "messages", 10)
    await quotas.share()
    clock.now += timedelta(hours=1)
    assert quotas.exceeded(client, "messages", LIMITS) is None
    assert await used(quotas, client) == [0, 10]
    clock.now += timedelta(days=1)
    assert await used(quotas, client) == [0, 0]


async def test_a_client_that_is_gone_stops_nobody_else(
    store: Database, redis: RedisScripts, client: UUID
) -> None:
    quotas = Quotas(store, redis, clock=Now())
    quotas.spend(uuid7(), "messages", 1)
    await quotas.write()
    quotas.spend(client, "messages", 2)
    await quotas.write()
    assert await used(Quotas(store, redis, clock=Now()), client) == [2, 2]
