"""`sync.tips`: rooms that moved, to their members and watchers, and nothing else."""

from collections.abc import AsyncIterator

import pytest

from chatserver.kernel.clock import utc_now
from chatserver.kernel.ids import uuid7
from chatserver.realtime.tips import Tips
from tests.support.realtime import Truth
from tests.support.world import ROOM, Seen, World

OTHER = uuid7()


@pytest.fixture
async def world(truth: Truth) -> AsyncIterator[World]:
    made = World(truth)
    yield made
    made.stop()


def tips_of(world: World) -> Tips:
    return Tips(recovery=world.recovery, namespace="/chat", clock=utc_now, every_s=4)


def told(seen: Seen) -> list[dict[str, int]]:
    return [
        {room: tip["last_seq"] for room, tip in fact["data"]["rooms"].items()}
        for fact in seen.facts
        if fact["type"] == "sync.tips"
    ]


async def test_only_rooms_that_moved_are_told_and_each_user_once_a_round(
    world: World, truth: Truth
) -> None:
    for room in (ROOM, OTHER):
        truth.join(room, "ann", "bob")
    ann, lobby = await world.connect("ann"), await world.connect("bob", "/rooms")
    tips = tips_of(world)
    for _ in range(4):
        await tips._turn()
    assert told(ann) == []
    for _ in range(3):
        world.recovery.show(truth.commit(ROOM))
    for _ in range(4):
        await tips._turn()
    assert told(ann) == [{str(ROOM): 4}]
    assert told(lobby) == []
    for _ in range(12):
        await tips._turn()
    assert len(told(ann)) <= 2


async def test_a_watched_room_is_told_to_the_connection_that_watches(
    world: World, truth: Truth
) -> None:
    truth.join(ROOM, "bob")
    ann, bystander = await world.connect("ann"), await world.connect("ann")
    await world.memberships.watch(ann, ROOM)
    world.recovery.show(truth.commit(ROOM))
    tips = tips_of(world)
    for _ in range(4):
        await tips._turn()
    assert told(ann) == [{str(ROOM): 2}]
    assert told(bystander) == []
