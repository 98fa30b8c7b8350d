"""A primary of a Redis Cluster dies under load, and its replica takes over: `make chaos`."""

import asyncio
from pathlib import Path

import pytest

from tests.chaos.conftest import Protocol, Scale
from tests.chaos.rehearsal import RATE, finish
from tests.chaos.stage import on_stage
from tests.support.nodes import eventually
from tests.support.redis_cluster import redis_cluster
from tests.support.servers import Servers

pytestmark = [pytest.mark.js, pytest.mark.timeout(600)]

PRIMARIES = 3


@pytest.mark.parametrize("stands_still", [False, True], ids=["killed", "stopped"])
async def test_a_replica_takes_over(
    servers: Servers,
    history: Path,
    protocol: Protocol,
    seed: int,
    scale: Scale,
    *,
    stands_still: bool,
) -> None:
    with redis_cluster(PRIMARIES, replicated=True) as members:
        async with on_stage(
            servers, history, seed=seed, nodes=scale.nodes, rooms=6, redis_url=members[0].url
        ) as stage:
            stage.load(RATE)
            await asyncio.sleep(2)
            number = stage.random.randrange(PRIMARIES)
            primary, replica = members[number], members[PRIMARIES + number]
            # One that stands still comes back, and finds that it is a replica now.
            primary.pause() if stands_still else primary.kill()
            try:
                await eventually(lambda: replica.says("replication", "role:master"))
                await asyncio.sleep(scale.seconds(10, 30))
            finally:
                if stands_still:
                    primary.resume()
            for node in stage.nodes:
                await eventually(node.is_ready, why=f"{node.name} is ready, and not degraded")
            what = "stands still" if stands_still else "dies"
            await finish(f"a primary of Redis {what}, failover", seed, stage, protocol)
