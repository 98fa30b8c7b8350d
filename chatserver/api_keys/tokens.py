"""JWTs of a client's own issuer, as the other identity of its users."""

import base64
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

import jwt
import orjson

from chatserver.api_keys.errors import LOGIN, AuthExpiredError, AuthInvalidError, AuthRevokedError
from chatserver.api_keys.policies import LIMBO_S, Accepted
from chatserver.clients.models import StoredIssuer
from chatserver.clients.policies import token_handle, token_name
from chatserver.clients.schemas import MAX_JTI
from chatserver.infra.public_keys import PublicKey, algorithm_of, read_pem
from chatserver.kernel.clock import Clock
from chatserver.kernel.principal import ALL_SCOPES, Caller, Principal, Scope
from chatserver.kernel.wire import EXTERNAL_ID

MAX_LENGTH: Final = 8_192
LEEWAY_S: Final = 30
LONGEST_LIFE_S: Final = 86_400

_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_NAME: Final = re.compile(EXTERNAL_ID)
_ALGORITHMS: Final = frozenset({"RS256", "ES256", "EdDSA"})
# What a header may say. Keys, addresses of keys and extensions that a token brings along are not
# looked at: a token that has them is none of ours.
_HEADER: Final = frozenset({"alg", "typ", "kid", "cty", "x5t", "x5t#S256"})
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_KID_LENGTH: Final = 256
_MOST_AUDIENCES: Final = 20
# PostgreSQL takes it in no text.
_NUL: Final = "\0"
_SCOPES: Final = {scope.value: scope for scope in Scope}


@dataclass(frozen=True, slots=True)
class Person:
    """The user that a token names. `revoked_before` is in Unix seconds."""

    user_id: UUID
    display_name: str | None
    revoked_before: float | None


class Issuers(Protocol):
    async def find(
        self, issuer: str, audiences: Sequence[str], handle: bytes | None = None
    ) -> list[StoredIssuer]: ...


class People(Protocol):
    async def __call__(self, client_id: UUID, external_id: str) -> Person:
        """Find or make a user."""
        ...


FindKey = Callable[[str, str | None, str], Awaitable[PublicKey | None]]


class SignedTokens:
    """Checks tokens. `find_key` looks into the key set at a URL."""

    def __init__(
        self, *, issuers: Issuers, people: People, find_key: FindKey, clock: Clock
    ) -> None:
        self._issuers = issuers
        self._people = people
        self._find_key = find_key
        self._clock = clock

    async def check(
        self, token: str, *, client_slug: str | None, device_id: str | None, limbo: bool
    ) -> Accepted:
        """Tell whose token it is; `limbo`: accept one that expired a short while ago as that.

        Raises:
            AuthInvalidError: whatever is wrong with it; it isn't said more precisely.
            AuthExpiredError, AuthRevokedError: it was good once.
            UnavailableError: it can't be checked right now.
        """
        header, claimed = _unverified(token)
        handle = _handle(claimed)
        issuer = await self._issuer_of(claimed, client_slug, handle)
        key = await self._key_of(issuer, header)
        claims = _verified(token, key, issuer)
        issued_at, expires_at = self._span(claims)
        if (
            not issuer.is_client_active
            or issuer.is_token_revoked
            or issued_at <= (issuer.client_revoked_before or 0.0)
        ):
            raise AuthRevokedError(action=LOGIN)
        left_s = expires_at - self._clock().timestamp()
        in_limbo = left_s <= -LEEWAY_S
        if in_limbo and not (limbo and left_s > -LIMBO_S):
            raise AuthExpiredError(action=LOGIN)
        # Last, because it makes the user: a token that is not good makes nobody.
        person = await self._person(issuer, claims)
        if issued_at <= (person.revoked_before or 0.0):
            raise AuthRevokedError(action=LOGIN)
        principal = Principal(
            caller=Caller.USER,
            client_id=issuer.client_id,
            client_slug=issuer.client_slug,
            user_id=person.user_id,
            external_id=claims[issuer.user_claim],
            display_name=person.display_name,
            device_id=_device(device_id),
            token="" if handle is None else token_name(issuer.client_id, handle),
            scopes=_scopes(claims, issuer.scope_claim),
            issued_at=float(issued_at),
            # The leeway is for clocks that differ: who comes within it may stay that long.
            expires_at=float(expires_at if left_s > 0 or in_limbo else expires_at + LEEWAY_S),
            origins=issuer.origins,
        )
        return Accepted(principal, max(left_s + LEEWAY_S, 0.0), in_limbo=in_limbo)

    async def _issuer_of(
        self, claimed: Mapping[str, Any], client_slug: str | None, handle: bytes | None
    ) -> StoredIssuer:
        audience = claimed.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        name = claimed.get("iss")
        if (
            not isinstance(name, str)
            or not isinstance(audiences, list)
            or not 0 < len(audiences) <= _MOST_AUDIENCES
            or not all(isinstance(it, str) and _NUL not in it for it in (name, *audiences))
        ):
            raise _invalid()
        found = [
            it
            for it in await self._issuers.find(name, audiences, handle)
            if client_slug is None or it.client_slug == client_slug
        ]
        if not found or len({it.client_id for it in found}) > 1:
            raise _invalid()
        return found[0]

    async def _key_of(self, issuer: StoredIssuer, header: Mapping[str, Any]) -> PublicKey:
        algorithm = header["alg"]
        if algorithm not in issuer.algorithms:
            raise _invalid()
        key = (
            read_pem(issuer.pem)
            if issuer.pem is not None
            else await self._find_key(issuer.jwks_url or "", header.get("kid"), algorithm)
        )
        if key is None or algorithm_of(key) != algorithm:
            raise _invalid()
        return key

    def _span(self, claims: Mapping[str, Any]) -> tuple[int, int]:
        issued_at, expires_at = claims["iat"], claims["exp"]
        not_before = claims.get("nbf", issued_at)
        # A boolean is an int, and a float or a text is what other libraries read differently.
        if not all(type(it) is int for it in (issued_at, expires_at, not_before)):
            raise _invalid()
        latest = self._clock().timestamp() + LEEWAY_S
        if issued_at > latest or not_before > latest or issued_at < 0:
            raise _invalid()
        if not 0 < expires_at - issued_at <= LONGEST_LIFE_S:
            raise _invalid()
        return issued_at, expires_at

    async def _person(self, issuer: StoredIssuer, claims: Mapping[str, Any]) -> Person:
        name = claims[issuer.user_claim]
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise _invalid()
        return await self._people(issuer.client_id, name)


def _unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what a token claims to be, to find whose key decides. Nothing of it is believed."""
    if len(token) > MAX_LENGTH or not token.isascii() or _SHAPE.fullmatch(token) is None:
        raise _invalid()
    try:
        header, claims = (orjson.loads(_decoded(part)) for part in token.split(".")[:2])
        _decoded(token.rpartition(".")[2])
    except (ValueError, RecursionError) as error:
        raise _invalid() from error
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise _invalid()
    kid, algorithm = header.get("kid"), header.get("alg")
    if (
        not header.keys() <= _HEADER
        or not isinstance(algorithm, str)
        or not _is_of_type(header.get("typ"))
        or algorithm not in _ALGORITHMS
        or not (kid is None or (isinstance(kid, str) and len(kid) <= _KID_LENGTH))
    ):
        raise _invalid()
    return header, claims


def _is_of_type(typ: object) -> bool:
    # The same issuer signs other things, too (RFC 8725, 3.11): a logout token is no credential.
    return typ is None or (isinstance(typ, str) and typ.lower() in _TYPES)


def _handle(claimed: Mapping[str, Any]) -> bytes | None:
    """Give what a token is revoked by; None when it has no name of its own."""
    issuer, jti = claimed.get("iss"), claimed.get("jti")
    if jti is None:
        return None
    if not isinstance(jti, str) or not 0 < len(jti) <= MAX_JTI or not isinstance(issuer, str):
        raise _invalid()
    return token_handle(issuer, jti)


def _decoded(part: str) -> bytes:
    # The one spelling of these bytes: a token with junk at its end is another text, and no token.
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != part:
        raise ValueError("is not canonical")
    return decoded


def _verified(token: str, key: PublicKey, issuer: StoredIssuer) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm_of(key)],
            audience=issuer.audience,
            issuer=issuer.issuer,
            options={
                "require": [
                    *("exp", "iat", "iss", "aud", issuer.user_claim),
                    *issuer.required_claims,
                ],
                # Times are judged here, by one clock and more strictly.
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise _invalid() from error
    return claims


def _scopes(claims: Mapping[str, Any], claim: str | None) -> frozenset[Scope]:
    if claim is None:
        return ALL_SCOPES
    given = claims.get(claim, [])
    names = given.split() if isinstance(given, str) else given
    if not isinstance(names, list):
        return frozenset()
    return frozenset(_SCOPES[it] for it in names if isinstance(it, str) and it in _SCOPES)


def _device(device_id: str | None) -> str:
    if device_id is not None and _NAME.fullmatch(device_id) is None:
        raise AuthInvalidError("auth.device_id must be 1 to 128 plain characters.")
    return device_id or ""


def _invalid() -> AuthInvalidError:
    return AuthInvalidError("This token is not valid here.", action=LOGIN)
