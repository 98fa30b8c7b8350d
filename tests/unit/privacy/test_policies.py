"""What quotes a person, and which rows are scrubbed together."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.privacy.policies import answer_quotes, canonical, in_slices


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"user": {"external_id": "ann"}}', True),
        (b'{"items": [["x", "ann"]]}', True),
        (b'{"rooms": {"ann": 1}}', True),
        (b'"ann"', True),
        (b"no json", True),
        (b'{"user_id": "annette", "text": "hello ann"}', False),
        (b"[1, null, true]", False),
        (b"", False),
    ],
)
def test_an_answer_quotes_whoever_is_named_in_it(body: bytes, expected: bool) -> None:
    assert answer_quotes(body, "ann") is expected


def test_a_report_is_written_in_one_way() -> None:
    assert (
        canonical({"b": 1, "a": {"d": "ü", "c": None}}) == '{"a":{"c":null,"d":"ü"},"b":1}'.encode()
    )


@given(
    sizes=st.lists(st.integers(min_value=0, max_value=50), max_size=30),
    most=st.integers(min_value=1, max_value=20),
)
def test_every_row_is_in_a_slice_and_none_is_much_too_long(sizes: list[int], most: int) -> None:
    rooms = [(uuid4(), size) for size in sizes]
    seen: dict[UUID, set[int]] = {room_id: set() for room_id, _ in rooms}
    last = dict(rooms)
    for ids, low, high in in_slices(rooms, most):
        held = 0
        for room_id in ids:
            inside = {seq for seq in range(low, high + 1) if seq <= last[room_id]}
            assert not inside & seen[room_id]
            seen[room_id] |= inside
            held += len(inside)
        assert held <= 2 * most + 1
    assert seen == {room_id: set(range(size + 1)) for room_id, size in rooms}
