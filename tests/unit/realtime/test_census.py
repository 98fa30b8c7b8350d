"""Counting connections: who is refused, and who has to make room."""

from typing import Any

import pytest

from chatserver.kernel.principal import Caller, Principal
from chatserver.realtime.census import Caps, Census, _surplus
from chatserver.realtime.errors import QuotaExceededError
from chatserver.realtime.ports import Handshake
from chatserver.transport.limits import network_of
from tests.support.realtime import CLIENT, user_id

CAPS = Caps(per_user=4, per_device=2, per_address=3, per_client=5, offences=100)


class Peer:
    """What the census needs of a session."""

    def __init__(self, address: str, active_at: float = 0.0) -> None:
        self.handshake = Handshake({}, address, None)
        self.active_at = active_at
        self.ended = False


class Others:
    """Counts of other nodes, as a test sets them."""

    def __init__(self) -> None:
        self.told: dict[str, int] = {}
        self.counts: dict[str, dict[str, int]] = {}

    async def exchange(self, own: dict[str, int]) -> dict[str, dict[str, int]]:
        self.told = own
        return {subject: self.counts.get(subject, {}) for subject in own}


class Door:
    def __init__(self) -> None:
        self.others = Others()
        self.closed: list[Any] = []
        self.census = Census(
            node_id="b",
            caps=lambda _: CAPS,
            network_of=network_of,
            end=self.end,
            shared=self.others,
        )

    def end(self, session: Any, code: str, reason: str, reconnect: str) -> None:
        assert (code, reconnect) == ("quota.exceeded", "never")
        session.ended = True
        self.closed.append(session)

    def arrive(self, address: str, user: str, device: str = "", active_at: float = 0.0) -> Any:
        peer: Any = Peer(address, active_at)
        self.census.opened(peer)
        principal = Principal(
            caller=Caller.USER, client_id=CLIENT, user_id=user_id(user), device_id=device
        )
        self.census.enter(peer, principal)
        return peer


@pytest.fixture
def door() -> Door:
    return Door()


def test_an_ipv6_network_of_64_bits_is_one_address(door: Door) -> None:
    for number in range(3):
        door.arrive(f"2001:db8::{number}", f"user {number}")
    with pytest.raises(QuotaExceededError) as refusal:
        door.arrive("2001:db8::ffff", "another")
    assert refusal.value.details["policy"] == "connections-per-address"
    door.arrive("2001:db8:0:1::1", "another")


def test_a_full_client_takes_nobody_more_until_one_leaves(door: Door) -> None:
    peers = [door.arrive(f"203.0.113.{number}", f"user {number}") for number in range(5)]
    with pytest.raises(QuotaExceededError):
        door.arrive("198.51.100.1", "late")
    door.census.left(peers[0])
    door.arrive("198.51.100.2", "late")


def test_the_connection_that_was_idle_the_longest_makes_room(door: Door) -> None:
    door.arrive("203.0.113.1", "ann", "phone", active_at=5)
    idle = door.arrive("203.0.113.2", "ann", "phone", active_at=1)
    door.arrive("203.0.113.3", "ann", "phone", active_at=0)
    assert door.closed == [idle]


async def test_what_other_nodes_have_counts(door: Door) -> None:
    for number in range(2):
        door.arrive(f"203.0.113.{number}", "ann", f"d{number}", active_at=number)
    user = f"u:{user_id('ann').hex}"
    door.others.counts = {user: {"a": 3}}
    await door.census.exchange()
    assert door.others.told[user] == 2
    # Five of four: node a has the most, so it is a that closes one.
    assert door.closed == []
    door.arrive("203.0.113.9", "ann", "d9", active_at=9)
    assert [peer.active_at for peer in door.closed] == [0]


def test_all_nodes_agree_on_who_closes_how_many() -> None:
    assert _surplus({"a": 4, "b": 4}, 4) == {"a": 2, "b": 2}
    assert _surplus({"a": 1, "b": 9}, 4) == {"a": 0, "b": 6}
    assert _surplus({"a": 2, "b": 1}, 4) == {"a": 0, "b": 0}
    assert sum(_surplus({"a": 5, "b": 7, "c": 6}, 10).values()) == 8


def test_nothing_is_kept_of_those_who_left(door: Door) -> None:
    for number in range(3):
        door.census.left(door.arrive("203.0.113.1", f"user {number}", "phone"))
    assert door.census._sessions == {}
    assert door.census._subjects == {}


def test_silent_connections_of_an_address_are_bounded(door: Door) -> None:
    for _ in range(20):
        if door.census.may_open("203.0.113.1"):
            silent: Any = Peer("203.0.113.1")
            door.census.opened(silent)
    assert door.census.count("a:203.0.113.1") == 5
