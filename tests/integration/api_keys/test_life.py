"""The machine of `tests/support/key_life.py` on PostgreSQL, shorter: the statements keep the rules.

`tests/unit/api_keys/test_life.py` is the long one.
"""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from chatserver.infra.secrets import parse_key
from chatserver.kernel.errors import DomainError
from tests.support.key_life import NODES, STEPS, Backend, KeyLifeMachine, Result
from tests.support.keys import KeyHouse
from tests.support.servers import Database as Address

LIFE = 40


class Rows:
    """Three nodes on one database, driven from outside their loop."""

    def __init__(self, address: Address) -> None:
        self.loop = asyncio.new_event_loop()
        self.houses = [KeyHouse(address) for _ in range(NODES)]
        self.master, _ = self.loop.run_until_complete(self.houses[0].new_client())

    def login(self, device: str, *, explicit: bool, replace: bool) -> str:
        issued = self.houses[0].login(
            self.master,
            device_id=device,
            rotation="explicit" if explicit else "always",
            replace=replace,
        )
        return self.loop.run_until_complete(issued).key

    async def _connect(self, node: int, key: str) -> Result:
        try:
            return (await self.houses[node].arrive(key)).handed_out
        except DomainError as error:
            return error

    def connect(self, node: int, key: str) -> Result:
        return self.loop.run_until_complete(self._connect(node, key))

    def rest(self, node: int, key: str) -> DomainError | None:
        parsed = parse_key(key)
        assert parsed is not None
        try:
            self.loop.run_until_complete(self.houses[node].rotation.check(parsed))
        except DomainError as error:
            return error
        return None

    def confirm(self, node: int, kid: str, key_id: UUID) -> bool:
        return self.loop.run_until_complete(self.houses[node].rotation.confirm(kid, key_id))

    def race(self, keys: Sequence[str], schedule: Sequence[int]) -> list[Result]:
        # PostgreSQL decides whose turn it is.
        async def all_at_once() -> list[Result]:
            works = (self._connect(n % NODES, key) for n, key in enumerate(keys))
            return list(await asyncio.gather(*works))

        return self.loop.run_until_complete(all_at_once())

    def advance(self, seconds: int) -> None:
        for statement in (
            "update key_retired set valid_until = valid_until - make_interval(secs => :s)",
            "update key_family set grace_until = grace_until - make_interval(secs => :s)",
        ):
            self.loop.run_until_complete(self.houses[0].change(statement, s=seconds))

    def note_use(self) -> None:
        for house in self.houses:
            self.loop.run_until_complete(house.scoped_use.flush())

    def close(self) -> None:
        for house in self.houses:
            self.loop.run_until_complete(house.close())
        self.loop.close()


@pytest.mark.timeout(600)
def test_the_promises_hold_on_postgresql(database: Address) -> None:
    class OnPostgres(KeyLifeMachine):
        def make_backend(self) -> Backend:
            return Rows(database)

    run_state_machine_as_test(
        OnPostgres,
        settings=settings(
            max_examples=max(1, STEPS // (LIFE * 2)),
            stateful_step_count=LIFE,
            suppress_health_check=list(HealthCheck),
        ),
    )
