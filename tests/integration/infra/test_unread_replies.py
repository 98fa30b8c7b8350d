"""B8: whoever gives up waiting for Redis leaves no reply behind for the next to read as its own."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from chatserver.infra.redis_scripts import RedisAwayError, RedisScripts
from chatserver.realtime.store import Store
from tests.support.servers import Servers

ASKERS = 400
Get: TypeAlias = Callable[[str], Awaitable[Any]]


@pytest.fixture
async def scripts(servers: Servers) -> AsyncIterator[RedisScripts]:
    made = RedisScripts(servers.valkey.url, "return 1")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def store(servers: Servers) -> AsyncIterator[Store]:
    made = Store(servers.valkey.url, prefix=f"test-{secrets.token_hex(4)}")
    yield made
    await made.close()


async def storm(get: Get, names: dict[str, str]) -> int:
    """Ask for everything at once and give up on much of it, at any moment; count the answers."""
    chance = random.Random(7)
    right = 0

    async def ask(name: str) -> bool:
        found = await get(name)
        assert found == names[name].encode(), "somebody else's reply"
        return True

    for _ in range(5):
        tasks = [asyncio.create_task(ask(name)) for name in names]
        for task in tasks:
            if chance.random() < 0.5:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                task.cancel()
        for done in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(done, AssertionError):
                raise done
            right += done is True
    return right


async def test_the_limits_connection_gives_everyone_its_own_reply(scripts: RedisScripts) -> None:
    mark = secrets.token_hex(4)
    names = {f"{mark}:{number}": f"value {number}" for number in range(ASKERS)}
    for name, value in names.items():
        await scripts.run("SET", name, value, "EX", 60)

    async def get(name: str) -> Any:
        while True:
            try:
                return await scripts.run("GET", name)
            except RedisAwayError:  # it was given up in the middle, and is made anew
                await asyncio.sleep(0.01)

    assert await storm(get, names) > ASKERS


async def test_the_store_gives_everyone_its_own_reply(store: Store) -> None:
    names = {f"{store.prefix}:{number}": f"value {number}" for number in range(ASKERS)}
    for name, value in names.items():
        await store.ask(lambda redis, name=name, value=value: redis.set(name, value, ex=60))  # type: ignore[misc]

    async def get(name: str) -> Any:
        while True:
            try:
                return await store.ask(lambda redis: redis.get(name))
            except ConnectionError:  # it took too long on a busy machine
                await asyncio.sleep(0.01)

    assert await storm(get, names) > ASKERS
