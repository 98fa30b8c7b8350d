"""Whose an address is, how the header fields are written, and who is taken for a guesser."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from chatserver.infra.rate_limits import RateLimiter
from chatserver.infra.secrets import new_master_key
from chatserver.infra.token_buckets import Level, Policy
from chatserver.kernel.errors import DomainError, ErrorKind, RateLimitedError
from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Caller, Principal
from chatserver.setting_groups import Limits, Quotas
from chatserver.transport.limits import Gate, limit_field, network_of, policy_field
from chatserver.transport.numbers import Book

# RFC 9651: a list of strings with parameters whose values are integers.
ITEM = r'"[ !#-\[\]-~]*"(;[a-z*][a-z0-9_\-.*]*=-?[0-9]{1,15})*'
LIST = re.compile(rf"{ITEM}(, {ITEM})*")
CLIENT = uuid7()


class WrongKeyError(DomainError):
    kind = ErrorKind.UNAUTHENTICATED
    code = "auth.invalid"


class OldKeyError(DomainError):
    kind = ErrorKind.UNAUTHENTICATED
    code = "auth.expired"


class Counted:
    """Quotas that count nothing."""

    def exceeded(self, *_: Any) -> None:
        return None

    def spend(self, *_: Any) -> None:
        return


async def nothing(_: UUID) -> Mapping[str, Any]:
    return {}


@pytest.fixture
def gate() -> Gate:
    # Never started: without Redis a node goes on alone, with half of everything.
    limiter = RateLimiter("redis://127.0.0.1:1/0")
    book = Book(nothing, limits=Limits().model_dump(), quotas=Quotas().model_dump())
    return Gate(limiter, book, Counted())  # type: ignore[arg-type]


async def wrong() -> Principal:
    raise WrongKeyError


async def old() -> Principal:
    raise OldKeyError


async def good() -> Principal:
    return Principal(caller=Caller.MASTER, client_id=CLIENT)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:0db8:0001:0002::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("unknown", "unknown"),
    ],
)
def test_an_ipv6_network_of_64_bits_counts_as_one(address: str, network: str) -> None:
    assert network_of(address) == network


def test_both_header_fields_are_well_formed_lists() -> None:
    levels = [
        Level(Policy("requests", 100, 1000), 999, 1),
        Level(Policy("client-requests", 0.5, 30), 0, 60),
    ]
    assert limit_field(levels) == '"requests";r=999;t=1, "client-requests";r=0;t=60'
    assert policy_field(levels) == '"requests";q=1000;w=10, "client-requests";q=30;w=60'
    assert LIST.fullmatch(limit_field(levels))
    assert LIST.fullmatch(policy_field(levels))


class TestGuessing:
    async def guess(self, gate: Gate, token: str, address: str, count: int) -> list[str]:
        codes = []
        for _ in range(count):
            with pytest.raises(DomainError) as refusal:
                await gate.authenticate(token, address, wrong)
            codes.append(refusal.value.code)
        return codes

    async def test_ten_wrong_secrets_of_one_key_are_the_limit(self, gate: Gate) -> None:
        codes = await self.guess(gate, new_master_key().text, "203.0.113.9", 12)
        # Alone, a node allows half: five.
        assert codes == ["auth.invalid"] * 5 + ["rate.limited"] * 7

    async def test_guesses_from_elsewhere_lock_nobody_out(self, gate: Gate) -> None:
        key = new_master_key().text
        await self.guess(gate, key, "203.0.113.9", 40)
        assert (await gate.authenticate(key, "198.51.100.1", good)).client_id == CLIENT

    async def test_whoever_proved_himself_passes_beside_a_guesser(self, gate: Gate) -> None:
        proven = new_master_key().text
        await gate.authenticate(proven, "203.0.113.9", good)
        await self.guess(gate, "some guess", "203.0.113.9", 40)
        assert (await gate.authenticate(proven, "203.0.113.9", good)).client_id == CLIENT
        with pytest.raises(RateLimitedError) as refusal:
            await gate.authenticate(new_master_key().text, "203.0.113.9", good)
        assert refusal.value.retry_after_ms
        assert refusal.value.details["policy"] == "address-failures"

    async def test_addresses_of_one_network_are_one_guesser(self, gate: Gate) -> None:
        for number in range(40):
            with pytest.raises(DomainError):
                await gate.authenticate("some guess", f"2001:db8::{number:x}", wrong)
        with pytest.raises(RateLimitedError):
            await gate.authenticate("another guess", "2001:db8::ffff", good)

    async def test_an_expired_key_in_a_loop_is_no_guess(self, gate: Gate) -> None:
        for _ in range(100):
            with pytest.raises(OldKeyError):
                await gate.authenticate(new_master_key().text, "203.0.113.9", old)

    async def test_a_typo_costs_nothing_and_counts_as_nothing(self, gate: Gate) -> None:
        typo = new_master_key().text[:-1] + "!"
        assert set(await self.guess(gate, typo, "203.0.113.9", 100)) == {"auth.invalid"}


class TestBuckets:
    def user(self, **more: Any) -> Principal:
        given: dict[str, Any] = {"client_id": CLIENT, "user_id": uuid7(), "kid": "k"} | more
        return Principal(caller=Caller.USER, **given)

    def names(self, gate: Gate, principal: Principal, name: str) -> list[str]:
        return [bucket.policy.name for bucket in gate.buckets(principal, "commands", name)]

    def test_a_message_empties_the_buckets_of_key_user_and_client(self, gate: Gate) -> None:
        assert self.names(gate, self.user(), "message.send") == [
            "commands", "user-commands", "client-commands",
            "messages", "user-messages", "client-messages",
        ]  # fmt: skip
        assert self.names(gate, self.user(), "room.join")[3:] == ["joins", "user-joins"]
        assert self.names(gate, self.user(), "read.mark")[3:] == ["reads", "user-reads"]

    def test_a_server_shares_its_clients_limits(self, gate: Gate) -> None:
        master = Principal(caller=Caller.MASTER, client_id=CLIENT)
        assert self.names(gate, master, "message.post") == ["client-commands", "client-messages"]

    def test_two_clients_with_the_same_names_share_nothing(self, gate: Gate) -> None:
        one, other = self.user(), self.user(client_id=uuid7(), kid="l")
        keys = {bucket.key for bucket in gate.buckets(one, "commands", "room.list")}
        assert keys.isdisjoint(
            bucket.key for bucket in gate.buckets(other, "commands", "room.list")
        )

    def test_all_tokens_of_a_user_share_one_bucket(self, gate: Gate) -> None:
        user = uuid7()
        tokens = [self.user(kid="", user_id=user, device_id=f"d{n}") for n in range(2)]
        found = [gate.buckets(token, "commands", "room.list")[0].key for token in tokens]
        assert found[0] == found[1]
