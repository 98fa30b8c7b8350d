"""The attack list of JWTs, A13 to A18, and what a good one gives."""

import base64
import hmac
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest

from chatserver.api_keys.errors import AuthExpiredError, AuthInvalidError, AuthRevokedError
from chatserver.api_keys.policies import Accepted
from chatserver.api_keys.tokens import Person, SignedTokens
from chatserver.clients.models import StoredIssuer
from chatserver.clients.policies import token_handle, token_name, token_of
from chatserver.infra.public_keys import PublicKey
from chatserver.kernel.clock import utc_now
from chatserver.kernel.principal import ALL_SCOPES, Scope
from tests.support.issuer import AUDIENCE, ISSUER, Issuer, part

ISSUERS = {"RS256": Issuer(), "ES256": Issuer.elliptic(), "EdDSA": Issuer.edwards()}
RSA = ISSUERS["RS256"]


def stored(issuer: Issuer, **other: Any) -> StoredIssuer:
    made = StoredIssuer(
        id=uuid4(),
        client_id=uuid4(),
        client_slug="acme",
        is_client_active=True,
        client_revoked_before=None,
        origins=(),
        issuer=issuer.name,
        audience=issuer.audience,
        algorithms=(issuer.algorithm,),
        pem=issuer.pem,
        jwks_url=None,
        user_claim="sub",
        scope_claim=None,
        required_claims=(),
    )
    return replace(made, **other)


class World:
    """Who registered what, and who is known."""

    def __init__(self, *registered: StoredIssuer) -> None:
        self.registered = list(registered)
        self.revoked_before: float | None = None
        self.revoked: set[bytes | None] = set()
        self.keys: dict[str | None, PublicKey] = {}
        self.looked_up: list[str] = []
        self.now: Callable[[], datetime] = utc_now
        self.tokens = SignedTokens(
            issuers=self,
            people=self._person,
            find_key=self._key,
            clock=lambda: self.now(),  # noqa: PLW0108 - tests move it
        )

    async def find(
        self, issuer: str, audiences: Sequence[str], handle: bytes | None = None
    ) -> list[StoredIssuer]:
        self.looked_up.append(issuer)
        return [
            replace(it, is_token_revoked=handle in self.revoked)
            for it in self.registered
            if it.issuer == issuer and it.audience in audiences
        ]

    async def _person(self, client_id: UUID, external_id: str) -> Person:
        return Person(UUID(int=1), external_id.title(), self.revoked_before)

    async def _key(self, url: str, kid: str | None, algorithm: str) -> PublicKey | None:
        return self.keys.get(kid)

    async def check(
        self,
        token: str,
        *,
        slug: str | None = None,
        device: str | None = None,
        limbo: bool = False,
    ) -> Accepted:
        return await self.tokens.check(token, client_slug=slug, device_id=device, limbo=limbo)


@pytest.fixture
def world() -> World:
    return World(*(stored(it) for it in [RSA]))


@pytest.mark.parametrize("algorithm", ISSUERS)
async def test_a_good_token_says_who_comes(algorithm: str) -> None:
    issuer = ISSUERS[algorithm]
    accepted = await World(stored(issuer)).check(issuer.token("ann"), device="phone")
    who = accepted.principal
    assert (who.external_id, who.display_name, who.device_id) == ("ann", "Ann", "phone")
    assert (who.kid, who.key_id, who.scopes) == ("", None, ALL_SCOPES)
    assert who.expires_at == pytest.approx(time.time() + 600, abs=2)
    assert 0 < accepted.for_s <= 631


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "application/at+JWT"])
async def test_what_issuers_write_as_type_is_taken(world: World, typ: str | None) -> None:
    await world.check(RSA.token(headers={"typ": typ}))


def forged(header: dict[str, Any], secret: str | bytes = "") -> str:
    """Write a token whose signature is an HMAC, or nothing."""
    signed = f"{part(header)}.{part(RSA.claims())}"
    key = secret if isinstance(secret, bytes) else secret.encode()
    mac = hmac.digest(key, signed.encode(), sha256) if key else b""
    return f"{signed}.{part(mac)}"


def bent(**claims: Any) -> str:
    return RSA.token(**claims)


def spelled(**text: str) -> str:
    """Write claims whose values are JSON texts that no encoder would give."""
    members = {name: f'"{it}"' if isinstance(it, str) else it for name, it in RSA.claims().items()}
    members |= text
    return RSA.sign(part(("{" + ",".join(f'"{k}":{v}' for k, v in members.items()) + "}").encode()))


NOW = int(time.time())
CRLF = RSA.pem.replace("\n", "\r\n")
ATTACKS: dict[str, str] = {
    "A13 alg none": forged({"alg": "none"}),
    "A13 alg None": forged({"alg": "None"}),
    "A13 alg missing": forged({"typ": "JWT"}),
    "A13 HS256 with the public key": forged({"alg": "HS256"}, RSA.pem),
    "A13 HS256 with the public key, CRLF": forged({"alg": "HS256"}, CRLF),
    "A13 HS256 with the public key and blanks": forged({"alg": "HS256"}, f"\n {RSA.pem} \n"),
    "A13 HS256 with the public key's bytes": forged(
        {"alg": "HS256"}, base64.b64decode("".join(RSA.pem.splitlines()[1:-1]))
    ),
    "A13 HS256 called RS256": forged({"alg": "RS256"}, RSA.pem),
    "A13 another algorithm of the same key": RSA.token(headers={"alg": "PS256"}),
    "A13 alg is a list": RSA.token(headers={"alg": ["RS256"]}),
    "A13 alg is an object": RSA.token(headers={"alg": {"RS256": 1}}),
    "A13 alg is null": forged({"alg": None}),
    "A13 RS512": RSA.token(headers={"alg": "RS512"}),
    "A13 ES256 in name only": RSA.token(headers={"alg": "ES256"}),
    "A14 unknown crit": RSA.token(headers={"crit": ["exp2"], "exp2": 1}),
    "A14 empty crit": RSA.token(headers={"crit": []}),
    "A14 b64 false": RSA.token(headers={"b64": False, "crit": ["b64"]}),
    "A14 jku": RSA.token(headers={"jku": "https://evil.example/keys"}),
    "A14 x5u": RSA.token(headers={"x5u": "https://evil.example/cert"}),
    "A14 x5c": RSA.token(headers={"x5c": ["MIIB"]}),
    "A14 embedded jwk": RSA.token(headers={"jwk": RSA.jwk()}),
    "A14 kid is a list": RSA.token(headers={"kid": ["k1"]}),
    "A14 kid is endless": RSA.token(headers={"kid": "k" * 300}),
    "A14 typ of a logout token": RSA.token(headers={"typ": "logout+jwt"}),
    "A14 typ of a security event": RSA.token(headers={"typ": "secevent+jwt"}),
    "A14 typ of a proof": RSA.token(headers={"typ": "dpop+jwt"}),
    "A14 typ is a list": RSA.token(headers={"typ": ["JWT"]}),
    "A15 no exp": bent(exp=None),
    "A15 no iat": bent(iat=None),
    "A15 no aud": bent(aud=None),
    "A15 no iss": bent(iss=None),
    "A15 no user": bent(sub=None),
    "A15 exp 2099": bent(exp=4070908800),
    "A15 lives 25 hours": bent(exp=NOW + 25 * 3600),
    "A15 ends before it begins": bent(iat=NOW, exp=NOW - 1),
    "A15 nbf in the future": bent(nbf=NOW + 3600),
    "A15 iat in the future": bent(iat=NOW + 3600, exp=NOW + 7200),
    "A15 exp is a text": bent(exp=str(NOW + 600)),
    "A15 exp is a float": bent(exp=NOW + 600.5),
    "A15 exp is 1e308": spelled(exp="1e308"),
    "A15 exp is huge": spelled(exp="9" * 400),
    "A15 exp is true": bent(exp=True),
    "A15 exp is NaN": spelled(exp="NaN"),
    "A15 nbf is a text": bent(nbf="now"),
    "A15 iat is negative": bent(iat=-NOW),
    "A15 another audience": bent(aud="mail"),
    "A15 audience is an object": bent(aud={"chat": 1}),
    "A15 too many audiences": bent(aud=[AUDIENCE] * 21),
    "A15 another issuer": bent(iss="https://evil.example"),
    "A15 issuer is a list": bent(iss=[ISSUER]),
    "A15 NUL in the issuer": bent(iss=ISSUER + "\0"),
    "A15 NUL in an audience": bent(aud=[AUDIENCE, "\0"]),
    "A15 a lone surrogate in the issuer": spelled(iss='"\\ud800"'),
    "A15 a lone surrogate in jti": spelled(jti='"\\ud800"'),
    "A15 jti is a number": bent(jti=7),
    "A15 jti is a list": bent(jti=["a"]),
    "A15 jti is empty": bent(jti=""),
    "A15 jti is endless": bent(jti="j" * 1025),
    "A15 user is a number": bent(sub=7),
    "A15 user has a slash": bent(sub="../admin"),
    "A15 user ends with a newline": bent(sub="alice\n"),
    "A16 junk after the signature": RSA.token() + "AA",
    "A16 padding after the signature": RSA.token() + "==",
    "A16 a newline after the signature": RSA.token() + "\n",
    "A16 a blank before": " " + RSA.token(),
    "A16 a fourth part": RSA.token() + ".AA",
    "A16 another spelling of the last character": RSA.token()[:-1]
    + {"A": "B", "Q": "R", "g": "h", "w": "x"}[RSA.token()[-1]]
    if RSA.token()[-1] in "AQgw"
    else RSA.token() + "A",
    "A17 200 kB": RSA.token(filler="x" * 200_000),
    "A17 5,000 claims": RSA.sign(part(RSA.claims() | {f"c{n}": n for n in range(5000)})),
    "A17 nesting": RSA.sign(part(b"[" * 5000 + b"]" * 5000)),
    "A17 nesting within the limit": RSA.sign(part(b'{"iss":' + b"[" * 2000 + b"]" * 2000 + b"}")),
    "another key": Issuer().token(),
    "an altered claim": ".".join(
        [RSA.token().split(".")[0], part(RSA.claims("root")), RSA.token().split(".")[2]]
    ),
    "no JSON": RSA.sign(part(b"alice")),
    "no object": RSA.sign(part([1])),
    "not UTF-8": RSA.sign(part(b"\xff\xfe")),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_no_attack_gets_in(world: World, attack: str) -> None:
    with pytest.raises(AuthInvalidError) as refused:
        await world.check(ATTACKS[attack], limbo=True)
    assert refused.value.message == "This token is not valid here."


async def test_whatever_is_too_long_or_no_token_is_not_even_looked_up(world: World) -> None:
    for attack in ("A17 200 kB", "A14 jku", "A13 alg none", "A16 padding after the signature"):
        with pytest.raises(AuthInvalidError):
            await world.check(ATTACKS[attack])
    assert world.looked_up == []


async def test_a_key_set_is_never_asked_by_what_the_token_brings(world: World) -> None:
    world.registered = [stored(RSA, pem=None, jwks_url="https://login.example/keys")]
    world.keys = {"k1": RSA.private.public_key()}
    await world.check(RSA.token())
    for kid in ("../../x", "k2", "' or 1=1", None):
        with pytest.raises(AuthInvalidError):
            await world.check(RSA.token(headers={"kid": kid}))


async def test_a_key_of_a_set_serves_its_own_algorithm_only() -> None:
    both = stored(RSA, pem=None, jwks_url="https://x.example", algorithms=("RS256", "ES256"))
    world = World(both)
    world.keys = {"k1": ISSUERS["ES256"].private.public_key()}
    with pytest.raises(AuthInvalidError):
        await world.check(RSA.token())


class TestTimes:
    """A18 and the leeway; the rest of it is an open socket's business."""

    @pytest.mark.parametrize("ago_s", [0, 25])
    async def test_clocks_may_differ_by_thirty_seconds(self, world: World, ago_s: int) -> None:
        accepted = await world.check(bent(iat=int(time.time()) - 100, exp=int(time.time()) - ago_s))
        assert not accepted.in_limbo
        await world.check(bent(iat=int(time.time()) + 25))

    async def test_an_expired_token_says_so(self, world: World) -> None:
        with pytest.raises(AuthExpiredError):
            await world.check(bent(iat=int(time.time()) - 1000, exp=int(time.time()) - 40))

    async def test_it_may_connect_to_be_refreshed_for_ten_minutes(self, world: World) -> None:
        accepted = await world.check(
            bent(iat=int(time.time()) - 1000, exp=int(time.time()) - 40), limbo=True
        )
        assert accepted.in_limbo
        with pytest.raises(AuthExpiredError):
            await world.check(
                bent(iat=int(time.time()) - 1000, exp=int(time.time()) - 700), limbo=True
            )

    async def test_what_was_issued_before_a_revocation_is_void(self, world: World) -> None:
        token = bent()
        world.revoked_before = time.time() + 1
        for limbo in (False, True):
            with pytest.raises(AuthRevokedError):
                await world.check(token, limbo=limbo)
        later = datetime.now(UTC) + timedelta(seconds=20)
        world.now = lambda: later
        await world.check(bent(iat=int(later.timestamp())))

    async def test_a_disabled_client_has_no_users(self, world: World) -> None:
        world.registered = [stored(RSA, is_client_active=False)]
        with pytest.raises(AuthRevokedError):
            await world.check(RSA.token())


class TestOneTokenOfMany:
    async def test_a_token_is_named_by_issuer_and_jti(self, world: World) -> None:
        who = (await world.check(RSA.token(jti="t1"))).principal
        assert who.token == token_name(who.client_id, token_handle(ISSUER, "t1"))
        assert token_of(who.token) == (who.client_id, token_handle(ISSUER, "t1"))
        assert (await world.check(RSA.token())).principal.token == ""

    async def test_it_alone_is_refused_once_it_was_revoked(self, world: World) -> None:
        world.revoked = {token_handle(ISSUER, "t1")}
        for limbo in (False, True):
            with pytest.raises(AuthRevokedError):
                await world.check(RSA.token(jti="t1"), limbo=limbo)
        for other in ("t2", "t1 ", "T1"):
            await world.check(RSA.token(jti=other))
        await world.check(RSA.token())

    async def test_whoever_did_not_sign_it_does_not_learn_that_it_was_revoked(
        self, world: World
    ) -> None:
        world.revoked = {token_handle(ISSUER, "t1")}
        with pytest.raises(AuthInvalidError):
            await world.check(Issuer().token(jti="t1"))

    def test_no_two_tokens_share_a_handle(self) -> None:
        assert token_handle("ab", "c") != token_handle("a", "bc")
        assert token_handle("1|a", "b") != token_handle("1", "|ab")


class TestWhoseItIs:
    async def test_a_slug_decides_between_clients_that_share_an_issuer(self) -> None:
        ours, theirs = stored(RSA), stored(RSA, client_slug="other")
        world = World(ours, theirs)
        with pytest.raises(AuthInvalidError):
            await world.check(RSA.token())
        for client in (ours, theirs):
            accepted = await world.check(RSA.token(), slug=client.client_slug)
            assert accepted.principal.client_id == client.client_id
        with pytest.raises(AuthInvalidError):
            await world.check(RSA.token(), slug="third")

    async def test_the_audience_decides_too(self) -> None:
        ours = stored(RSA)
        world = World(ours, stored(RSA, client_slug="other", audience="mail"))
        accepted = await world.check(RSA.token(aud=[AUDIENCE, "elsewhere"]))
        assert accepted.principal.client_id == ours.client_id


class TestClaims:
    async def test_the_user_and_scopes_are_in_the_claims_that_were_registered(self) -> None:
        world = World(stored(RSA, user_claim="uid", scope_claim="scope"))
        token = RSA.token("ignored", uid="ann", scope="chat:read rooms:read moon:fly")
        who = (await world.check(token)).principal
        assert who.external_id == "ann"
        assert who.scopes == {Scope.CHAT_READ, Scope.ROOMS_READ}
        listed = RSA.token(uid="ann", scope=["chat:write", 7])
        assert (await world.check(listed)).principal.scopes == {Scope.CHAT_WRITE}

    @pytest.mark.parametrize("scope", [None, 7, {"chat:read": True}])
    async def test_no_list_of_scopes_gives_none(self, scope: Any) -> None:
        world = World(stored(RSA, scope_claim="scope"))
        assert (await world.check(RSA.token(scope=scope))).principal.scopes == frozenset()

    async def test_a_required_claim_must_be_there(self) -> None:
        world = World(stored(RSA, required_claims=("tenant",)))
        with pytest.raises(AuthInvalidError):
            await world.check(RSA.token())
        await world.check(RSA.token(tenant="x"))
