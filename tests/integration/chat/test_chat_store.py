import asyncio
from uuid import UUID

import asyncpg
import pytest

from chatserver.chat.events import Outcome
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from chatserver.rooms.schemas import RoomRef
from tests.support.servers import Database
from tests.support.talk import Talk, draft_of, holding


def names(outcomes: list[Outcome]) -> list[str]:
    return [each.outcome for each in outcomes]


async def asleep(talk: Talk, master: Principal, room_id: UUID) -> None:
    async with talk.container.open_rooms() as rooms:
        await rooms.deactivate(master, RoomRef(room_id=room_id))


class TestStored:
    async def test_a_message_takes_the_next_seq_and_moves_the_senders_pointer(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        [one] = await talk.store(
            draft_of(alice, room.id, "c1", metadata={"a": 1}, mentions=["bob"])
        )
        assert (one.outcome, one.seq, one.msg_no, one.epoch, one.woke_seq) == (
            "stored",
            2,
            1,
            1,
            None,
        )
        [kept] = await talk.rows("select * from message where room_id = $1", room.id)
        assert kept["id"] == one.message_id
        assert (kept["seq"], kept["msg_no"], kept["content"], kept["sender_id"]) == (
            2,
            1,
            "hi",
            "alice",
        )
        assert kept["created_at"] == one.ts
        event = (await talk.log(room.id))[-1]
        assert (event["seq"], event["type"], event["message_id"], event["data"]) == (
            2,
            "message.created",
            one.message_id,
            None,
        )
        assert event["created_at"] == one.ts
        [state] = await talk.rows("select * from room where id = $1", room.id)
        assert (state["last_seq"], state["msg_no"], state["last_activity_at"]) == (2, 1, one.ts)
        pointers = await talk.rows(
            "select user_id, read_seq, read_msg_no from member where room_id = $1", room.id
        )
        assert {row["user_id"]: (row["read_seq"], row["read_msg_no"]) for row in pointers} == {
            alice.user_id: (2, 1),
            bob.user_id: (0, 0),
        }

    async def test_what_follows_later_is_kept_in_the_same_transaction(
        self, talk: Talk, master: Principal
    ) -> None:
        [alice] = await talk.users(master, "alice")
        quiet, botted = await talk.room(alice), await talk.room(alice)
        await talk.run("update room set bots = 1 where id = $1", botted.id)
        [one, two] = await talk.store(
            draft_of(alice, quiet.id, "c1"), draft_of(alice, botted.id, "c2")
        )
        assert (one.later, two.later) == (False, True)
        [row] = await talk.rows("select * from outbox")
        assert (row["type"], row["seq"], row["message_id"], row["actor_id"], row["data"]) == (
            "message.created",
            two.seq,
            two.message_id,
            "alice",
            "{}",
        )

    async def test_whoever_follows_hears_of_the_waking_before_the_message(
        self, talk: Talk, master: Principal
    ) -> None:
        [alice] = await talk.users(master, "alice")
        room = await talk.room(alice)
        await asleep(talk, master, room.id)
        await talk.run("update client set followed = '{message.created,room.reactivated}'")
        [one] = await talk.store(draft_of(alice, room.id, "c1"))
        assert one.later
        rows = await talk.rows("select type, seq from outbox order by id")
        assert [(row["type"], row["seq"]) for row in rows] == [
            ("room.reactivated", one.woke_seq),
            ("message.created", one.seq),
        ]

    async def test_a_batch_is_numbered_in_its_own_order(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        one, other = await talk.room(alice, bob), await talk.room(alice)
        drafts = [
            draft_of(alice, one.id, "1"),
            draft_of(alice, other.id, "1"),
            draft_of(bob, one.id, "1"),
            draft_of(alice, one.id, "2"),
            draft_of(alice, other.id, "2"),
        ]
        outcomes = await talk.store(*drafts)
        assert [each.seq for each in outcomes] == [2, 2, 3, 4, 3]
        assert [each.message_id for each in outcomes] == [each.message_id for each in drafts]
        pointers = await talk.rows(
            "select user_id, read_seq from member where room_id = $1", one.id
        )
        assert {row["user_id"]: row["read_seq"] for row in pointers} == {
            alice.user_id: 4,
            bob.user_id: 3,
        }

    async def test_the_application_sends_without_being_a_member(
        self, talk: Talk, master: Principal
    ) -> None:
        room = await talk.room(master, *await talk.users(master, "alice"))
        [one] = await talk.store(draft_of(master, room.id, "c1"))
        [again] = await talk.store(draft_of(master, room.id, "c1"))
        assert names([one, again]) == ["stored", "duplicate"]
        assert (await talk.log(room.id))[-1]["actor_type"] == "system"


class TestRepeats:
    async def test_a_retry_gives_the_first_message_and_adds_nothing(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        [first] = await talk.store(draft_of(alice, room.id, "c1"))
        before = await talk.rows("select * from room where id = $1", room.id)
        [again] = await talk.store(draft_of(alice, room.id, "c1"))
        assert (again.outcome, again.message_id, again.seq) == (
            "duplicate",
            first.message_id,
            None,
        )
        assert await talk.rows("select * from room where id = $1", room.id) == before
        assert len(await talk.log(room.id)) == 2

    async def test_the_same_id_with_other_content_is_a_conflict(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        await talk.store(draft_of(alice, room.id, "c1"))
        [other] = await talk.store(draft_of(alice, room.id, "c1", "other"))
        assert other.outcome == "idempotency.conflict"
        assert len(await talk.log(room.id)) == 2

    async def test_ids_belong_to_their_sender_and_room(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        one, other = await talk.room(alice, bob), await talk.room(alice)
        outcomes = await talk.store(
            draft_of(alice, one.id, "c1"),
            draft_of(bob, one.id, "c1"),
            draft_of(master, one.id, "c1"),
            draft_of(alice, other.id, "c1"),
        )
        assert names(outcomes) == ["stored"] * 4

    async def test_the_same_id_twice_in_one_call_is_an_error_and_stores_nothing(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        with pytest.raises(asyncpg.UniqueViolationError):
            await talk.store(draft_of(alice, room.id, "c1"), draft_of(alice, room.id, "c1"))
        assert len(await talk.log(room.id)) == 1

    async def test_whoever_left_since_still_learns_that_it_was_stored(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(master, alice)
        [first] = await talk.store(draft_of(alice, room.id, "c1"))
        await talk.remove(master, room.id, alice)
        outcomes = await talk.store(
            draft_of(alice, room.id, "c1"),
            draft_of(alice, room.id, "c1-other"),
        )
        assert names(outcomes) == ["duplicate", "room.not_member"]
        assert outcomes[0].message_id == first.message_id
        [conflict] = await talk.store(draft_of(alice, room.id, "c1", "other"))
        assert conflict.outcome == "room.not_member"


class TestRefused:
    async def test_strangers_learn_nothing_and_former_members_a_little(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        foreign = await talk.client("other")
        mallory = await talk.user(foreign, "mallory")
        room = await talk.room(alice, bob)
        channel = await talk.room(alice, kind="channel")
        await talk.remove(alice, room.id, bob)
        outcomes = await talk.store(
            draft_of(bob, room.id, "1"),
            draft_of(carol, room.id, "1"),
            draft_of(carol, channel.id, "1"),
            draft_of(mallory, room.id, "1"),
            draft_of(mallory, channel.id, "1"),
            draft_of(foreign, room.id, "1"),
            draft_of(alice, uuid7(), "1"),
            draft_of(alice, room.id, "1"),
        )
        assert names(outcomes) == [
            "room.not_member",
            "room.not_found",
            "room.not_member",
            "room.not_found",
            "room.not_found",
            "room.not_found",
            "room.not_found",
            "stored",
        ]
        assert outcomes[-1].seq == 3
        assert len(await talk.log(room.id)) == 3

    async def test_a_deleted_room_is_not_found(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        async with talk.container.open_rooms() as rooms:
            await rooms.delete(alice, RoomRef(room_id=room.id))
        outcomes = await talk.store(draft_of(alice, room.id, "1"), draft_of(master, room.id, "1"))
        assert names(outcomes) == ["room.not_found"] * 2

    async def test_one_answers_only_to_messages_of_the_same_room(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        one, other = await talk.room(alice), await talk.room(alice)
        [first] = await talk.store(draft_of(alice, one.id, "1"))
        outcomes = await talk.store(
            draft_of(alice, one.id, "2", reply_to=first.message_id),
            draft_of(alice, other.id, "1", reply_to=first.message_id),
            draft_of(alice, one.id, "3", reply_to=uuid7()),
            draft_of(alice, one.id, "4"),
        )
        assert names(outcomes) == ["stored", "message.not_found", "message.not_found", "stored"]
        # A refused draft takes no number.
        assert [each.seq for each in outcomes] == [3, None, None, 4]


class TestWaking:
    async def test_a_sleeping_room_wakes_with_a_fact_before_the_message(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        await asleep(talk, master, room.id)
        outcomes = await talk.store(
            draft_of(alice, room.id, "0", reply_to=uuid7()),
            draft_of(alice, room.id, "1"),
            draft_of(bob, room.id, "1"),
        )
        assert [(each.seq, each.msg_no, each.woke_seq) for each in outcomes] == [
            (None, None, None),
            (4, 1, 3),
            (5, 2, None),
        ]
        log = await talk.log(room.id)
        assert [(row["seq"], row["type"], row["actor_id"]) for row in log[2:]] == [
            (3, "room.reactivated", "alice"),
            (4, "message.created", "alice"),
            (5, "message.created", "bob"),
        ]
        [state] = await talk.rows("select * from room where id = $1", room.id)
        assert state["is_active"]
        assert state["deactivated_at"] is None
        # It will be looked at again, or it would never fall asleep any more.
        assert state["deactivation_check_at"] is not None

    async def test_a_refused_send_or_a_retry_does_not_wake_it(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice)
        await talk.store(draft_of(alice, room.id, "1"))
        await asleep(talk, master, room.id)
        outcomes = await talk.store(draft_of(bob, room.id, "1"), draft_of(alice, room.id, "1"))
        assert names(outcomes) == ["room.not_found", "duplicate"]
        [state] = await talk.rows("select * from room where id = $1", room.id)
        assert (state["is_active"], state["last_seq"]) == (False, 3)

    async def test_a_send_takes_a_warning_back(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        await talk.run("update room set deactivates_at = clock_timestamp() where id = $1", room.id)
        await talk.store(draft_of(alice, room.id, "1"))
        [state] = await talk.rows("select * from room where id = $1", room.id)
        assert state["deactivates_at"] is None


class TestHeldRooms:
    async def test_a_room_that_somebody_holds_is_skipped(
        self, talk: Talk, master: Principal, database: Database
    ) -> None:
        alice = await talk.user(master, "alice")
        one, other = await talk.room(alice), await talk.room(alice)
        async with holding(database, one.id):
            async with asyncio.timeout(1):
                outcomes = await talk.store(
                    draft_of(alice, one.id, "1"),
                    draft_of(alice, other.id, "1"),
                    draft_of(alice, one.id, "2"),
                )
            assert names(outcomes) == ["busy", "stored", "busy"]
        assert names(await talk.store(draft_of(alice, one.id, "1"))) == ["stored"]

    async def test_a_foreign_room_is_not_found_also_while_it_is_held(
        self, talk: Talk, master: Principal, database: Database
    ) -> None:
        room = await talk.room(await talk.user(master, "alice"))
        mallory = await talk.user(await talk.client("other"), "mallory")
        async with holding(database, room.id):
            assert names(await talk.store(draft_of(mallory, room.id, "1"))) == ["room.not_found"]

    @pytest.mark.parametrize("wait", [False, True])
    async def test_strangers_neither_wait_for_a_room_nor_hold_it(
        self, talk: Talk, master: Principal, database: Database, wait: bool
    ) -> None:
        alice, bob, carol = await talk.users(master, "alice", "bob", "carol")
        room = await talk.room(alice, bob)
        [stored] = await talk.store(draft_of(bob, room.id, "1"))
        await talk.remove(alice, room.id, bob)
        async with holding(database, room.id), asyncio.timeout(1):
            outcomes = await talk.store(
                draft_of(carol, room.id, "1"),
                draft_of(bob, room.id, "2"),
                draft_of(bob, room.id, "1"),
                wait=wait,
            )
        assert names(outcomes) == ["room.not_found", "room.not_member", "duplicate"]
        assert outcomes[-1].message_id == stored.message_id

    async def test_who_comes_in_while_the_room_is_held_is_told_to_try_again(
        self, talk: Talk, master: Principal, database: Database
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        async with holding(database, room.id):
            assert names(await talk.store(draft_of(bob, room.id, "1"))) == ["busy"]
        assert names(await talk.store(draft_of(bob, room.id, "1"))) == ["stored"]

    async def test_with_wait_it_waits_until_the_room_is_free(
        self, talk: Talk, master: Principal, database: Database
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        async with holding(database, room.id):
            storing = asyncio.ensure_future(talk.store(draft_of(alice, room.id, "1"), wait=True))
            await asyncio.sleep(0.2)
            assert not storing.done()
        assert names(await storing) == ["stored"]

    async def test_waiting_ends_with_the_lock_timeout(
        self, talk: Talk, master: Principal, database: Database
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        async with holding(database, room.id):
            with pytest.raises(asyncpg.LockNotAvailableError):
                await talk.store(draft_of(alice, room.id, "1"), wait=True)


class TestSeveralClients:
    async def test_one_call_serves_many_clients_and_mixes_none(
        self, talk: Talk, master: Principal
    ) -> None:
        other = await talk.client("other")
        alice, twin = await talk.user(master, "alice"), await talk.user(other, "alice")
        one, two = await talk.room(alice), await talk.room(twin)
        outcomes = await talk.store(
            draft_of(alice, one.id, "1"),
            draft_of(twin, two.id, "1"),
            draft_of(twin, one.id, "2"),
            draft_of(alice, two.id, "2"),
            draft_of(master, one.id, "1"),
        )
        assert names(outcomes) == [
            "stored",
            "stored",
            "room.not_found",
            "room.not_found",
            "stored",
        ]
        kept = await talk.rows("select client_id, room_id from message")
        assert {(row["client_id"], row["room_id"]) for row in kept} == {
            (master.client_id, one.id),
            (other.client_id, two.id),
        }


class TestPoison:
    @pytest.mark.parametrize(
        ("members", "state"),
        [
            ({"content": "a\x00"}, "22"),
            ({"client_msg_id": "x" * 65}, "22"),
            ({"metadata": {"a": "\x00"}}, "22"),
            ({"content": "\ud800"}, "22"),
        ],
    )
    async def test_what_no_row_can_hold_is_that_rows_own_fault(
        self, talk: Talk, master: Principal, members: dict[str, object], state: str
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        good = [draft_of(alice, room.id, str(n)) for n in range(3)]
        bad = draft_of(alice, room.id, **({"client_msg_id": "bad"} | members))  # type: ignore[arg-type]  # on purpose
        with pytest.raises(asyncpg.PostgresError) as caught:
            await talk.store(*good, bad)
        assert str(caught.value.sqlstate).startswith(state)
        outcomes = await asyncio.gather(
            *(talk.container.writer.write(each) for each in (*good, bad)), return_exceptions=True
        )
        assert isinstance(outcomes.pop(), asyncpg.PostgresError)
        assert [each.seq for each in outcomes if isinstance(each, Outcome)] == [2, 3, 4]
