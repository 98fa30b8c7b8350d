"""What holds when several processes send, retry and remove at once."""

import asyncio
import random
from collections import Counter
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from chatserver.chat.events import Outcome
from chatserver.kernel.errors import DomainError, UnavailableError
from chatserver.kernel.principal import Principal
from tests.support.servers import Database
from tests.support.talk import Talk, draft_of, holding


async def blocked(talk: Talk, count: int) -> None:
    """Wait until so many sessions wait for a lock."""
    async with asyncio.timeout(5):
        while True:
            [row] = await talk.rows(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
                " and datname = current_database()"
            )
            if row["count"] >= count:
                return
            await asyncio.sleep(0.01)


async def assert_gapless(talk: Talk, room_id: UUID) -> list[str]:
    """Check a room's log as a whole; gives the types of its facts in order."""
    log = await talk.log(room_id)
    assert [row["seq"] for row in log] == list(range(1, len(log) + 1))
    times = [row["created_at"] for row in log]
    assert times == sorted(times)
    [state] = await talk.rows("select last_seq, msg_no from room where id = $1", room_id)
    messages = await talk.rows(
        "select id, seq, msg_no, created_at from message where room_id = $1 order by seq", room_id
    )
    assert state["last_seq"] == len(log)
    assert state["msg_no"] == len(messages)
    assert [row["msg_no"] for row in messages] == list(range(1, len(messages) + 1))
    logged = [
        (row["message_id"], row["seq"], row["created_at"])
        for row in log
        if row["type"] == "message.created"
    ]
    assert logged == [(row["id"], row["seq"], row["created_at"]) for row in messages]
    return [row["type"] for row in log]


def pointers_by_log(
    log: list[dict[str, Any]], people: list[Principal]
) -> dict[str, tuple[int, int]]:
    """Tell from a log alone who is in the room and how far each has read.

    Fails when someone speaks who is not in the room at that place of the log.
    """
    pointers: dict[str, tuple[int, int]] = {who.external_id: (0, 0) for who in people}
    count = 0
    for row in log:
        if row["type"] == "message.created":
            count += 1
            assert row["actor_id"] in pointers
            pointers[row["actor_id"]] = (row["seq"], count)
        elif row["type"] in {"member.left", "member.joined"}:
            [name] = [who.external_id for who in people if str(who.user_id) in row["effect"]]
            if row["type"] == "member.left":
                del pointers[name]
            else:
                # What was said before is no news to whoever comes back.
                pointers[name] = (row["seq"] - 1, count)
    return pointers


class TestTwoProcesses:
    async def test_a_retry_that_overlaps_on_another_node_leaves_no_hole(
        self, talk: Talk, second: Talk, master: Principal, database: Database
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        async with holding(database, room.id):
            # Both wait for the same lock: whoever gets it second must see what the first stored.
            sends = [
                asyncio.ensure_future(node.store(draft_of(alice, room.id, "c1"), wait=True))
                for node in (talk, second)
            ]
            await blocked(talk, 2)
        [[one], [other]] = await asyncio.gather(*sends)
        assert {one.outcome, other.outcome} == {"stored", "duplicate"}
        assert one.message_id == other.message_id
        assert await assert_gapless(talk, room.id) == ["room.created", "message.created"]

    async def test_fifty_parallel_sends_with_one_id_are_one_message(
        self, talk: Talk, second: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        sent = await asyncio.gather(
            *(
                node.send(alice, room.id, client_msg_id="c1")
                for _ in range(25)
                for node in (talk, second)
            )
        )
        assert len({str(each.message.id) for each in sent}) == 1
        assert Counter(each.duplicate for each in sent) == {False: 1, True: 49}
        assert await assert_gapless(talk, room.id) == ["room.created", "message.created"]
        assert len(talk.shown.of(room.id)) + len(second.shown.of(room.id)) == 2

    async def test_a_removal_that_overlaps_a_send_lets_nothing_through_after_it(
        self, talk: Talk, second: Talk, master: Principal, database: Database
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        room = await talk.room(alice, bob)
        async with holding(database, room.id):
            removing = asyncio.ensure_future(talk.remove(alice, room.id, bob))
            await blocked(talk, 1)
            sending = asyncio.ensure_future(
                second.store(draft_of(bob, room.id, "1"), draft_of(alice, room.id, "1"), wait=True)
            )
            await blocked(talk, 2)
        await removing
        assert [each.outcome for each in await sending] == ["room.not_member", "stored"]
        assert await assert_gapless(talk, room.id) == [
            "room.created",
            "member.left",
            "message.created",
        ]

    async def test_batches_of_two_processes_never_wait_for_one_another_in_a_circle(
        self, talk: Talk, second: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        rooms = [(await talk.room(alice)).id for _ in range(10)]

        async def storm(node: Talk, turn: int) -> None:
            order = rooms if turn % 2 else rooms[::-1]
            for n in range(20):
                drafts = [draft_of(alice, room, f"{id(node)}-{turn}-{n}") for room in order]
                outcomes = await node.store(*drafts, wait=True)
                assert {each.outcome for each in outcomes} == {"stored"}

        await asyncio.gather(*(storm(node, turn) for turn in (0, 1) for node in (talk, second)))
        for room_id in rooms[:2]:
            assert len(await assert_gapless(talk, room_id)) == 1 + 80


class TestProperty:
    @pytest.mark.parametrize("seed", [1, 2])
    async def test_sends_retries_and_removals_leave_a_gapless_log(
        self, talk: Talk, second: Talk, master: Principal, seed: int
    ) -> None:
        chance = random.Random(seed)
        people = await talk.users(master, *(f"u{n}" for n in range(6)))
        rooms = [(await talk.room(master, *people)).id for _ in range(2)]
        nodes = [talk, second]

        async def sender(who: Principal) -> None:
            for n in range(25):
                room_id = chance.choice(rooms)
                for _ in range(chance.choice([1, 1, 2, 3])):
                    try:
                        await chance.choice(nodes).send(who, room_id, client_msg_id=str(n))
                    except DomainError as error:
                        assert error.code in {"room.not_member", "room.not_found"}  # noqa: PT017

        async def remover() -> None:
            for _ in range(25):
                room_id, who = chance.choice(rooms), chance.choice(people)
                try:
                    await chance.choice(nodes).remove(master, room_id, who)
                except DomainError as error:
                    assert error.code == "member.not_found"  # noqa: PT017
                await asyncio.sleep(0.01)
                await chance.choice(nodes).invite(master, room_id, who)

        await asyncio.gather(*(sender(who) for who in people), remover(), remover())
        for room_id in rooms:
            await assert_gapless(talk, room_id)
            expected = pointers_by_log(await talk.log(room_id), people)
            pointers = await talk.rows(
                "select u.external_id, m.read_seq, m.read_msg_no from member m"
                " join app_user u on u.id = m.user_id where m.room_id = $1",
                room_id,
            )
            assert {
                row["external_id"]: (row["read_seq"], row["read_msg_no"]) for row in pointers
            } == expected
            sent = await talk.rows(
                "select sender_key, client_msg_id from message where room_id = $1", room_id
            )
            assert len({tuple(row.values()) for row in sent}) == len(sent)

    async def test_twenty_senders_on_two_nodes_make_one_order(
        self, talk: Talk, second: Talk, master: Principal
    ) -> None:
        people = await talk.users(master, *(f"u{n}" for n in range(20)))
        room = await talk.room(master, *people)

        async def sender(who: Principal, node: Talk) -> list[int]:
            return [(await node.send(who, room.id, f"{n}")).message.seq for n in range(20)]

        seqs = await asyncio.gather(
            *(sender(who, (talk, second)[n % 2]) for n, who in enumerate(people))
        )
        assert sorted(seq for own in seqs for seq in own) == list(range(2, 402))
        assert all(own == sorted(own) for own in seqs)
        assert len(await assert_gapless(talk, room.id)) == 401


class TestHeldRoom:
    async def test_sends_to_other_rooms_do_not_wait_for_a_held_one(
        self, talk: Talk, master: Principal, database: Database
    ) -> None:
        alice = await talk.user(master, "alice")
        held, free = await talk.room(alice), await talk.room(alice)
        async with holding(database, held.id):
            waiting = [asyncio.ensure_future(talk.send(alice, held.id, str(n))) for n in range(5)]
            await blocked(talk, 1)
            for n in range(20):
                await talk.send(alice, free.id, str(n))
            assert not any(each.done() for each in waiting)
        sent = await asyncio.gather(*waiting)
        assert [each.message.content for each in sent] == ["0", "1", "2", "3", "4"]
        assert [each.message.seq for each in sent] == [2, 3, 4, 5, 6]

    async def test_whoever_waits_too_long_is_told_and_may_retry(
        self, talk: Talk, master: Principal, database: Database
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        async with holding(database, room.id):
            async with asyncio.timeout(4):
                with pytest.raises(UnavailableError) as caught:
                    await talk.send(alice, room.id, client_msg_id="c1")
            assert isinstance(caught.value.__cause__, asyncpg.LockNotAvailableError)
        assert not (await talk.send(alice, room.id, client_msg_id="c1")).duplicate


class TestHotUpdates:
    async def test_sends_update_a_room_in_place(self, talk: Talk, master: Principal) -> None:
        people = await talk.users(master, *(f"u{n}" for n in range(10)))
        room = await talk.room(master, *people)
        await talk.run("select pg_stat_force_next_flush()")
        before = await self.updates(talk)
        for n in range(500):
            outcome = await talk.store(draft_of(people[n % 10], room.id, str(n)))
            assert isinstance(outcome[0], Outcome)
        after = await self.updates(talk)
        for table in ("room", "member"):
            total, hot = (after[table][at] - before[table][at] for at in (0, 1))
            assert total >= 500
            assert hot / total >= 0.95

    async def updates(self, talk: Talk) -> dict[str, tuple[int, int]]:
        pool = await talk.container.database.writing()
        async with pool.acquire() as connection:
            # Each session reports its own counts, at the latest a second after it was busy.
            await asyncio.sleep(1.1)
            await connection.execute("select pg_stat_force_next_flush()")
            rows = await connection.fetch(
                "select relname, n_tup_upd, n_tup_hot_upd from pg_stat_user_tables"
                " where relname in ('room', 'member')"
            )
        return {row["relname"]: (row["n_tup_upd"], row["n_tup_hot_upd"]) for row in rows}
