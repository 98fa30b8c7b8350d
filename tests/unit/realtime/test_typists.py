"""Who is typing, on two nodes that tell each other, with short times."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from chatserver.kernel.ids import uuid7
from chatserver.realtime.hub import Connection
from chatserver.realtime.typists import Timings, Typists
from tests.support.realtime import Truth, until
from tests.support.world import ROOM, Seen, World

SHORT = Timings(start_every_ms=60, ttl_ms=400, told_every_ms=40, users=3, max_online=4)


class Node:
    """One node: its sockets, its picture, and whom it tells."""

    def __init__(self, truth: Truth, others: "list[Node]") -> None:
        self.world = World(truth)
        self.name = uuid7().bytes
        self.reports = 0

        def send(room_id: Any, report: bytes) -> None:
            self.reports += 1
            for other in others:
                if other is not self:
                    other.typists.hear(self.name, room_id, report)

        self.typists = Typists(
            self.world.hub,
            "/chat",
            send=send,
            clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            timings=SHORT,
        )
        self.world.recovery.spoke = self.typists.spoke
        others.append(self)


@pytest.fixture
async def truth() -> Truth:
    made = Truth()
    made.join(ROOM, "alice", "bob", "carol", "dave", "erin")
    return made


@pytest.fixture
async def nodes(truth: Truth) -> AsyncIterator[list[Node]]:
    made: list[Node] = []
    Node(truth, made)
    Node(truth, made)
    yield made
    for node in made:
        node.typists.close()
        node.world.stop()


def states(seen: Seen) -> list[list[str]]:
    return [fact["data"]["users"] for fact in seen.facts if fact.get("type") == "typing.state"]


class TestTypists:
    async def test_the_others_are_told_on_every_node_and_the_typist_is_not(
        self, nodes: list[Node]
    ) -> None:
        alice, bob = [await nodes[0].world.connect(name) for name in ("alice", "bob")]
        carol = await nodes[1].world.connect("carol")
        assert nodes[0].typists.start(alice, ROOM)
        await until(lambda: states(bob) == states(carol) == [["alice"]])
        # Of oneself one is told nothing; what is told is the full set of the others.
        assert states(alice) == [[]]
        assert nodes[1].typists.start(carol, ROOM)
        await until(lambda: states(bob)[-1] == ["alice", "carol"])
        await until(lambda: states(alice)[-1] == ["carol"])
        await until(lambda: states(carol)[-1] == ["alice"])
        fact = next(fact for fact in bob.facts if fact.get("type") == "typing.state")
        assert fact["room_id"] == str(ROOM)
        assert fact["data"] == {"users": ["alice"], "count": 1}
        assert "seq" not in fact

    async def test_it_ends_by_a_word_by_silence_and_by_going(self, nodes: list[Node]) -> None:
        alice, bob = [await nodes[0].world.connect(name) for name in ("alice", "bob")]
        carol = await nodes[1].world.connect("carol")
        nodes[0].typists.start(alice, ROOM)
        await until(lambda: states(carol) == [["alice"]])
        nodes[0].typists.stop(alice, ROOM)
        await until(lambda: states(carol)[-1] == states(bob)[-1] == [])
        nodes[0].typists.start(alice, ROOM)
        await until(lambda: states(carol)[-1] == ["alice"])
        await until(lambda: states(carol)[-1] == [])
        nodes[0].typists.start(alice, ROOM)
        await until(lambda: states(carol)[-1] == ["alice"])
        nodes[0].typists.leave(alice)
        await until(lambda: states(carol)[-1] == [])

    async def test_a_message_ends_it_at_once(self, nodes: list[Node], truth: Truth) -> None:
        alice, bob = [await nodes[0].world.connect(name) for name in ("alice", "bob")]
        nodes[0].typists.start(alice, ROOM)
        await until(lambda: states(bob) == [["alice"]])
        body = orjson.dumps({"seq": 2, "actor": {"type": "user", "id": "alice"}})
        nodes[0].world.recovery.show(replace(truth.commit(ROOM), body=body))
        await until(lambda: states(bob) == [["alice"], []])
        # He may begin again without waiting for the three seconds.
        assert nodes[0].typists.start(alice, ROOM)

    async def test_saying_it_again_too_soon_is_dropped(self, nodes: list[Node]) -> None:
        alice = await nodes[0].world.connect("alice")
        await nodes[1].world.connect("bob")
        assert nodes[0].typists.start(alice, ROOM)
        assert not nodes[0].typists.start(alice, ROOM)
        assert nodes[0].reports == 1
        await asyncio.sleep(SHORT.start_every_ms / 1000)
        assert nodes[0].typists.start(alice, ROOM)

    async def test_in_a_crowd_nobody_is_told(self, nodes: list[Node]) -> None:
        people = [await nodes[0].world.connect(name) for name in ("alice", "bob", "carol")]
        others = [await nodes[1].world.connect(name) for name in ("dave", "erin")]
        nodes[0].typists.start(people[0], ROOM)
        # Both nodes know how many all are, and forget about it.
        await until(lambda: not nodes[0].typists._scenes and not nodes[1].typists._scenes)
        assert [states(each) for each in (*people, *others)] == [[]] * 5

    async def test_strangers_can_t(self, nodes: list[Node]) -> None:
        stranger = await nodes[0].world.connect("stranger")
        for attempt in (nodes[0].typists.start, nodes[0].typists.stop):
            with pytest.raises(LookupError):
                attempt(stranger, ROOM)
        assert nodes[0].typists._scenes == {}

    async def test_nothing_is_left_of_it(self, nodes: list[Node]) -> None:
        alice: Connection = await nodes[0].world.connect("alice")
        await nodes[1].world.connect("bob")
        nodes[0].typists.start(alice, ROOM)
        await until(lambda: bool(nodes[1].typists._scenes))
        nodes[0].typists.leave(alice)
        assert nodes[0].typists._started == {}
