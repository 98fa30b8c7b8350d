import asyncio
from collections.abc import Sequence

import pytest

from chatserver.infra.lazily import BATCH, LazyNotes


class Written:
    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.is_broken = False

    async def __call__(self, names: Sequence[str]) -> None:
        if self.is_broken:
            raise OSError
        self.batches.append(sorted(names))


async def test_many_notes_are_one_write() -> None:
    written = Written()
    notes = LazyNotes(written)
    for name in ("a", "b", "a"):
        notes.note(name)
    assert written.batches == []
    await notes.flush()
    await notes.flush()
    assert written.batches == [["a", "b"]]


async def test_a_name_is_written_at_most_once_a_minute() -> None:
    times = [0.0]
    written = Written()
    notes = LazyNotes(written, clock=lambda: times[-1])
    for now in (0.0, 30.0, 59.0, 61.0):
        times.append(now)
        notes.note("a")
        await notes.flush()
    assert written.batches == [["a"], ["a"]]


async def test_a_write_that_fails_hurts_nobody() -> None:
    written = Written()
    notes = LazyNotes(written)
    written.is_broken = True
    notes.note("a")
    await notes.flush()
    written.is_broken = False
    notes.note("b")
    await notes.flush()
    assert written.batches == [["b"]]


async def test_very_many_names_are_written_in_batches() -> None:
    written = Written()
    notes = LazyNotes(written)
    for number in range(BATCH + 1):
        notes.note(str(number))
    await notes.flush()
    assert sorted(len(batch) for batch in written.batches) == [1, BATCH]


async def test_what_still_waits_is_written_at_the_end() -> None:
    written = Written()
    notes = LazyNotes(written)
    running = asyncio.create_task(notes.run())
    await asyncio.sleep(0)
    notes.note("a")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert written.batches == [["a"]]
