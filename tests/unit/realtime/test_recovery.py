"""Whatever the bus does to facts, a room's sockets see 1 to N, with membership at its place."""

import asyncio
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from chatserver.kernel.events import Committed
from tests.support.realtime import Truth, user_id
from tests.support.world import ROOM, Seen, World


def places(history: list[Committed], user: UUID, since: int, inside: bool) -> list[int]:
    """The seqs that a user has to see: all while he is in, his joins and his leaves included."""
    found = []
    for fact in history:
        assert fact.seq is not None
        inside = inside or user in fact.effect.entered
        if inside and fact.seq > since:
            found.append(fact.seq)
        inside = inside and user not in fact.effect.left
    return found


FATES = st.sampled_from(["once", "twice", "lost", "late", "early"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["message", "join", "leave"]), st.sampled_from("bcd"), FATES),
    min_size=1,
    max_size=40,
)


def write(truth: Truth, what: str, name: str) -> Committed:
    inside = user_id(name) in truth.members[ROOM]
    if what == "join" and not inside:
        return truth.join(ROOM, name)
    if what == "leave" and inside:
        return truth.leave(ROOM, name)
    return truth.commit(ROOM)


def arrivals(facts: list[tuple[Committed, str]]) -> list[Committed]:
    """Apply fates: some facts come twice, some never, some after or before their neighbours."""
    order: list[tuple[float, Committed]] = []
    for place, (fact, fate) in enumerate(facts):
        if fate == "lost":
            continue
        order.append((place + {"late": 4.5, "early": -4.5}.get(fate, 0), fact))
        if fate == "twice":
            order.append((place + 2.5, fact))
    return [fact for _, fact in sorted(order, key=lambda pair: pair[0])]


@settings(max_examples=150)
@given(steps=STEPS, patience=st.lists(st.booleans(), max_size=60))
def test_every_socket_sees_exactly_its_part_of_the_room_in_order(
    steps: list[tuple[str, str, str]], patience: list[bool]
) -> None:
    async def run() -> None:
        truth = Truth()
        truth.join(ROOM, "a", "b")
        world = World(truth)
        people = {name: await world.connect(name) for name in "abcd"}
        facts = [(write(truth, what, name), fate) for what, name, fate in steps]
        for place, fact in enumerate(arrivals(facts)):
            world.recovery.show(fact)
            if place < len(patience) and patience[place]:
                await asyncio.sleep(0)
        await world.settle()
        history = truth.facts[ROOM]
        for name, seen in people.items():
            assert seen.seqs() == places(history, user_id(name), 1, name in "ab"), name
        assert world.closed == []
        world.stop()

    asyncio.run(run())


@settings(max_examples=150)
@given(steps=STEPS)
def test_a_node_without_the_room_ends_with_the_right_rooms_and_nothing_twice(
    steps: list[tuple[str, str, str]],
) -> None:
    async def run() -> None:
        truth = Truth()
        truth.commit(ROOM)
        world = World(truth)
        people = {name: await world.connect(name) for name in "bcd"}
        facts = [(write(truth, what, name), fate) for what, name, fate in steps]
        for fact in arrivals(facts):
            world.recovery.show(fact)
            await asyncio.sleep(0)
        await world.settle()
        last = len(truth.facts[ROOM])
        for name, seen in people.items():
            seqs = seen.seqs()
            assert seqs == sorted(set(seqs))
            assert set(seqs) <= set(places(truth.facts[ROOM], user_id(name), 0, False))
            joined = truth.members[ROOM].get(user_id(name))
            listener = world.hub.listeners[user_id(name)]
            assert (ROOM in listener.rooms) == (joined is not None)
            if joined is not None:
                assert seqs[-(last - joined + 1) :] == list(range(joined, last + 1))
        world.stop()

    asyncio.run(run())


@settings(max_examples=150)
@given(
    steps=STEPS,
    connects=st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abcd")), max_size=8),
    turns=st.integers(0, 6),
)
def test_who_connects_in_the_middle_misses_nothing_that_is_committed_afterwards(
    steps: list[tuple[str, str, str]], connects: list[tuple[int, str]], turns: int
) -> None:
    async def run() -> None:
        truth = Truth()
        truth.turns = turns
        truth.join(ROOM, "a", "b")
        world = World(truth)
        arrived: list[tuple[str, Seen, int]] = []

        async def connect(name: str) -> None:
            seen = await world.connect(name)
            arrived.append((name, seen, len(truth.facts[ROOM])))

        coming = []
        waiting: list[tuple[int, Committed]] = []
        for place, (what, name, fate) in enumerate(steps):
            coming += [asyncio.create_task(connect(who)) for at, who in connects if at == place]
            fact = write(truth, what, name)
            delays = {"once": [0], "twice": [0, 3], "lost": [], "late": [5], "early": [0]}[fate]
            waiting += [(place + delay, fact) for delay in delays]
            for due, ready in list(waiting):
                if due <= place:
                    waiting.remove((due, ready))
                    world.recovery.show(ready)
            await asyncio.sleep(0)
        for _, late in waiting:
            world.recovery.show(late)
        await asyncio.gather(*coming)
        await world.settle()
        for name, seen, since in arrived:
            seqs = seen.seqs()
            assert seqs == sorted(set(seqs))
            mine = places(truth.facts[ROOM], user_id(name), 0, False)
            assert set(seqs) <= set(mine), name
            joined = truth.members[ROOM].get(user_id(name))
            if joined is not None:
                # Who came and went again while the node was deaf is told nothing of it.
                assert set(seqs) >= {seq for seq in mine if seq > since and seq >= joined}, name
        world.stop()

    asyncio.run(run())
