"""Whatever is asked of whichever route: the answer is one that the OpenAPI document tells of.

FUZZ_TIMES makes more requests of each kind (`make soak` does), FUZZ_SEED others.
"""

import asyncio
import os

import pytest

from chatserver.kernel.principal import Caller
from chatserver.operations import build_registry
from tests.e2e.test_foreign_routes import path_members
from tests.support.fuzzing import Fuzzer
from tests.support.houses import House
from tests.support.nodes import Cluster

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))


@pytest.mark.timeout(180 + 120 * TIMES)
async def test_no_answer_is_undocumented_and_none_is_a_bug(mine: House, pair: Cluster) -> None:
    registry = build_registry()
    scene = mine.scene
    async with scene.http.get(f"{scene.nodes[0].url}/openapi.json") as served:
        document = await served.json()
    keys = {
        Caller.OPERATOR: pair.database.secrets.operator_key,
        Caller.MASTER: scene.master_key,
        Caller.USER: await scene.key_of("onlyb"),
    }
    known = {
        (route.path, name): mine.ids[kind]
        for route in registry.routes
        for name, kind in path_members(route).items()
        if kind in mine.ids
    }
    fuzzer = Fuzzer(document, scene.nodes[0].url, keys, known)
    # What is deleted can't be named any more.
    routes = sorted(registry.routes, key=lambda route: route.method == "DELETE")
    wrong: list[str] = []
    for route in routes:
        operation = registry.operations[route.operation]
        wrong += await asyncio.to_thread(fuzzer.ask, route, operation, times=TIMES, seed=SEED)
    assert not wrong, "\n\n".join(wrong[:10])
    assert fuzzer.asked > 2 * TIMES * len(routes)
