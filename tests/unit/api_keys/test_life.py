"""The two promises about keys, for any order of events.

An honest client is never locked out. A stolen key is found out.

Three nodes serve one table of families, which does what PostgreSQL's statements do; a smaller run
does the same on PostgreSQL (tests/integration/api_keys/test_life.py). `KEY_STEPS=10000` in the
environment makes it as long as `make chaos` wants it.
"""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.key_life import STEPS, Backend, KeyLifeMachine
from tests.support.key_table import Table

LIFE = 50
# Hypothesis takes as many steps as it likes, up to that.
USUAL = 30


class InMemory(KeyLifeMachine):
    def make_backend(self) -> Backend:
        return Table()


@pytest.mark.timeout(600)
def test_no_honest_client_is_locked_out_and_no_thief_goes_unnoticed() -> None:
    run_state_machine_as_test(
        InMemory,
        settings=settings(max_examples=max(1, STEPS // USUAL), stateful_step_count=LIFE),
    )
