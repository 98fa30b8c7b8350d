"""A cursor brings what changed since it was made: not less, and not what was told already."""

import asyncio

import asyncpg
import orjson

from chatserver.chat.schemas import Sync, Synced
from chatserver.kernel.principal import Principal
from tests.support.servers import Database
from tests.support.talk import Talk

# Without a horizon, cursors tell all of the last minute again; transactions of other tests that
# share the server are over long before.
WITHIN_S = 30


async def sync(talk: Talk, who: Principal, cursor: str | None = None) -> Synced:
    return await talk.container.catch_up.sync(who, Sync(cursor=cursor))


async def told(talk: Talk, who: Principal) -> Synced:
    """Sync until nothing comes any more: what was open at the first cursor's time is over."""
    async with asyncio.timeout(WITHIN_S):
        found = await sync(talk, who)
        while found.rooms or found.joined or found.removed:
            found = await sync(talk, who, found.cursor)
    return found


async def mark(talk: Talk, who: Principal, room: object) -> None:
    await talk.run(
        "update member m set read_seq = r.last_seq, read_msg_no = r.msg_no,"
        " updated_at = clock_timestamp() from room r"
        " where r.id = m.room_id and m.room_id = $1 and m.user_id = $2",
        room,
        who.user_id,
    )


class TestOnlyWhatChanged:
    async def test_a_room_in_which_something_happened(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        rooms = [(await talk.room(alice, bob)).id for _ in range(3)]
        before = await told(talk, alice)
        await talk.send(bob, rooms[1])
        found = await sync(talk, alice, before.cursor)
        assert set(found.rooms) == {str(rooms[1])}
        assert (found.joined, found.removed) == ([], [])

    async def test_a_pointer_that_another_moved(self, talk: Talk, master: Principal) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        rooms = [(await talk.room(alice, bob)).id for _ in range(2)]
        for room in rooms:
            await talk.send(alice, room)
        before = await told(talk, alice)
        await mark(talk, bob, rooms[0])
        found = await sync(talk, alice, before.cursor)
        assert set(found.rooms) == {str(rooms[0])}
        reads = found.rooms[str(rooms[0])].reads
        assert {"user_id": "bob", "read_seq": 2} in (reads or [])

    async def test_a_room_that_one_came_into_and_one_that_one_left(
        self, talk: Talk, master: Principal
    ) -> None:
        alice, bob = await talk.users(master, "alice", "bob")
        old, lasting = (await talk.room(bob, alice)).id, (await talk.room(bob, alice)).id
        before = await told(talk, alice)
        new = (await talk.room(bob, alice)).id
        await talk.remove(bob, old, alice)
        found = await sync(talk, alice, before.cursor)
        assert [one.room.id for one in found.joined] == [new]
        assert [one.room_id for one in found.removed] == [old]
        assert str(lasting) not in found.rooms
        # Reading in it is a change of the room, but no second coming.
        before = await told(talk, alice)
        await mark(talk, alice, new)
        found = await sync(talk, alice, before.cursor)
        assert (set(found.rooms), found.joined, found.removed) == ({str(new)}, [], [])


class TestWhatWasOpen:
    async def test_what_is_committed_later_with_an_earlier_time_is_told(
        self, talk: Talk, master: Principal, database: Database
    ) -> None:
        """Also with the horizon: the number of an open transaction is never below it."""
        alice, bob = await talk.users(master, "alice", "bob")
        room = (await talk.room(alice, bob)).id
        before = await told(talk, alice)
        connection = await asyncpg.connect(database.app_url)
        try:
            async with connection.transaction():
                # In a savepoint, whose number is not in the list of those that are open.
                async with connection.transaction():
                    await connection.execute(
                        "update room set last_event_at = clock_timestamp() where id = $1", room
                    )
                meanwhile = await sync(talk, alice, before.cursor)
                assert meanwhile.rooms == {}
        finally:
            await connection.close()
        assert set((await sync(talk, alice, meanwhile.cursor)).rooms) == {str(room)}


class TestOtherCursors:
    async def test_one_of_another_generation_or_of_before_tells_the_last_minute_again(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = (await talk.room(alice)).id
        before = await told(talk, alice)
        catch_up = talk.container.catch_up
        purpose = f"sync:{alice.client_id}:{alice.user_id}"
        content = catch_up._seal.open(before.cursor, purpose)
        assert content is not None
        since, after, began, generation = orjson.loads(content)
        for older in ([since, after, began, generation + 1], [None, after, began[0]]):
            if older[0] is None:
                older[0] = since[0]
            sealed = catch_up._seal.seal(orjson.dumps(older), purpose)
            assert set((await sync(talk, alice, sealed)).rooms) == {str(room)}
