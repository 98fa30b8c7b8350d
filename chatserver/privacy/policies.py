"""Pure decisions: does an answer quote a person, what a report says, which rows go together."""

from collections.abc import Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import orjson

# What an answer that quoted the person is replaced by; a retry still gets its first status.
ERASED_ANSWER: Final = b'{"erased":true}'
KEPT: Final = (
    "seq, msg_no and time of each message, so that the rooms' logs stay without gaps",
    "what others wrote, also where their text speaks of the person",
    "titles and metadata of rooms, which belong to the room",
    "one fact messages.erased per room with the external id, so that devices can purge",
)


def quotes(value: Any, name: str) -> bool:  # noqa: ANN401 - any JSON
    """Tell whether a JSON value has the name anywhere, as a whole text or as a member."""
    if isinstance(value, str):
        return value == name
    if isinstance(value, list):
        return any(quotes(each, name) for each in value)
    if isinstance(value, dict):
        return any(key == name or quotes(each, name) for key, each in value.items())
    return False


def answer_quotes(body: bytes, name: str) -> bool:
    """Tell whether a stored answer names the person; one that is no JSON is taken to."""
    if not body:
        return False
    try:
        return quotes(orjson.loads(body), name)
    except orjson.JSONDecodeError:
        return True


def canonical(report: dict[str, Any]) -> bytes:
    """Write a report the one way that is signed."""
    return orjson.dumps(report, option=orjson.OPT_SORT_KEYS)


def in_slices(
    rooms: Sequence[tuple[UUID, int]], most: int
) -> Iterator[tuple[list[UUID], int, int]]:
    """Cut rooms (id, last seq) into (ids, first seq, last seq) of about `most` rows each."""
    together: list[UUID] = []
    rows = 0
    for room_id, last_seq in rooms:
        if last_seq > most:
            for low in range(0, last_seq + 1, most):
                yield [room_id], low, low + most - 1
            continue
        if rows + last_seq > most and together:
            yield together, 0, most
            together, rows = [], 0
        together.append(room_id)
        rows += last_seq + 1
    if together:
        yield together, 0, most
