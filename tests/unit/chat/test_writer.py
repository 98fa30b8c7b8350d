import asyncio
from collections.abc import Iterable
from uuid import UUID

import asyncpg
import pytest

from chatserver.chat import writer as writing
from chatserver.chat.events import Draft, Outcome
from chatserver.chat.writer import BATCH, SECOND, SHARE, MessageWriter
from chatserver.kernel.errors import DrainingError, UnavailableError
from chatserver.kernel.ids import uuid7
from tests.support.stores import FakeStore, draft

ROOM, OTHER, THIRD = uuid7(), uuid7(), uuid7()


class Desk:
    """A writer on a fake store, and what it announced."""

    def __init__(self) -> None:
        self.store = FakeStore()
        self.announced: list[tuple[Draft, Outcome]] = []
        self.writer = MessageWriter(self.store, self._announce)

    def _announce(self, stored: Draft, outcome: Outcome) -> None:
        self.announced.append((stored, outcome))

    def start(self, drafts: Iterable[Draft]) -> list["asyncio.Task[Outcome]"]:
        return [asyncio.ensure_future(self.writer.write(each)) for each in drafts]

    async def write(self, *drafts: Draft) -> list[Outcome | BaseException]:
        return await asyncio.gather(*self.start(drafts), return_exceptions=True)

    def stored(self, room: UUID) -> list[str]:
        return [each.client_msg_id for each in self.store.log.get(room, [])]


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def until_quiet() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def later(seconds: float = 0.05) -> None:
    await asyncio.sleep(seconds)


def seqs(outcomes: Iterable[Outcome | BaseException]) -> list[int | None]:
    return [each.seq for each in outcomes if isinstance(each, Outcome)]


class TestBatches:
    async def test_sends_that_wait_share_the_next_call(self, desk: Desk) -> None:
        desk.store.gate.clear()
        tasks = []
        # What one turn of the loop brings goes together; what comes meanwhile waits for the next
        # call, unless it is so much that a second one is worth its price.
        for sends, calls in ((3, [3]), (SECOND - 1, [3]), (1, [3, SECOND]), (40, [3, SECOND])):
            tasks += desk.start(draft(uuid7(), "1") for _ in range(sends))
            await until_quiet()
            assert [len(call) for call in desk.store.calls] == calls
        desk.store.gate.set()
        await asyncio.gather(*tasks)
        assert [len(call) for call in desk.store.calls] == [3, SECOND, 40]

    async def test_a_room_keeps_the_order_in_which_its_sends_came(self, desk: Desk) -> None:
        outcomes = await desk.write(*(draft(ROOM, str(n)) for n in range(200)))
        assert seqs(outcomes) == list(range(1, 201))
        assert desk.stored(ROOM) == [str(n) for n in range(200)]

    async def test_a_room_is_never_in_two_batches_at_once(self, desk: Desk) -> None:
        rooms = [ROOM, OTHER, THIRD]
        await desk.write(*(draft(rooms[n % 3], str(n)) for n in range(500)))
        assert desk.store.shared_rooms == set()
        assert max(len(call) for call in desk.store.calls) <= BATCH

    async def test_a_refusal_is_the_answer_of_its_own_draft_only(self, desk: Desk) -> None:
        desk.store.refused["no"] = "room.not_found"
        drafts = (draft(ROOM, "1"), draft(ROOM, "2", content="no"), draft(ROOM, "3"))
        outcomes = await desk.write(*drafts)
        assert [each.outcome for each in outcomes if isinstance(each, Outcome)] == [
            "stored",
            "room.not_found",
            "stored",
        ]

    async def test_many_sends_to_one_held_back_room_cost_no_search_each(self, desk: Desk) -> None:
        desk.store.gate.clear()
        looked = 0
        take = desk.writer._take

        def counted() -> list[writing._Waiting]:
            nonlocal looked
            looked += 1
            return take()

        desk.writer._take = counted  # type: ignore[method-assign]  # to count its calls
        tasks = desk.start(draft(ROOM, str(n)) for n in range(1000))
        await until_quiet()
        assert looked <= 2
        desk.store.gate.set()
        await asyncio.gather(*tasks)
        assert desk.stored(ROOM) == [str(n) for n in range(1000)]


class TestRepeats:
    async def test_the_same_send_twice_at_once_is_stored_once(self, desk: Desk) -> None:
        outcomes = await desk.write(*(draft(ROOM, "1") for _ in range(50)))
        found = [each for each in outcomes if isinstance(each, Outcome)]
        assert [each.outcome for each in found] == ["stored"] + ["duplicate"] * 49
        assert {each.message_id for each in found} == {found[0].message_id}
        assert len(desk.announced) == 1
        assert [len(call) for call in desk.store.calls] == [1]

    async def test_the_same_id_with_other_content_is_a_conflict(self, desk: Desk) -> None:
        outcomes = await desk.write(
            draft(ROOM, "1"), draft(ROOM, "1", content="bye"), draft(ROOM, "1")
        )
        assert [each.outcome for each in outcomes if isinstance(each, Outcome)] == [
            "stored",
            "idempotency.conflict",
            "duplicate",
        ]

    async def test_a_later_repeat_is_answered_by_the_store(self, desk: Desk) -> None:
        await desk.write(draft(ROOM, "1"))
        [again] = await desk.write(draft(ROOM, "1"))
        assert isinstance(again, Outcome)
        assert again.outcome == "duplicate"
        assert len(desk.store.calls) == 2

    async def test_repeats_of_a_refused_draft_are_refused_like_it(self, desk: Desk) -> None:
        desk.store.refused["hello"] = "room.not_member"
        outcomes = await desk.write(draft(ROOM, "1"), draft(ROOM, "1", content="bye"))
        assert [each.outcome for each in outcomes if isinstance(each, Outcome)] == [
            "room.not_member",
            "room.not_member",
        ]

    async def test_the_same_id_of_another_sender_or_room_is_another_send(self, desk: Desk) -> None:
        outcomes = await desk.write(
            draft(ROOM, "1"), draft(ROOM, "1", sender="bob"), draft(OTHER, "1")
        )
        assert seqs(outcomes) == [1, 2, 1]


class TestBusyRooms:
    async def test_a_busy_room_is_tried_again_without_delaying_others(self, desk: Desk) -> None:
        desk.store.held = {ROOM}
        held = desk.start([draft(ROOM, "1")])
        others = await desk.write(*(draft(OTHER, str(n)) for n in range(5)))
        assert seqs(others) == [1, 2, 3, 4, 5]
        await desk.store.free(ROOM)
        assert (await held[0]).seq == 1

    async def test_after_three_rounds_it_waits_in_a_lane_of_its_own(self, desk: Desk) -> None:
        desk.store.held = {ROOM}
        held = desk.start(draft(ROOM, str(n)) for n in range(3))
        await later(0.1)
        assert desk.writer.busy >= 3
        assert desk.store.waited[-1] is True
        assert sum(desk.store.waited) == 1
        # Whatever comes later for it goes there, too, and other rooms never wait.
        held += desk.start(draft(ROOM, str(n)) for n in range(3, 6))
        assert seqs(await desk.write(draft(OTHER, "1"))) == [1]
        await desk.store.free(ROOM)
        await asyncio.gather(*held)
        assert desk.stored(ROOM) == ["0", "1", "2", "3", "4", "5"]
        assert desk.writer._lanes == {}

    async def test_order_holds_when_a_lane_is_opened_for_several_drafts(self, desk: Desk) -> None:
        # All of them are in one batch when they are busy for the third time, others queue behind.
        desk.store.held = {ROOM}
        desk.store.gate.clear()
        tasks = desk.start([draft(OTHER, "a"), draft(THIRD, "b")])
        await until_quiet()
        tasks += desk.start(draft(ROOM, str(n)) for n in range(10))
        desk.store.gate.set()
        for n in range(10, 40):
            await asyncio.sleep(0.001)
            tasks += desk.start([draft(ROOM, str(n))])
        await later()
        await desk.store.free(ROOM)
        await asyncio.gather(*tasks)
        assert desk.stored(ROOM) == [str(n) for n in range(40)]

    async def test_many_held_rooms_do_not_take_every_connection(self, desk: Desk) -> None:
        rooms = [uuid7() for _ in range(10)]
        desk.store.held = set(rooms)
        tasks = desk.start(draft(room, "1") for room in rooms)
        await later(0.1)
        assert len(desk.store.running) == writing.LANES
        assert seqs(await desk.write(draft(OTHER, "1"))) == [1]
        await desk.store.free(*rooms)
        assert [each.seq for each in await asyncio.gather(*tasks)] == [1] * 10

    async def test_once_free_a_room_goes_with_the_batches_again(self, desk: Desk) -> None:
        desk.store.held = {ROOM}
        tasks = desk.start([draft(ROOM, "1")])
        await later(0.1)
        await desk.store.free(ROOM)
        await asyncio.gather(*tasks)
        await desk.write(draft(ROOM, "2"))
        assert desk.store.waited[-1] is False


class TestFaults:
    @pytest.mark.parametrize(
        "fault",
        [
            asyncpg.DataError("bad"),
            asyncpg.UniqueViolationError("twice"),
            asyncpg.RaiseError("on purpose"),
        ],
    )
    async def test_one_poisoned_draft_fails_alone(self, desk: Desk, fault: Exception) -> None:
        desk.store.poison["poison"] = fault
        desk.store.gate.clear()
        first = desk.start([draft(OTHER, "a"), draft(THIRD, "b")])
        await until_quiet()
        tasks = desk.start(
            draft(ROOM, str(n), content="poison" if n == 13 else "good") for n in range(40)
        )
        await until_quiet()
        desk.store.gate.set()
        outcomes = await asyncio.gather(*first, *tasks, return_exceptions=True)
        assert [each for each in outcomes if isinstance(each, BaseException)] == [fault]
        assert outcomes[2 + 13] is fault
        assert desk.stored(ROOM) == [str(n) for n in range(40) if n != 13]
        # Halves, not singles: at most two calls per level of the tree.
        assert len(desk.store.calls) <= 2 + 1 + 2 * 6

    @pytest.mark.parametrize(
        "fault",
        [
            asyncpg.ConnectionDoesNotExistError("gone"),
            asyncpg.AdminShutdownError("shutting down"),
            asyncpg.CannotConnectNowError("starting up"),
            asyncpg.DeadlockDetectedError("deadlock"),
            asyncpg.LockNotAvailableError("lock timeout"),
            asyncpg.QueryCanceledError("statement timeout"),
            asyncpg.UndefinedFunctionError("no chat_store"),
            asyncpg.InterfaceError("connection is closed"),
            TimeoutError(),
            ConnectionRefusedError(),
        ],
    )
    async def test_an_outage_fails_the_whole_batch_at_once(
        self, desk: Desk, fault: BaseException
    ) -> None:
        desk.store.gate.clear()
        first = desk.start([draft(OTHER, "a"), draft(THIRD, "b")])
        await until_quiet()
        tasks = desk.start(draft(ROOM, str(n)) for n in range(10))
        await until_quiet()
        desk.store.outages = {ROOM: fault}
        desk.store.gate.set()
        await asyncio.gather(*first)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in outcomes} == {UnavailableError}
        assert len(desk.store.calls) == 2
        assert all(each.__cause__ is fault for each in outcomes if isinstance(each, Exception))
        # The same ids may be tried again, and then they are stored.
        again = await desk.write(*(draft(ROOM, str(n)) for n in range(10)))
        assert seqs(again) == list(range(1, 11))

    async def test_repeats_hear_of_the_outage_too(self, desk: Desk) -> None:
        desk.store.outages = {ROOM: ConnectionRefusedError()}
        outcomes = await desk.write(draft(ROOM, "1"), draft(ROOM, "1"))
        assert [type(each) for each in outcomes] == [UnavailableError, UnavailableError]
        assert outcomes[0] is not outcomes[1]

    async def test_an_answer_of_the_wrong_length_leaves_nobody_waiting(self, desk: Desk) -> None:
        async def short(drafts: object, *, wait: bool) -> list[Outcome]:
            return []

        desk.store.store = short  # type: ignore[method-assign]  # a store that is broken
        async with asyncio.timeout(1):
            [outcome] = await desk.write(draft(ROOM, "1"))
        assert isinstance(outcome, UnavailableError)

    async def test_a_failing_announcement_leaves_nobody_waiting(self, desk: Desk) -> None:
        def broken(_draft: Draft, _outcome: Outcome) -> None:
            raise UnavailableError

        desk.writer._announce = broken
        async with asyncio.timeout(10):
            outcomes = await desk.write(draft(ROOM, "1"), draft(ROOM, "2"), draft(OTHER, "1"))
        assert seqs(outcomes) == [1, 2, 1]


class TestFairShare:
    async def test_one_client_takes_a_quarter_of_a_batch_while_others_wait(
        self, desk: Desk
    ) -> None:
        greedy, modest = uuid7(), uuid7()
        desk.store.gate.clear()
        tasks = desk.start([draft(OTHER, "a"), draft(THIRD, "b")])
        await until_quiet()
        tasks += desk.start(draft(uuid7(), str(n), client=greedy) for n in range(300))
        tasks += desk.start(draft(uuid7(), str(n), client=modest) for n in range(20))
        await until_quiet()
        desk.store.gate.set()
        await asyncio.gather(*tasks)
        contended = [each.client_id for each in desk.store.calls[1]]
        assert contended.count(greedy) == SHARE
        assert contended.count(modest) == SHARE
        # Alone it takes all of it.
        assert any(
            len(call) == BATCH and {each.client_id for each in call} == {greedy}
            for call in desk.store.calls
        )

    async def test_passing_a_client_over_does_not_turn_a_room_around(self, desk: Desk) -> None:
        greedy, modest = uuid7(), uuid7()
        rooms = [uuid7() for _ in range(3)]
        desk.store.gate.clear()
        tasks = desk.start([draft(OTHER, "a"), draft(THIRD, "b")])
        await until_quiet()
        tasks += desk.start(draft(rooms[n % 3], str(n), client=greedy) for n in range(90))
        tasks += desk.start(draft(uuid7(), str(n), client=modest) for n in range(40))
        await until_quiet()
        desk.store.gate.set()
        await asyncio.gather(*tasks)
        for at, room in enumerate(rooms):
            assert desk.stored(room) == [str(n) for n in range(90) if n % 3 == at]


class TestAbandoned:
    async def test_what_nobody_waits_for_any_more_is_not_stored(self, desk: Desk) -> None:
        desk.store.gate.clear()
        first = desk.start([draft(OTHER, "a"), draft(THIRD, "b")])
        await until_quiet()
        tasks = desk.start(draft(ROOM, str(n)) for n in range(4))
        await until_quiet()
        tasks[1].cancel()
        tasks[2].cancel()
        await until_quiet()
        desk.store.gate.set()
        await asyncio.gather(*first, *tasks, return_exceptions=True)
        assert desk.stored(ROOM) == ["0", "3"]
        # Nothing of them stays behind: the same id may come again.
        assert seqs(await desk.write(draft(ROOM, "1"))) == [3]

    async def test_a_repeat_that_still_waits_keeps_it_alive(self, desk: Desk) -> None:
        desk.store.gate.clear()
        first = desk.start([draft(OTHER, "a"), draft(THIRD, "b")])
        await until_quiet()
        tasks = desk.start([draft(ROOM, "1"), draft(ROOM, "1")])
        await until_quiet()
        tasks[0].cancel()
        await until_quiet()
        desk.store.gate.set()
        await asyncio.gather(*first)
        assert (await tasks[1]).outcome == "duplicate"
        assert desk.stored(ROOM) == ["1"]

    async def test_giving_up_during_the_call_changes_nothing(self, desk: Desk) -> None:
        desk.store.gate.clear()
        tasks = desk.start([draft(ROOM, "1")])
        await until_quiet()
        tasks[0].cancel()
        desk.store.gate.set()
        await until_quiet()
        assert desk.stored(ROOM) == ["1"]
        assert len(desk.announced) == 1


class TestAnnouncements:
    async def test_each_stored_draft_is_announced_once_in_the_order_of_seqs(
        self, desk: Desk
    ) -> None:
        desk.store.refused["no"] = "room.not_member"
        drafts = [
            draft(ROOM if n % 3 else OTHER, str(n // 2), content="no" if n % 7 == 0 else "yes")
            for n in range(200)
        ]
        await desk.write(*drafts)
        for room in (ROOM, OTHER):
            told = [outcome.seq for each, outcome in desk.announced if each.room_id == room]
            assert told == list(range(1, len(desk.store.log[room]) + 1))
        assert desk.writer.stored == len(desk.announced)


class TestClose:
    async def test_it_stores_what_waits_and_takes_nothing_more(self, desk: Desk) -> None:
        desk.store.gate.clear()
        tasks = desk.start(draft(ROOM, str(n)) for n in range(100))
        await until_quiet()
        closing = asyncio.ensure_future(desk.writer.close())
        await until_quiet()
        with pytest.raises(DrainingError):
            await desk.writer.write(draft(ROOM, "late"))
        desk.store.gate.set()
        await closing
        assert seqs(await asyncio.gather(*tasks)) == list(range(1, 101))

    async def test_what_is_not_stored_in_time_is_told_so(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writing, "CLOSE_S", 0.02)
        desk.store.held = {OTHER}
        tasks = desk.start([draft(OTHER, "lane")])
        await later(0.1)
        desk.store.gate.clear()
        tasks += desk.start(draft(ROOM, str(n)) for n in range(5))
        await until_quiet()
        async with asyncio.timeout(2):
            await desk.writer.close()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(each) for each in outcomes} == {UnavailableError}
        desk.store.gate.set()
        await desk.store.free(OTHER)
        await until_quiet()
        # Told that it was not stored: so it is not stored behind their backs either.
        assert desk.store.log == {}

    async def test_closing_an_idle_writer_takes_no_time(self, desk: Desk) -> None:
        async with asyncio.timeout(0.5):
            await desk.writer.close()
