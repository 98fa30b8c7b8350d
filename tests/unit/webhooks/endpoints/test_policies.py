"""Which events an endpoint wants."""

from typing import Any
from uuid import UUID

import pytest

from chatserver.operations import build_registry
from chatserver.reactions import LATER
from chatserver.webhooks.endpoints.policies import (
    Happened,
    Wish,
    followed,
    types_of,
    wants,
)
from chatserver.webhooks.endpoints.schemas import FACT_TYPES, is_known

ENDPOINT, CLIENT, ROOM, BOT = (UUID(int=n) for n in range(1, 5))


def wish(*patterns: str, **more: Any) -> Wish:
    return Wish(endpoint_id=ENDPOINT, client_id=CLIENT, types=types_of(patterns), **more)


CREATED = Happened(type="message.created", room_id=ROOM, room_type="group", actor_type="user")


@pytest.mark.parametrize(
    ("wished", "happened", "is_wanted"),
    [
        (wish("message.created"), CREATED, True),
        (wish("message.*"), CREATED, True),
        (wish("*"), CREATED, True),
        (wish("message.deleted", "room.*"), CREATED, False),
        (wish("*", room_ids=frozenset({ROOM})), CREATED, True),
        (wish("*", room_ids=frozenset({BOT})), CREATED, False),
        (wish("*", room_types=frozenset({"group"})), CREATED, True),
        (wish("*", room_types=frozenset({"direct"})), CREATED, False),
        (wish("*", bot_ids=frozenset({str(BOT)})), CREATED, False),
        (
            wish("*", bot_ids=frozenset({str(BOT)})),
            Happened(type="message.created", actor_type="bot", actor_id=str(BOT)),
            True,
        ),
        (
            wish("*", bot_ids=frozenset({str(BOT)})),
            Happened(type="message.created", actor_type="user", actor_id=str(BOT)),
            False,
        ),
        (
            wish("*", room_ids=frozenset({ROOM}), room_types=frozenset({"direct"})),
            CREATED,
            False,
        ),
        (wish("*", room_ids=frozenset({ROOM})), Happened(type="endpoint.paused"), False),
        (wish("*"), Happened(type="endpoint.paused", about=str(BOT)), True),
        (wish("*"), Happened(type="endpoint.paused", about=str(ENDPOINT)), False),
        (wish("room.*"), Happened(type="endpoint.test", only_endpoint_id=ENDPOINT), True),
        (wish("*"), Happened(type="endpoint.test", only_endpoint_id=BOT), False),
    ],
)
def test_everything_that_is_given_must_fit(
    wished: Wish, happened: Happened, is_wanted: bool
) -> None:
    assert wants(wished, happened) is is_wanted


@pytest.mark.parametrize("pattern", ["message.created", "message.*", "*", "endpoint.*"])
def test_known_patterns(pattern: str) -> None:
    assert is_known(pattern)


@pytest.mark.parametrize(
    "pattern", ["", "message", "message.", "messages.*", "typing.state", "**", "*.created", ".*"]
)
def test_unknown_patterns(pattern: str) -> None:
    # `messages.*` would be `messages.erased` alone; that is known, so it is allowed.
    assert is_known(pattern) is (pattern == "messages.*")


def test_what_a_client_follows_is_the_sum_of_its_endpoints() -> None:
    assert followed([wish("message.created"), wish("pin.*")]) == ["message.created", "pin.changed"]
    assert followed([]) == []
    assert followed([wish("*")]) == sorted(FACT_TYPES)


def test_every_fact_that_the_log_keeps_can_be_followed_and_has_its_place_in_the_table() -> None:
    logged = {name for name, spec in build_registry().facts.items() if spec.sequenced}
    assert logged <= FACT_TYPES
    assert set(LATER) >= FACT_TYPES
