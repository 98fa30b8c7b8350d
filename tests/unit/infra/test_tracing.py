"""Without a collector; what a collector gets is in tests/e2e/test_observing.py."""

import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from chatserver.infra import tracing

ABOVE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def on() -> Iterator[None]:
    # Nobody listens there.
    tracing.configure("http://127.0.0.1:1", part="test", node_id="a", ratio=1.0)
    yield
    tracing.stop()


def test_while_it_is_off_nothing_is_made_or_carried() -> None:
    assert not tracing.is_on()
    with tracing.span("a", parent=ABOVE) as span:
        span.tell(x=1)
        span.fails("x")
        assert tracing.current() is None
        assert tracing.carried() == {}
        assert span.trace_id == ""
    fact = uuid4()
    tracing.remember({fact: ABOVE})
    assert tracing.remembered(fact) is None


def test_off_it_costs_next_to_nothing() -> None:
    began = time.perf_counter()
    for _ in range(100_000):
        with tracing.span("a"):
            tracing.current()
    assert time.perf_counter() - began < 2


@pytest.mark.usefixtures("on")
def test_a_span_goes_on_with_the_trace_above_it_and_is_carried() -> None:
    with tracing.span("a", parent=ABOVE) as span:
        assert span.trace_id == ABOVE.split("-")[1]
        row = {"x": 1, **tracing.carried()}
        assert tracing.taken_from(row) == tracing.current() != ABOVE
        assert row == {"x": 1}
        with tracing.span("b") as inner:
            assert inner.trace_id == span.trace_id
    assert tracing.current() is None


@pytest.mark.usefixtures("on")
def test_what_a_row_says_that_is_no_trace_is_taken_out_and_ignored() -> None:
    row = {tracing.CARRIED: 5}
    assert tracing.taken_from(row) is None
    assert row == {}


def test_what_is_not_sampled_is_not_carried() -> None:
    tracing.configure("http://127.0.0.1:1", part="test", node_id="a", ratio=0.0)
    try:
        # Whoever calls may say that it is: it is ours to decide.
        with tracing.span("a", parent=ABOVE):
            assert tracing.carried() == {}
    finally:
        tracing.stop()


def test_only_so_many_traces_of_facts_are_remembered(on: None) -> None:
    facts = [uuid4() for _ in range(tracing.REMEMBERED + 5)]
    tracing.remember(dict.fromkeys(facts, ABOVE))
    assert tracing.remembered(facts[0]) is None
    assert tracing.remembered(facts[-1]) == ABOVE


def test_a_collector_that_is_away_does_not_hold_up_the_end() -> None:
    tracing.configure("http://127.0.0.1:1", part="test", node_id="a", ratio=1.0)
    with tracing.span("a"):
        pass
    began = time.monotonic()
    tracing.stop()
    assert time.monotonic() - began < 8
