"""Background tasks end, also those that take no for an answer."""

import asyncio

import pytest

from chatserver.kernel import tasks
from chatserver.kernel.tasks import end


async def test_one_that_swallows_a_cancellation_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = 0

    async def stubborn() -> None:
        nonlocal refused
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if refused == 2:
                    raise
                refused += 1

    monkeypatch.setattr(tasks, "AGAIN_S", 0.01)
    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end(task, None)
    assert task.cancelled()
    assert refused == 2


async def test_one_that_has_failed_is_no_failure_of_whoever_ends_it() -> None:
    async def fails() -> None:
        raise ValueError

    task = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await end(task)
    assert isinstance(task.exception(), ValueError)
