"""What goes on the bus comes off it as it was, and nothing that others put there does."""

from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.infra import tracing
from chatserver.kernel.events import Committed, Effect
from chatserver.kernel.ids import uuid7
from chatserver.realtime import envelope
from chatserver.realtime.envelope import NO_TARGET, ForgedError, Kind, Seal
from chatserver.realtime.ports import Changes, Closing

KEY = b"k" * 32
ids = st.uuids()
effects = st.builds(
    Effect,
    entered=st.lists(ids, max_size=3).map(tuple),
    left=st.lists(ids, max_size=3).map(tuple),
    closed=st.booleans(),
)
facts = st.builds(
    Committed,
    client_id=ids,
    room_id=st.none() | ids.filter(lambda found: found.int != 0),
    seq=st.none() | st.integers(0, 2**62),
    type=st.from_regex(r"[a-z]{1,20}\.[a-z_]{1,20}", fullmatch=True),
    body=st.binary(max_size=200),
    effect=effects,
    audience=st.lists(ids, max_size=4).map(tuple),
)


@given(facts)
def test_a_fact_comes_through_unchanged(fact: Committed) -> None:
    seal = Seal(KEY, b"a")
    target = fact.room_id or uuid7()
    opened = seal.open(seal.close(Kind.FACT, target.bytes, envelope.fact_body(fact)))
    assert (opened.kind, opened.target, opened.origin) == (Kind.FACT, target, seal.origin)
    assert envelope.read_fact(opened.body) == fact


@given(facts)
def test_a_trace_goes_along_and_leaves_the_fact_as_it_is(fact: Committed) -> None:
    assert envelope.trace_of(envelope.fact_body(fact)) is None
    tracing.configure("http://127.0.0.1:1", part="test", node_id="a", ratio=1.0)
    try:
        assert envelope.trace_of(envelope.fact_body(fact)) is None
        with tracing.span("fan-out"):
            traced = tracing.current()
            body = envelope.fact_body(fact)
        assert (envelope.trace_of(body), envelope.read_fact(body)) == (traced, fact)
    finally:
        tracing.stop()


@given(st.binary(max_size=300))
def test_noise_is_no_envelope(noise: bytes) -> None:
    with pytest.raises(ForgedError):
        Seal(KEY, b"a").open(noise)


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_changed_bit_is_noticed_wherever_it_is(at: int, bit: int) -> None:
    seal = Seal(KEY, b"a")
    data = bytearray(seal.close(Kind.REFERENCE, uuid7().bytes, envelope.reference_body(uuid7(), 7)))
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(ForgedError):
        seal.open(bytes(data))


def test_another_deployment_with_another_key_is_a_stranger() -> None:
    data = Seal(b"x" * 32, b"a").close(Kind.CLOSING, NO_TARGET, b"{}")
    with pytest.raises(ForgedError):
        Seal(KEY, b"a").open(data)


def test_whom_it_is_for_can_be_read_without_the_key() -> None:
    room = uuid7()
    assert envelope.target_of(Seal(KEY, b"a").close(Kind.FACT, room.bytes, b"")) == room
    assert envelope.target_of(b"short") is None


def test_a_closing_comes_through_unchanged() -> None:
    for closing in (
        Closing(code="auth.revoked", reason="Gone.", user_id=uuid7()),
        Closing(code="x", reason="y", reconnect="now", after_ms=5, kid="k"),
        Closing(code="auth.revoked", reason="Gone.", token="t"),
    ):
        assert envelope.read_closing(envelope.closing_body(closing)) == closing


def test_only_the_end_of_a_single_token_says_what_the_version_before_does_not_know() -> None:
    by_key = envelope.closing_body(Closing(code="x", reason="y", kid="k"))
    assert "token" not in orjson.loads(by_key)


def test_a_long_change_list_is_split_and_whole() -> None:
    rooms = {uuid7(): count for count in range(4500)}
    users = {uuid7(): 3}
    bodies = list(envelope.change_bodies(Changes(rooms, users)))
    assert len(bodies) == 4
    assert all(len(body) <= envelope.MAX_BYTES for _, body in bodies)
    found: tuple[dict[UUID, int], dict[UUID, int]] = ({}, {})
    for kind, body in bodies:
        changes = envelope.read_changes(kind, body)
        found[0].update(changes.rooms)
        found[1].update(changes.users)
    assert found == (rooms, users)


def test_an_empty_change_list_is_told_too() -> None:
    assert list(envelope.change_bodies(Changes())) == [(Kind.CHANGED_ROOMS, b"")]
