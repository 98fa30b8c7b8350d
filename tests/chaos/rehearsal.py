"""What every rehearsal ends with."""

import asyncio

from tests.chaos.checker import Verdict
from tests.chaos.conftest import Protocol
from tests.chaos.stage import Stage

RATE = 60
MOST_GROWN = 300 << 20


async def finish(
    name: str,
    seed: int,
    stage: Stage,
    protocol: Protocol,
    *,
    rewound: bool = False,
    strangers: bool = False,
) -> Verdict:
    """Go on for a moment after the fault, then judge. `strangers`: some sends are refused."""
    await asyncio.sleep(2)
    await stage.calm()
    verdict = await stage.verdict(rewound=rewound)
    protocol.add(name, seed, stage, verdict)
    assert not verdict.faults, "\n".join(verdict.faults[:20])
    wrong = (verdict.lost, verdict.doubled, verdict.repeated, verdict.disordered, verdict.leaked)
    assert (*wrong, verdict.outdated) == (0, 0, 0, 0, 0, 0)
    assert verdict.acked + verdict.refused == verdict.sends
    assert strangers or verdict.refused == 0
    assert verdict.heard > 0
    assert stage.grown_bytes() < MOST_GROWN
    # Whoever was ahead of a log that was rewound has loaded his rooms anew.
    assert (verdict.reloads > 0) == rewound
    return verdict
