import asyncio
import threading

import pytest

from chatserver.infra.slow_hash import SlowHasher
from chatserver.kernel.errors import UnavailableError

CHEAP = 4


async def test_it_confirms_the_secret_it_hashed_and_no_other() -> None:
    slow = SlowHasher(cost=CHEAP)
    hashed = await slow.hash("a" * 43)
    assert await slow.confirms("a" * 43, hashed)
    assert not await slow.confirms("a" * 42 + "b", hashed)
    slow.close()


async def test_a_hash_that_is_none_confirms_nothing() -> None:
    slow = SlowHasher(cost=CHEAP)
    assert not await slow.confirms("a" * 43, b"")
    assert not await slow.confirms("a" * 100, await slow.hash("a" * 43))
    slow.close()


async def test_whoever_finds_the_queue_full_is_sent_away_at_once() -> None:
    slow = SlowHasher(cost=CHEAP, threads=1, queue=2, wait_s=5)
    release = threading.Event()
    busy = [asyncio.create_task(slow._run(release.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError):
        await slow.hash("a" * 43)
    release.set()
    assert await asyncio.gather(*busy) == [True] * 3
    assert await slow.hash("a" * 43)
    slow.close()


async def test_whoever_waits_too_long_is_sent_away_and_the_place_is_free_again() -> None:
    slow = SlowHasher(cost=CHEAP, threads=1, queue=1, wait_s=0.3)
    release = threading.Event()
    with pytest.raises(UnavailableError):
        await asyncio.gather(slow._run(release.wait), slow._run(release.wait))
    release.set()
    await asyncio.sleep(0.1)
    assert await slow.hash("a" * 43)
    slow.close()


async def test_the_event_loop_goes_on_while_it_hashes() -> None:
    slow = SlowHasher(cost=10)
    hashing = asyncio.create_task(slow.hash("a" * 43))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 3
    slow.close()
