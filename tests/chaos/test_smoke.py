"""A short rehearsal that belongs to every run; `make chaos` has the long ones."""

from pathlib import Path

import pytest

from tests.chaos import nemesis
from tests.chaos.checker import Truth
from tests.chaos.model import Model
from tests.chaos.stage import on_stage
from tests.support.servers import Servers

STEPS = 40


@pytest.mark.js
@pytest.mark.timeout(120)
async def test_nothing_is_lost_while_a_node_is_killed_and_redis_is_emptied(
    servers: Servers, tmp_path: Path
) -> None:
    async with on_stage(servers, tmp_path / "history.jsonl", seed=1) as stage:
        stage.load(rate=40)
        await nemesis.flush_redis(stage, 1)
        await nemesis.kill_node(stage, 1)
        await nemesis.kick_subscribers(stage, 1)
        await stage.calm()
        verdict = await stage.verdict()
    assert not verdict.faults, "\n".join(verdict.faults[:10])
    assert verdict.acked > 50
    assert verdict.applied > verdict.acked * 4
    assert verdict.heard > 0


@pytest.mark.js
@pytest.mark.timeout(180)
async def test_random_operations_and_faults_end_as_the_model_says(
    servers: Servers, tmp_path: Path, seed: int
) -> None:
    async with on_stage(servers, tmp_path / "history.jsonl", seed=seed, rooms=2) as stage:
        model = Model(stage)
        await model.run(STEPS)
        different = model.faults(await Truth.read(stage.database.admin_url))
        verdict = await stage.verdict()
    assert not different, (different, model.done)
    assert not verdict.faults, ("\n".join(verdict.faults[:10]), model.done)
    assert verdict.acked > 0
