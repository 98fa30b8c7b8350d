"""Offsets: what a client has surely seen, and what it may have missed."""

from typing import Any
from uuid import UUID

import orjson

from chatserver.kernel.clock import utc_now
from chatserver.kernel.events import SYSTEM, encode
from chatserver.kernel.ids import uuid7
from chatserver.realtime.packets import Outgoing, ack_packet, event_packet
from chatserver.realtime.tracked import Claim, TrackedConnection, Tracker, positions
from tests.support.realtime import principal

A, B, C = UUID(int=1), UUID(int=2), UUID(int=3)


def fact(room: UUID, seq: int | None, name: str = "message.created") -> Outgoing:
    body = encode(
        type=name,
        id=uuid7(),
        room_id=room,
        epoch="1.1",
        seq=seq,
        ts=utc_now(),
        actor=SYSTEM,
        data={"text": '","seq":99,'},
    )
    return event_packet("/chat", name, body)


class Outlet:
    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def put_nowait(self, item: Any) -> None:
        self.frames.append(item.frame)

    def arguments(self) -> list[list[Any]]:
        return [
            orjson.loads(frame[frame.index(b"[") :])[1:]
            for frame in self.frames
            if frame.startswith(b"42")
        ]

    def seqs(self) -> list[int]:
        return [given[0]["seq"] for given in self.arguments() if "seq" in given[0]]


def connection(outlet: Outlet, tracker: Tracker | None = None) -> TrackedConnection:
    return TrackedConnection(
        "/chat", principal("ann"), "sid", outlet, tracker=tracker or Tracker("a"), claim=None,
        session=None,
    )  # fmt: skip


class TestPositions:
    def test_what_was_sent_after_the_offset_may_be_missing(self) -> None:
        marks = [("o1", A, 7), ("o2", B, 3), ("o3", A, 8), ("o4", A, 9), ("o5", None, 0)]
        heads = {A: 9, B: 3, C: 5}
        assert positions(marks, heads, "o2") == {A: 7, B: 3, C: 5}
        assert positions(marks, heads, "o1") == {A: 7, B: 2, C: 5}
        assert positions(marks, heads, "o5") == heads

    def test_an_unknown_offset_says_nothing(self) -> None:
        assert positions([("o1", A, 7)], {A: 7}, "o0") is None

    def test_the_place_counts_and_not_the_number(self) -> None:
        assert positions([("a:2", A, 1), ("a:1", A, 2)], {A: 2}, "a:1") == {A: 2}


class TestTracker:
    def test_a_packet_is_numbered_once_for_all_who_get_it(self) -> None:
        tracker, first, second = Tracker("a"), Outlet(), Outlet()
        ann, bob = connection(first, tracker), connection(second, tracker)
        ann.open()
        bob.open()
        packet = fact(A, 1)
        ann.send(packet)
        bob.send(packet)
        assert first.frames == second.frames
        assert first.frames[0] is second.frames[0]
        told, offset = first.arguments()[0]
        assert told["seq"] == 1
        assert offset.startswith("a:")

    def test_only_what_lasts_has_an_offset(self) -> None:
        outlet = Outlet()
        ann = connection(outlet)
        ann.open(event_packet("/chat", "session.ready", b"{}"))
        ann.send(fact(A, None, "typing.state"))
        ann.send(ack_packet("/chat", 1, b'{"ok":true}'))
        ann.send(fact(A, 12))
        assert [len(given) for given in outlet.arguments()] == [2, 1, 2]
        assert [(mark.room_id, mark.seq) for mark in ann.marks] == [(None, 0), (A, 12)]

    def test_a_node_that_was_started_again_repeats_no_offset(self) -> None:
        marks = [Tracker("a").track(fact(A, 1))[1] for _ in range(2)]
        assert marks[0] is not None
        assert marks[1] is not None
        assert marks[0].offset != marks[1].offset


class TestOpening:
    def test_missed_facts_come_first_and_known_ones_never_again(self) -> None:
        outlet = Outlet()
        ann = connection(outlet)
        ann.send(fact(A, 5))  # kept: it came while the past was read
        ann.send(fact(A, 6))
        ann.send(fact(B, 1))
        ann.floors = {A: 5}
        ann.go_on("pid", [fact(A, 4), fact(A, 5)])
        ann.open()
        assert ann.recovered
        assert orjson.loads(ann.greeting())["pid"] == "pid"
        assert outlet.seqs() == [4, 5, 6, 1]

    def test_a_node_that_lags_behind_what_the_client_knows_shows_nothing_twice(self) -> None:
        outlet = Outlet()
        ann = connection(outlet)
        ann.floors = {A: 5}
        ann.go_on("pid", [])
        ann.open()
        for seq in (3, 4, 5, 6, 7):
            ann.send(fact(A, seq))
        assert outlet.seqs() == [6, 7]


def test_a_claim_needs_both_parts() -> None:
    assert Claim.of({"pid": "p", "offset": "o"}) == ("p", "o")
    assert Claim.of({"pid": "p"}) is None
    assert Claim.of({"pid": 1, "offset": "o"}) is None
