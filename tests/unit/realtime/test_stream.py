"""What becomes of holes, of large rooms, and of facts without a place in the order."""

import asyncio

from chatserver.kernel.events import Committed, Effect
from chatserver.kernel.ids import uuid7
from chatserver.realtime.stream import MAX_HELD
from tests.support.realtime import CLIENT, Truth, until, user_id
from tests.support.world import ROOM, Seen, World


def unsequenced(
    type: str,  # noqa: A002
    *,
    room: bool = True,
    audience: tuple[str, ...] = (),
    effect: Effect | None = None,
) -> Committed:
    return Committed(
        client_id=CLIENT,
        room_id=ROOM if room else None,
        seq=None,
        type=type,
        body=b'{"type":"%b"}' % type.encode(),
        effect=effect or Effect(),
        audience=tuple(map(user_id, audience)),
    )


async def test_a_hole_is_waited_for_before_it_is_read() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    world = World(truth, hold_s=0.05)
    ann = await world.connect("ann")
    reads = truth.reads
    second, third = truth.commit(ROOM), truth.commit(ROOM)
    world.recovery.show(third)
    await asyncio.sleep(0.01)
    assert ann.seqs() == []
    world.recovery.show(second)
    assert ann.seqs() == [2, 3]
    await asyncio.sleep(0.1)
    assert truth.reads == reads
    world.stop()


async def test_a_long_hole_is_read_in_pages() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    world = World(truth)
    ann = await world.connect("ann")
    for _ in range(700):
        truth.commit(ROOM)
    world.hub.streams[ROOM].learn(701)
    await until(lambda: ann.seqs() == list(range(2, 702)))
    world.stop()


async def test_more_is_held_back_than_fits_and_still_nothing_is_skipped() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    world = World(truth, hold_s=0.02)
    ann = await world.connect("ann")
    facts = [truth.commit(ROOM) for _ in range(MAX_HELD + 500)]
    for fact in facts[1:]:
        world.recovery.show(fact)
    assert len(world.hub.streams[ROOM]._held) == MAX_HELD
    await until(lambda: ann.seqs() == list(range(2, len(facts) + 2)))
    world.stop()


async def test_a_hole_that_the_log_has_not_closes_the_sockets() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    world = World(truth)
    ann = await world.connect("ann")
    truth.hidden.add((ROOM, 2))
    truth.commit(ROOM)
    world.recovery.show(truth.commit(ROOM))
    await until(lambda: bool(world.closed))
    assert world.closed == [("ann", "epoch.mismatch")]
    assert ann.seqs() == []
    assert ROOM not in world.hub.streams
    world.stop()


async def test_a_log_that_stays_away_closes_the_sockets() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    world = World(truth, patience_s=0.05)
    ann = await world.connect("ann")
    truth.commit(ROOM)
    truth.away = True
    world.recovery.show(truth.commit(ROOM))
    await until(lambda: bool(world.closed))
    assert world.closed == [("ann", "unavailable")]
    assert ann.seqs() == []
    truth.away = False
    world.hub.remove(ann)
    again = await world.connect("ann")
    world.recovery.show(truth.commit(ROOM))
    assert again.seqs() == [4]
    world.stop()


async def test_a_log_that_comes_back_in_time_fills_the_hole() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    world = World(truth)
    ann = await world.connect("ann")
    truth.commit(ROOM)
    truth.away = True
    world.recovery.show(truth.commit(ROOM))
    await asyncio.sleep(0.05)
    truth.away = False
    await until(lambda: ann.seqs() == [2, 3])
    assert world.closed == []
    world.stop()


async def test_a_large_room_lets_others_run_and_keeps_its_order() -> None:
    truth = Truth()
    truth.join(ROOM, *(f"u{count}" for count in range(1200)))
    world = World(truth)
    people = [await world.connect(f"u{count}") for count in range(1200)]
    for _ in range(3):
        world.recovery.show(truth.commit(ROOM))
    assert [seen.seqs() for seen in people].count([]) == 700
    await until(lambda: all(seen.seqs() == [2, 3, 4] for seen in people))
    world.stop()


async def test_who_leaves_a_large_room_sees_that_and_nothing_after() -> None:
    truth = Truth()
    names = [f"u{count}" for count in range(600)]
    truth.join(ROOM, *names)
    world = World(truth)
    people = {name: await world.connect(name) for name in names}
    world.recovery.show(truth.commit(ROOM))
    world.recovery.show(truth.leave(ROOM, "u599"))
    world.recovery.show(truth.commit(ROOM))
    await until(lambda: people["u0"].seqs() == [2, 3, 4])
    assert people["u599"].seqs() == [2, 3]
    world.stop()


async def test_rooms_sees_a_part_of_chat_with_the_same_seqs() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    world = World(truth)
    chat, rooms = await world.connect("ann"), await world.connect("ann", "/rooms")
    for kind in ("message.created", "room.updated", "message.created", "room.updated"):
        world.recovery.show(truth.commit(ROOM, kind))
    assert chat.seqs() == [2, 3, 4, 5]
    assert rooms.seqs() == [3, 5]
    world.stop()


async def test_a_closed_room_is_shown_closed_and_then_forgotten() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    world = World(truth)
    ann = await world.connect("ann")
    world.recovery.show(truth.commit(ROOM, "room.deleted", effect=Effect(closed=True)))
    world.recovery.show(truth.commit(ROOM))
    assert ann.seqs() == [2]
    assert world.hub.streams == {}
    assert world.hub.listeners[user_id("ann")].rooms == {}
    world.stop()


async def test_what_is_about_a_person_goes_to_his_connections_alone() -> None:
    truth = Truth()
    truth.join(ROOM, "ann", "ben")
    world = World(truth)
    ann, ben = await world.connect("ann"), await world.connect("ben")
    notes = await world.connect("ann", "/notifications")
    world.recovery.show(unsequenced("notification.created", room=False, audience=("ann",)))
    world.recovery.show(unsequenced("read.updated", audience=("ann",)))
    assert [fact["type"] for fact in notes.facts] == ["notification.created"]
    assert [fact["type"] for fact in ann.facts] == ["read.updated"]
    assert ben.facts == []
    world.stop()


async def test_what_has_no_seq_does_not_wait_for_a_hole() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    world = World(truth, hold_s=0.05)
    ann = await world.connect("ann")
    truth.commit(ROOM)
    world.recovery.show(truth.commit(ROOM))
    world.recovery.show(unsequenced("typing.state"))
    assert [fact["type"] for fact in ann.facts] == ["typing.state"]
    world.stop()


async def test_a_join_that_the_log_does_not_keep_subscribes_too() -> None:
    truth = Truth()
    truth.commit(ROOM)
    world = World(truth)
    ann = await world.connect("ann")
    truth.members[ROOM][user_id("ann")] = 2
    truth.versions[user_id("ann")] += 1
    joined = Effect(entered=(user_id("ann"),))
    world.recovery.show(unsequenced("member.joined", audience=("ann",), effect=joined))
    await world.settle()
    world.recovery.show(truth.commit(ROOM))
    assert ann.seqs() == [2]
    left = Effect(left=(user_id("ann"),))
    world.recovery.show(unsequenced("member.left", audience=("ann",), effect=left))
    world.recovery.show(truth.commit(ROOM))
    assert ann.seqs() == [2]
    world.stop()


async def test_a_watcher_sees_a_room_until_he_stops() -> None:
    truth = Truth()
    truth.commit(ROOM)
    world = World(truth)
    ann = await world.connect("ann")
    assert await world.memberships.watch(ann, ROOM) == 1
    world.recovery.show(truth.commit(ROOM))
    world.memberships.unwatch(ann, ROOM)
    world.recovery.show(truth.commit(ROOM))
    assert ann.seqs() == [2]
    assert world.hub.streams == {}
    world.stop()


async def test_the_last_connection_takes_its_rooms_with_it() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    world = World(truth)
    first, second = await world.connect("ann"), await world.connect("ann")
    world.hub.remove(first)
    world.recovery.show(truth.commit(ROOM))
    assert (first.seqs(), second.seqs()) == ([], [2])
    world.hub.remove(second)
    assert (world.hub.listeners, world.hub.streams) == ({}, {})
    world.stop()


async def test_a_reference_to_a_large_fact_has_it_read() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    world = World(truth, hold_s=5)
    ann = await world.connect("ann")
    truth.commit(ROOM)
    world.recovery.refer(ROOM, 2)
    await until(lambda: ann.seqs() == [2])
    world.stop()


async def test_a_reference_lets_in_who_is_new() -> None:
    truth = Truth()
    truth.commit(ROOM)
    world = World(truth)
    ann = await world.connect("ann")
    truth.join(ROOM, "ann")
    world.recovery.refer(ROOM, 2, user_id("ann"))
    await world.settle()
    await until(lambda: ann.seqs() == [2])
    world.stop()


async def test_facts_that_come_while_a_users_rooms_are_read_are_not_lost() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    truth.turns = 3
    world = World(truth)
    connecting = asyncio.create_task(world.connect("ann"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert world.recovery.loads == 1
    truth.commit(ROOM)
    world.recovery.refer(ROOM, 2)
    world.recovery.show(truth.commit(ROOM))
    ann = await connecting
    await until(lambda: ann.seqs() == [2, 3])
    world.stop()


async def test_a_log_that_was_rewound_is_followed_from_where_it_is_now() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    world = World(truth)
    ann = await world.connect("ann")
    for _ in range(5):
        world.recovery.show(truth.commit(ROOM))
    assert ann.seqs() == [2, 3, 4, 5, 6]
    world.recovery.reset()
    world.hub.remove(ann)
    del truth.facts[ROOM][2:]
    again = await world.connect("ann")
    world.recovery.show(truth.commit(ROOM))
    assert again.seqs() == [3]
    world.stop()


async def test_a_connection_keeps_what_comes_before_it_is_opened() -> None:
    kept = Seen("ann")
    kept._kept = []
    fact = Truth().commit(uuid7())
    assert fact.room_id is not None
    world = World(Truth())
    world.hub.add(kept)
    world.recovery.show(unsequenced("read.updated", audience=("ann",)))
    assert kept.facts == []
    kept.open()
    assert [each["type"] for each in kept.facts] == ["read.updated"]
    world.stop()


async def test_a_piece_of_an_answer_is_shown_between_its_beginning_and_its_end() -> None:
    truth = Truth()
    truth.join(ROOM, "ann")
    world = World(truth, hold_s=0.05)
    ann = await world.connect("ann")
    begun = truth.commit(ROOM)
    follows = Effect(follows=begun.seq)
    assert begun.seq is not None

    def tell(piece: str) -> None:
        world.recovery.show(unsequenced(piece, effect=follows))
        # In a crowd it goes to some people alone.
        world.recovery.show(unsequenced(f"{piece}.alone", audience=("ann",), effect=follows))

    def heard() -> list[str]:
        return [fact["type"] for fact in ann.facts if fact["type"].startswith("piece")]

    tell("piece.early")
    assert heard() == []
    world.recovery.show(begun)
    tell("piece.one")
    assert heard() == ["piece.one", "piece.one.alone"]
    world.recovery.show(truth.commit(ROOM, effect=Effect(ends=begun.seq)))
    tell("piece.late")
    world.recovery.show(unsequenced("piece.other", effect=Effect(follows=begun.seq - 1)))
    world.recovery.show(truth.commit(ROOM, effect=Effect(resumes=begun.seq)))
    tell("piece.again")
    assert heard()[2:] == ["piece.other", "piece.again", "piece.again.alone"]
    world.stop()
