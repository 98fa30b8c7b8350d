"""No query of the conversation reads more than it gives, whatever the size of the tables."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from chatserver.chat.catch_up import OVERLAP
from chatserver.chat.pointers import PointerRepository
from chatserver.chat.repository import ChatRepository
from chatserver.chat.since import Mark
from chatserver.kernel.principal import Principal
from tests.support.plans import Seeded, plan_of, seed
from tests.support.servers import Database, Servers
from tests.support.talk import Talk, draft_of


@pytest.fixture(scope="module")
def seeded(servers: Servers) -> Iterator[Seeded]:
    address = servers.fresh_database()
    yield seed(address)
    servers.drop(address)


@pytest.fixture
def database(servers: Servers) -> Iterator[Database]:
    """One that no other test has filled: what was deleted still counts where plans are made."""
    made = servers.fresh_database()
    yield made
    servers.drop(made)


class Reading(ChatRepository):
    """Notes what it reads."""

    def __init__(self, talk: Talk) -> None:
        super().__init__(talk.container.database)
        self.statements: list[tuple[str, tuple[object, ...]]] = []

    async def _fetch(
        self, statement: str, *values: object, arriving: bool = False
    ) -> list[asyncpg.Record]:
        self.statements.append((statement, values))
        return await super()._fetch(statement, *values, arriving=arriving)


@pytest.fixture
async def reading(seeded: Seeded) -> AsyncIterator[Reading]:
    talk = Talk(seeded.address)
    yield Reading(talk)
    await talk.stop()


async def plans(reading: Reading, seeded: Seeded) -> list[str]:
    assert reading.statements
    return [await plan_of(seeded.address, *each) for each in reading.statements]


class TestReads:
    async def test_the_log_of_a_room(self, reading: Reading, seeded: Seeded) -> None:
        assert await reading.entries(seeded.room_id, after_seq=3, limit=5, generation=1)
        [plan] = await plans(reading, seeded)
        assert "pk_room_event" in plan
        assert "Seq Scan" not in plan

    @pytest.mark.parametrize(("after", "before"), [(3, None), (None, 8), (None, None)])
    async def test_history_in_both_directions(
        self, reading: Reading, seeded: Seeded, after: int | None, before: int | None
    ) -> None:
        found = await reading.messages(seeded.room_id, floor=1, after=after, before=before, limit=5)
        assert len(found) == 5
        [plan] = await plans(reading, seeded)
        assert "uq_message_room_id_seq" in plan
        assert "Sort" not in plan
        assert "Seq Scan" not in plan

    async def test_one_message(self, reading: Reading, seeded: Seeded) -> None:
        assert await reading.message(seeded.client_id, seeded.message_id)
        [plan] = await plans(reading, seeded)
        assert "Index Scan" in plan
        assert "Seq Scan" not in plan

    @pytest.mark.parametrize("since", [None, Mark(datetime.now(UTC) - timedelta(hours=1), 7, 1)])
    async def test_rooms_that_changed(
        self, reading: Reading, seeded: Seeded, since: Mark | None
    ) -> None:
        await reading.changed_rooms(
            seeded.user_id,
            since=since,
            overlap=OVERLAP,
            after=None,
            named=[seeded.room_id],
            limit=501,
        )
        [plan] = await plans(reading, seeded)
        assert "ix_member_user_id" in plan
        # Mentions are ranges of an index, one per name: unread messages are not looked through.
        assert "pk_mention" in plan
        assert "Index Scan" in plan
        # Who has read how far: people are looked up or all read, as there are few or many of them.
        assert "Seq Scan" not in plan.replace("Seq Scan on app_user", "")

    async def test_rooms_that_one_is_no_longer_in(self, reading: Reading, seeded: Seeded) -> None:
        since = Mark(datetime.now(UTC) - timedelta(hours=2), 7, 1)
        await reading.removed(seeded.user_id, since, overlap=OVERLAP, limit=1001)
        [plan] = await plans(reading, seeded)
        assert "ix_departure_user_id_at" in plan

    async def test_what_the_engine_asks_for(self, reading: Reading, seeded: Seeded) -> None:
        await reading.heads([seeded.room_id] * 3)
        await reading.subscriptions(seeded.user_id)
        await reading.changes(30)
        found = await plans(reading, seeded)
        for plan in found:
            assert "Seq Scan" not in plan
        assert "ix_room_event_created_at" in "".join(found)
        assert "ix_app_user_rooms_changed_at" in "".join(found)


class Pointing(PointerRepository):
    """Notes what it reads and writes."""

    def __init__(self, talk: Talk) -> None:
        super().__init__(talk.container.database)
        self.statements: list[tuple[str, tuple[object, ...]]] = []

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        self.statements.append((statement, values))
        return await super()._fetch(statement, *values)


class TestPointers:
    async def test_reading_and_counting_what_is_unread(self, seeded: Seeded) -> None:
        talk = Talk(seeded.address)
        pointing = Pointing(talk)
        place = (seeded.client_id, seeded.room_id, seeded.user_id)
        assert await pointing.mark_read(*place, 4)
        assert await pointing.mark_unread(*place)
        assert await pointing.state(*place)
        assert (await pointing.totals(seeded.user_id))["total_unread"] > 0
        assert await pointing.unread(seeded.user_id) > 0
        assert await pointing.of_rooms([seeded.room_id], types=["group"], most=100)
        found = [await plan_of(seeded.address, *each) for each in pointing.statements]
        await talk.stop()
        for plan in found:
            assert "Seq Scan" not in plan
        assert all("pk_mention" in plan for plan in found[:4])
        # How far a pointer may go is looked up by the room and the seq; never counted.
        assert "uq_message_room_id_seq" in found[0]
        # All rooms of a person in one statement, however many messages are in them.
        assert "ix_member_user_id" in found[3]
        assert "ix_member_user_id" in found[4]
        assert not any(" on message" in plan for plan in found[1:])


class TestChanges:
    async def test_threads_pins_and_reactions(self, reading: Reading, seeded: Seeded) -> None:
        await reading.thread(seeded.message_id, floor=1, after=None, before=None, limit=5)
        await reading.pins(seeded.room_id, floor=1)
        await reading.shown(
            seeded.user_id, [{"id": str(seeded.message_id), "reactions": [{"emoji": "x"}]}]
        )
        found = await plans(reading, seeded)
        assert all("Seq Scan" not in plan for plan in found[:2])
        assert "ix_message_thread_id_seq" in found[0]
        assert "ix_message_pinned" in found[1]


class TestChatStore:
    @pytest.mark.parametrize("known", ["nothing", "empty", "full"])
    async def test_a_send_reads_a_few_rows_however_much_was_sent_since_its_plan_was_made(
        self, database: Database, talk: Talk, master: Principal, known: str
    ) -> None:
        alice = await talk.user(master, "alice")
        room = await talk.room(alice)
        connection = await asyncpg.connect(database.admin_url)
        try:
            store = ChatRepository(_Only(connection))  # type: ignore[arg-type]  # one connection
            if known != "nothing":
                await store.store([draft_of(alice, room.id, "a")], wait=False)
            if known == "full":
                await self.grow(talk, master.client_id, room.id)
            if known != "nothing":
                await connection.execute("analyze")
            # The plan is made, and kept: else while the tables are as good as empty.
            for n in range(10):
                await store.store([draft_of(alice, room.id, f"a{n}")], wait=False)
            if known != "full":
                await self.grow(talk, master.client_id, room.id)
            await connection.execute("select pg_stat_force_next_flush()")
            async with connection.transaction():
                [first] = await store.store(
                    [draft_of(alice, room.id, "last", reply_to=None)], wait=False
                )
                [second] = await store.store(
                    [draft_of(alice, room.id, "reply", reply_to=first.message_id)], wait=False
                )
                rows = await connection.fetch(
                    "select relname, seq_scan, coalesce(seq_tup_read, 0) as seq_read,"
                    " coalesce(idx_tup_fetch, 0) as idx_read from pg_stat_xact_user_tables"
                )
        finally:
            await connection.close()
        assert (first.outcome, second.outcome) == ("stored", "stored")
        read = {row["relname"]: row["seq_read"] + row["idx_read"] for row in rows}
        assert read["message"] <= 4
        assert read["room"] <= 20
        # Of two thousand: looked up before the lock and behind it.
        assert read["member"] <= 60
        assert {row["relname"] for row in rows if row["seq_scan"]} == set()

    async def grow(self, talk: Talk, client: UUID, room: UUID) -> None:
        await talk.run(
            "insert into message (id, client_id, room_id, seq, msg_no, sender, sender_key,"
            "  client_msg_id, body_hash, content, status, pinned)"
            " select gen_random_uuid(), $1, $2, n, n, 'user', 'x', n, '', 'hi', 'complete', false"
            " from generate_series(100, 5099) n",
            client,
            room,
        )
        await talk.run(
            "insert into app_user (id, client_id, external_id)"
            " select gen_random_uuid(), $1, 'user-' || n from generate_series(1, 2000) n",
            client,
        )
        await talk.run(
            "insert into member (room_id, user_id, client_id, role, is_muted, is_favorite,"
            "  notification_level) select $1, u.id, u.client_id, 'member', false, false, 'all'"
            " from app_user u where u.external_id like 'user-%'",
            room,
        )
        await talk.run("update room set last_seq = 6000, msg_no = 6000 where id = $1", room)


class _Only:
    """A database of one connection."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def fast(self) -> Any:
        return self._connection

    async def writing(self) -> Any:
        return self._connection
