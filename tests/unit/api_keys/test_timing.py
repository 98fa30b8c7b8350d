"""A3: how long a refusal takes doesn't tell whether there is such a key.

What is compared is the processor time of this thread, of pairs that take turns, so that whatever
else the machine does meets both. That the measure sees what it looks for is shown by a server that
does less for a key that it doesn't know.
"""

import statistics
import time

from chatserver.api_keys.errors import AuthInvalidError
from chatserver.api_keys.models import StoredScopedKey
from chatserver.infra.secrets import Key, new_scoped_key
from tests.unit.api_keys.test_identity import House, stored_scoped

PAIRS = 4_000
# A refusal takes some ten microseconds here (and a statement, which others count). A tenth of that
# nobody hears over a network.
MARGIN = 0.10


def keys() -> tuple[House, Key, Key]:
    """One that was never given out, and one of a family that there is, with another secret."""
    house = House()
    known = new_scoped_key()
    house.scoped.rows[known.kid] = stored_scoped(known)
    return house, new_scoped_key(), new_scoped_key(kid=known.kid)


async def spent(house: House, key: Key) -> int:
    """Give the nanoseconds that the refusal of a key took."""
    began = time.thread_time_ns()
    try:
        await house.identifier.identify(key.text, door="socket")
    except AuthInvalidError:
        return time.thread_time_ns() - began
    raise AssertionError("it was let in")


async def in_turns(house: House, unknown: Key, wrong: Key) -> tuple[list[int], list[int]]:
    times: dict[str, list[int]] = {unknown.kid: [], wrong.kid: []}
    for number in range(PAIRS + 200):
        for key in (unknown, wrong) if number % 2 else (wrong, unknown):
            took = await spent(house, key)
            if number >= 200:  # until then caches get warm
                times[key.kid].append(took)
    return times[unknown.kid], times[wrong.kid]


def gap(one: list[int], other: list[int]) -> float:
    """How far the middles of two distributions are apart, as a share of the second."""
    middle = statistics.median(other)
    return abs(statistics.median(one) - middle) / middle


async def test_an_unknown_key_takes_as_long_as_a_wrong_secret() -> None:
    house, unknown, wrong = keys()
    measured = await in_turns(house, unknown, wrong)
    assert gap(*measured) <= MARGIN  # 0.02 to 0.03, also at load 15


async def test_the_measure_sees_a_server_that_does_less_for_unknown_keys() -> None:
    house, unknown, wrong = keys()
    find = house.scoped.find

    async def hasty(kid: str, gen: int) -> StoredScopedKey | None:
        found = await find(kid, gen)
        if found is None:
            raise AuthInvalidError
        return found

    house.scoped.find = hasty  # type: ignore[method-assign]
    measured = await in_turns(house, unknown, wrong)
    assert gap(*measured) > 2 * MARGIN  # 0.43
