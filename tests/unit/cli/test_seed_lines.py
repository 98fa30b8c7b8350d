from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import orjson

from chatserver.cli import seed_lines
from chatserver.cli.seed_lines import SIZES
from chatserver.transfer.policies import parsed

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def of(size: str, now: datetime = NOW) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in seed_lines.lines(SIZES[size], now)]


def test_the_same_size_is_the_same_lines() -> None:
    assert of("small") == of("small")
    assert list(seed_lines.documents(SIZES["small"])) == list(seed_lines.documents(SIZES["small"]))


def test_a_larger_size_holds_all_of_a_smaller_one() -> None:
    everything = {orjson.dumps(line) for line in of("medium")}
    assert {orjson.dumps(line) for line in of("small")} < everything
    for smaller, larger in pairwise(SIZES.values()):
        titles = dict(seed_lines.documents(larger))
        assert dict(seed_lines.documents(smaller)).items() < titles.items()


def test_an_import_takes_each_line_and_everyone_who_speaks_is_a_member() -> None:
    lines = of("medium")
    assert all(parsed(1, orjson.dumps(line)) is not None for line in lines)
    people = {line["user_id"] for line in lines if line["type"] == "user"}
    seats = {(line["room_id"], line["user_id"]) for line in lines if line["type"] == "member"}
    assert {user for _, user in seats} <= people
    spoken = {(it["room_id"], it["sender_id"]) for it in lines if it["type"] == "message"}
    reacted = {(it["room_id"], it["user_id"]) for it in lines if it["type"] == "reaction"}
    assert spoken | reacted <= seats


def test_names_and_pairs_of_direct_rooms_are_there_once() -> None:
    lines = of("medium")
    for kind, name in (("user", "user_id"), ("room", "id")):
        counted = Counter(line[name] for line in lines if line["type"] == kind)
        assert set(counted.values()) == {1}
    direct = {it["id"] for it in lines if it.get("room_type") == "direct"}
    seats: dict[str, set[str]] = {}
    for line in lines:
        if line["type"] == "member" and line["room_id"] in direct:
            seats.setdefault(line["room_id"], set()).add(line["user_id"])
    assert {len(pair) for pair in seats.values()} == {2}
    assert len({frozenset(pair) for pair in seats.values()}) == len(direct)


def test_messages_follow_each_other_in_time_and_none_is_of_the_future() -> None:
    rooms: dict[str, list[str]] = {}
    for line in of("medium"):
        if line["type"] == "message":
            rooms.setdefault(line["room_id"], []).append(line["created_at"])
    for times in rooms.values():
        assert all(earlier < later for earlier, later in pairwise(times))
        assert times[-1] < NOW.isoformat()
        assert times[0] > (NOW - timedelta(days=90)).isoformat()


def test_no_two_documents_are_the_same() -> None:
    given = list(seed_lines.documents(SIZES["large"]))
    assert len({title for title, _ in given}) == len({text for _, text in given}) == len(given)
