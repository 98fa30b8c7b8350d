"""Random operations between random faults, longer than in every run: `make chaos`."""

from pathlib import Path

import pytest

from tests.chaos.checker import Truth
from tests.chaos.conftest import Protocol, Scale
from tests.chaos.model import Model
from tests.chaos.rehearsal import finish
from tests.chaos.stage import on_stage
from tests.support.servers import Servers

pytestmark = [pytest.mark.js, pytest.mark.timeout(600)]

STEPS = 300


async def test_random_operations_and_faults_end_as_the_model_says(
    servers: Servers, history: Path, protocol: Protocol, seed: int, scale: Scale
) -> None:
    async with on_stage(servers, history, seed=seed, nodes=scale.nodes, rooms=2) as stage:
        model = Model(stage)
        await model.run(round(scale.seconds(STEPS)))
        different = model.faults(await Truth.read(stage.database.admin_url))
        assert not different, (different, model.done)
        name = f"{model.done['fault']} random faults"
        await finish(name, seed, stage, protocol, strangers=True)
