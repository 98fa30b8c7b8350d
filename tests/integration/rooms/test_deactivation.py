import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from chatserver.kernel.principal import Principal
from chatserver.rooms.repository import RoomRepository
from tests.support.talk import Talk


async def sweep(talk: Talk, limit: int = 100) -> int:
    async with talk.container.open_rooms() as rooms:
        return await rooms.deactivate_due(limit=limit)


async def sweep_all(talk: Talk) -> int:
    looked = 0
    while found := await sweep(talk):
        looked += found
    return looked


async def silent_since(talk: Talk, room_id: UUID, ago: timedelta) -> None:
    """Let a room's last activity be so long ago, and its check be due."""
    await talk.run(
        "update room set last_activity_at = clock_timestamp() - $2::interval,"
        " deactivation_check_at = clock_timestamp() where id = $1",
        room_id,
        ago,
    )


async def state(talk: Talk, room_id: UUID) -> dict[str, Any]:
    [row] = await talk.rows(
        "select *, deactivation_check_at - clock_timestamp() as next,"
        " deactivates_at - clock_timestamp() as ends from room where id = $1",
        room_id,
    )
    return row


def near(found: timedelta, expected: timedelta) -> bool:
    return abs(found - expected) < timedelta(minutes=1)


class TestDeactivateDue:
    @pytest.mark.parametrize(
        ("kind", "days"), [("support", 7), ("group", 30), ("direct", 90), ("channel", 180)]
    )
    async def test_each_type_has_its_time(
        self, talk: Talk, master: Principal, kind: str, days: int
    ) -> None:
        people = await talk.users(master, "alice", "bob")
        room = (await talk.room(*people, kind=kind)).id
        await silent_since(talk, room, timedelta(days=days, minutes=-5))
        await sweep_all(talk)
        kept = await state(talk, room)
        assert kept["is_active"]
        assert near(kept["next"], timedelta(minutes=5))
        await silent_since(talk, room, timedelta(days=days, minutes=5))
        await sweep_all(talk)
        kept = await state(talk, room)
        assert not kept["is_active"]
        assert kept["deactivated_at"] is not None
        assert kept["deactivation_check_at"] is None
        assert [fact["type"] for fact in talk.shown.of(room)] == [
            "room.created",
            "room.deactivating",
            "room.deactivated",
        ]
        assert talk.shown.of(room)[-1]["actor"] == {"type": "system", "id": None}
        assert [row["type"] for row in await talk.log(room)][1:] == [
            "room.deactivating",
            "room.deactivated",
        ]

    async def test_assistant_rooms_never_fall_asleep(self, talk: Talk, master: Principal) -> None:
        room = (await talk.room(master, kind="assistant")).id
        await silent_since(talk, room, timedelta(days=4000))
        assert await sweep_all(talk) == 1
        kept = await state(talk, room)
        assert (kept["is_active"], kept["deactivation_check_at"]) == (True, None)

    async def test_a_client_has_times_of_its_own(self, talk: Talk) -> None:
        quick = await talk.client("quick", room_deactivation={"group": 60, "support": None})
        group, support = await talk.room(quick), await talk.room(quick, kind="support")
        for room in (group, support):
            await silent_since(talk, room.id, timedelta(days=10))
        await sweep_all(talk)
        assert not (await state(talk, group.id))["is_active"]
        assert (await state(talk, support.id))["is_active"]

    async def test_what_is_not_due_is_not_looked_at(self, talk: Talk, master: Principal) -> None:
        room = (await talk.room(master)).id
        assert await sweep_all(talk) == 1
        kept = await state(talk, room)
        assert near(kept["next"], timedelta(days=29))
        assert await sweep_all(talk) == 0
        assert len(talk.shown.of(room)) == 1

    async def test_a_warning_is_given_once_and_says_when_it_ends(
        self, talk: Talk, master: Principal
    ) -> None:
        room = (await talk.room(master)).id
        for _ in range(3):
            await silent_since(talk, room, timedelta(days=29, hours=12))
            await sweep_all(talk)
        warnings = [fact for fact in talk.shown.of(room) if fact["type"] == "room.deactivating"]
        assert len(warnings) == 1
        assert near((await state(talk, room))["ends"], timedelta(hours=12))
        assert warnings[0]["data"]["room"]["deactivates_at"] is not None

    async def test_a_message_takes_the_warning_back_and_the_time_begins_anew(
        self, talk: Talk, master: Principal
    ) -> None:
        alice = await talk.user(master, "alice")
        room = (await talk.room(alice)).id
        await silent_since(talk, room, timedelta(days=29, hours=12))
        await sweep_all(talk)
        await talk.send(alice, room)
        await talk.run("update room set deactivation_check_at = clock_timestamp()")
        await sweep_all(talk)
        kept = await state(talk, room)
        assert (kept["is_active"], kept["deactivates_at"]) == (True, None)
        assert near(kept["next"], timedelta(days=29))

    async def test_a_room_that_woke_is_looked_at_again(self, talk: Talk, master: Principal) -> None:
        alice = await talk.user(master, "alice")
        room = (await talk.room(alice)).id
        for _ in range(2):
            await silent_since(talk, room, timedelta(days=31))
            await sweep_all(talk)
            assert not (await state(talk, room))["is_active"]
            await talk.send(alice, room)
            assert await sweep_all(talk) == 1
            assert near((await state(talk, room))["next"], timedelta(days=29))

    async def test_two_sweepers_at_once_never_take_the_same_room(
        self, talk: Talk, second: Talk, master: Principal
    ) -> None:
        rooms = [(await talk.room(master)).id for _ in range(40)]
        for room in rooms:
            await silent_since(talk, room, timedelta(days=31))
        looked = await asyncio.gather(
            *(sweep(node, 7) for _ in range(5) for node in (talk, second))
        )
        looked.append(await sweep_all(talk))
        assert sum(looked) == 40
        for room in rooms:
            types = [row["type"] for row in await talk.log(room)]
            assert types == ["room.created", "room.deactivated"]

    async def test_a_room_that_somebody_holds_delays_no_other(
        self, talk: Talk, second: Talk, master: Principal
    ) -> None:
        held, free = (await talk.room(master)).id, (await talk.room(master)).id
        for room in (held, free):
            await silent_since(talk, room, timedelta(days=31))
        async with second.container.database.transaction() as session:
            await RoomRepository(session).lock(master.client_id, held)
            async with asyncio.timeout(1):
                assert await sweep_all(talk) == 1
        assert not (await state(talk, free))["is_active"]
        assert await sweep_all(talk) == 1
        assert not (await state(talk, held))["is_active"]

    async def test_slices_go_on_until_nothing_is_due(self, talk: Talk, master: Principal) -> None:
        for _ in range(5):
            await silent_since(talk, (await talk.room(master)).id, timedelta(days=31))
        assert [await sweep(talk, 2) for _ in range(4)] == [2, 2, 1, 0]


class TestRecheck:
    async def test_new_times_reach_rooms_that_were_to_be_looked_at_later_or_never(
        self, talk: Talk, master: Principal
    ) -> None:
        other = await talk.client("other")
        later, never, foreign = [
            (await talk.room(who, kind=kind)).id
            for who, kind in ((master, "group"), (master, "assistant"), (other, "group"))
        ]
        await sweep_all(talk)
        async with talk.container.open_rooms() as rooms:
            assert await rooms.recheck(master.client_id, limit=100) == 2
            assert await rooms.recheck(master.client_id, limit=100) == 0
        assert (await state(talk, foreign))["next"] > timedelta(days=1)
        await talk.run(
            "update client set settings = $1 where id = $2",
            '{"room_deactivation": {"group": 60, "assistant": 60}}',
            master.client_id,
        )
        await talk.run("update room set last_activity_at = clock_timestamp() - interval '1 hour'")
        assert await sweep_all(talk) == 2
        active = {room: (await state(talk, room))["is_active"] for room in (later, never, foreign)}
        assert active == {later: False, never: False, foreign: True}
