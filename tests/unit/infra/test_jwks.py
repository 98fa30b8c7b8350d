"""Key sets are kept, refreshed, and not asked for at the pleasure of strangers."""

import asyncio

import orjson
import pytest

from chatserver.infra.jwks import Jwks
from chatserver.kernel.errors import UnavailableError
from tests.support.issuer import Issuer

URL = "https://login.example/keys"
FIRST, SECOND = Issuer(), Issuer.elliptic()
SECOND.kid = "k2"


class Source:
    """An issuer's address: what it answers, and how often it was asked."""

    def __init__(self, *issuers: Issuer) -> None:
        self.body = orjson.dumps({"keys": [it.jwk() for it in issuers]})
        self.is_away = False
        self.asked = 0
        self.now = 1000.0
        self.jwks = Jwks(self.fetch, clock=lambda: self.now)

    async def fetch(self, url: str) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise OSError("away")
        return self.body

    async def has(self, kid: str | None, algorithm: str = "RS256") -> bool:
        return await self.jwks.find(URL, kid, algorithm) is not None


async def test_a_key_is_found_by_its_name_and_only_for_its_algorithm() -> None:
    source = Source(FIRST, SECOND)
    assert await source.has("k1")
    assert await source.has("k2", "ES256")
    assert not await source.has("k2", "RS256")
    assert await source.has(None), "the only one of its kind needs no name"
    assert source.asked == 1


async def test_a_set_is_read_once_in_ten_minutes_however_many_ask() -> None:
    source = Source(FIRST)
    await asyncio.gather(*(source.has("k1") for _ in range(50)))
    source.now += 599
    await source.has("k1")
    assert source.asked == 1
    source.now += 2
    await source.has("k1")
    assert source.asked == 2


async def test_an_unknown_name_asks_again_at_most_once_a_minute() -> None:
    source = Source(FIRST)
    assert await source.has("k1")
    for number in range(100):
        assert not await source.has(f"made-up-{number}")
    assert source.asked == 1
    source.body = orjson.dumps({"keys": [FIRST.jwk(), SECOND.jwk()]})
    source.now += 61
    assert await source.has("k2", "ES256"), "the issuer has rotated"
    for number in range(100):
        assert not await source.has(f"made-up-{number}")
    assert source.asked == 2


async def test_an_issuer_that_is_away_locks_nobody_out_for_a_day() -> None:
    source = Source(FIRST)
    assert await source.has("k1")
    source.is_away = True
    for hours in (1, 12, 23):
        source.now = 1000 + hours * 3600
        assert await source.has("k1")
    source.now = 1000 + 25 * 3600
    with pytest.raises(UnavailableError):
        await source.has("k1")
    source.is_away = False
    source.now += 61
    assert await source.has("k1")


async def test_an_issuer_that_was_never_there_is_not_asked_by_everyone() -> None:
    source = Source(FIRST)
    source.is_away = True
    for _ in range(50):
        with pytest.raises(UnavailableError):
            await source.has("k1")
    assert source.asked == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"keys": 7}',
        b'{"keys": []}',
        b'{"keys": [7]}',
        b"\xff",
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}',
        b'{"keys": [{"kty": "RSA"}]}',
        b"[" * 60_000,
    ],
)
async def test_what_is_no_key_set_gives_no_key(body: bytes) -> None:
    source = Source()
    source.body = body
    with pytest.raises(UnavailableError):
        await source.has("k1")


async def test_keys_for_other_purposes_do_not_spoil_the_set() -> None:
    source = Source()
    encryption = {**FIRST.jwk(), "use": "enc", "kid": "k1"}
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}
    source.body = orjson.dumps({"keys": [encryption, secret, SECOND.jwk()]})
    assert await source.has("k2", "ES256")
    assert not await source.has("k1")
