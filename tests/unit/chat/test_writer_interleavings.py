"""The writer under random interleavings: whatever happens, each write gets one true answer."""

import asyncio
from collections import defaultdict
from typing import Any, Final
from uuid import UUID

import asyncpg
from hypothesis import given, settings
from hypothesis import strategies as st

from chatserver.chat.events import Draft, Outcome
from chatserver.chat.writer import MessageWriter
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.ids import uuid7
from tests.support.stores import FakeStore, draft

ROOMS: Final = [uuid7() for _ in range(3)]
CLIENTS: Final = [uuid7(), uuid7()]

STEPS: Final = st.one_of(
    st.tuples(
        st.just("write"),
        st.integers(0, 2),
        st.sampled_from(["alice", "bob"]),
        st.integers(0, 30),
        st.sampled_from(["hello", "hello", "hello", "bye", "poison"]),
    ),
    st.tuples(st.just("hold"), st.integers(0, 2)),
    st.tuples(st.just("free"), st.integers(0, 2)),
    st.tuples(st.just("outage"), st.integers(0, 2)),
    st.tuples(st.just("cancel"), st.integers(0, 100)),
    st.tuples(st.just("gate")),
    st.tuples(st.just("turn"), st.integers(1, 5)),
    st.tuples(st.just("pause")),
)


class Run:
    def __init__(self) -> None:
        self.store = FakeStore()
        self.store.poison["poison"] = asyncpg.DataError("poison")
        self.announced: dict[UUID, list[tuple[Draft, int | None]]] = defaultdict(list)
        self.writer = MessageWriter(self.store, self._announce)
        self.drafts: list[Draft] = []
        self.tasks: list[asyncio.Task[Outcome]] = []

    def _announce(self, stored: Draft, outcome: Outcome) -> None:
        self.announced[stored.room_id].append((stored, outcome.seq))

    async def step(self, name: str, *values: Any) -> None:
        await getattr(self, f"_{name}")(*values)

    async def _write(self, room: int, sender: str, number: int, text: str) -> None:
        client = CLIENTS[room % 2]
        made = draft(ROOMS[room], str(number), sender=sender, client=client, content=text)
        self.drafts.append(made)
        self.tasks.append(asyncio.ensure_future(self.writer.write(made)))
        # In the order of the steps, as the events of one connection are.
        await asyncio.sleep(0)

    async def _hold(self, room: int) -> None:
        self.store.held.add(ROOMS[room])

    async def _free(self, room: int) -> None:
        await self.store.free(ROOMS[room])

    async def _outage(self, room: int) -> None:
        self.store.outages[ROOMS[room]] = ConnectionResetError()

    async def _cancel(self, which: int) -> None:
        if self.tasks:
            self.tasks[which % len(self.tasks)].cancel()

    async def _gate(self) -> None:
        if self.store.gate.is_set():
            self.store.gate.clear()
        else:
            self.store.gate.set()

    async def _turn(self, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    async def _pause(self) -> None:
        await asyncio.sleep(0.006)

    async def finish(self) -> list[Outcome | BaseException]:
        self.store.gate.set()
        await self.store.free(*ROOMS)
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*self.tasks, return_exceptions=True)
            # A draft that its sender gave up on while its room was held leaves when that is
            # looked at again.
            while self.writer._known:  # noqa: ASYNC110 - it has no event to wait for
                await asyncio.sleep(0.001)
            return answers

    def check(self, answers: list[Outcome | BaseException]) -> None:
        log = self.store.log
        for answer in answers:
            assert isinstance(
                answer, Outcome | UnavailableError | asyncpg.DataError | asyncio.CancelledError
            )
        assert self.store.shared_rooms == set()
        identities = [each.identity for room in log.values() for each in room]
        assert len(identities) == len(set(identities))
        for room, stored in log.items():
            told = self.announced[room]
            assert [each for each, _ in told] == stored
            assert [seq for _, seq in told] == list(range(1, len(stored) + 1))
            arrived = [each.message_id for each in self.drafts]
            for sender in ("alice", "bob"):
                own = [each.message_id for each in stored if each.sender_key == sender]
                assert own == sorted(own, key=arrived.index)
        ids = {each.message_id for room in log.values() for each in room}
        for made, answer in zip(self.drafts, answers, strict=True):
            if isinstance(answer, Outcome) and answer.outcome == "stored":
                assert answer.seq is not None
                assert log[made.room_id][answer.seq - 1] is made
            elif isinstance(answer, Outcome) and answer.outcome == "duplicate":
                assert answer.message_id in ids
            elif isinstance(answer, UnavailableError | asyncpg.DataError):
                assert made.message_id not in ids
        assert self.writer._known == {}
        assert self.writer._lanes == {}
        assert self.writer.stored == sum(len(room) for room in log.values())


@settings(max_examples=150)
@given(st.lists(STEPS, min_size=5, max_size=80))
def test_every_write_gets_one_true_answer_whatever_happens(steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        one = Run()
        for step in steps:
            await one.step(*step)
        one.check(await one.finish())
        # Nothing is left behind that would hold a room or a place.
        one.store.outages.clear()
        again = await one.writer.write(draft(ROOMS[0], "after", sender="carol"))
        assert again.outcome == "stored"

    asyncio.run(run())
