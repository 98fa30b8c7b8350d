"""Who is calling: the check of every credential, for both kinds of door."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, Protocol, TypeAlias

from chatserver.api_keys.errors import (
    LOGIN,
    AuthExpiredError,
    AuthInvalidError,
    AuthMissingError,
    AuthRevokedError,
)
from chatserver.api_keys.policies import Accepted
from chatserver.api_keys.rotation import HandOut, Rotation
from chatserver.clients.models import StoredMasterKey
from chatserver.infra.expiring import Expiring
from chatserver.infra.secrets import (
    MASTER,
    SCOPED,
    Key,
    KeyHasher,
    fingerprint,
    parse_key,
    same_secret,
)
from chatserver.kernel.principal import Caller, Principal
from chatserver.realtime.ports import Closing

Door: TypeAlias = Literal["rest", "socket"]

REMEMBERED: Final = 10_000
REMEMBERED_S: Final = 15.0
CONFIRMED_S: Final = 600.0
STALE: Final = timedelta(hours=1)
_MAX_OPERATOR_KEY: Final = 1024
_DOTS: Final = 2


class MasterKeys(Protocol):
    async def find(self, kid: str) -> StoredMasterKey | None: ...


class ScopedKeys(Protocol):
    async def living(self, kids: Collection[str], *, stale: timedelta) -> dict[str, bool]: ...


class Confirms(Protocol):
    """bcrypt: the slow second look at a master key."""

    async def confirms(self, secret: str, hashed: bytes) -> bool: ...


class Bearers(Protocol):
    """Those who come with a token that their application signed."""

    async def check(
        self, token: str, *, client_slug: str | None, device_id: str | None, limbo: bool
    ) -> Accepted:
        """Tell whose token it is; `limbo`: accept one that expired a short while ago as that."""
        ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """Who came to a socket, and the key that is to be handed out for the one presented."""

    principal: Principal
    handed_out: HandOut | None = None
    in_limbo: bool = False


class Identifier:
    """Tells who presents a credential. One per process; it holds no connection and no transaction.

    `used` is told of every key that was accepted, and must return at once.
    """

    def __init__(
        self,
        *,
        operator_key: str,
        hasher: KeyHasher,
        slow: Confirms,
        masters: MasterKeys,
        scoped: ScopedKeys,
        rotation: Rotation,
        bearers: Bearers,
        used: Callable[[Principal], None],
    ) -> None:
        self._operator_key = operator_key
        self._hasher = hasher
        self._slow = slow
        self._masters = masters
        self._scoped = scoped
        self._rotation = rotation
        self._bearers = bearers
        self._used = used
        self._known: Expiring[bytes, Principal] = Expiring(size=REMEMBERED, ttl_s=REMEMBERED_S)
        self._confirmed: Expiring[bytes, Principal] = Expiring(size=REMEMBERED, ttl_s=CONFIRMED_S)
        self._confirming: dict[bytes, asyncio.Task[bool]] = {}

    async def identify(
        self,
        token: object,
        *,
        door: Door,
        client_slug: str | None = None,
        device_id: str | None = None,
    ) -> Principal:
        """Check a credential; no key is rotated by that.

        REST remembers a good one for 15 s at most; a socket always asks PostgreSQL. `client_slug`
        says whose issuer a JWT is of, where several clients have it; `device_id` names its device.

        Raises:
            AuthMissingError: there is none.
            AuthInvalidError: it is malformed or unknown, or not for this door.
            AuthExpiredError, AuthRevokedError, AuthReuseDetectedError: it was good once.
            UnavailableError: it can't be checked right now.
        """
        text = _text(token)
        if door == "socket":
            if text.startswith(SCOPED):
                return (await self._check_scoped(parse_key(text))).principal
            _refuse_on_socket(text)
            accepted = await self._bearers.check(
                text, client_slug=client_slug, device_id=device_id, limbo=False
            )
            return accepted.principal
        name = fingerprint(f"{client_slug or ''}\n{text}")
        principal = self._known.get(name)
        if principal is not None:
            self._used(principal)
            return principal
        return await self._in_rest(text, name, client_slug)

    async def connect(
        self, token: object, *, client_slug: str | None = None, device_id: str | None = None
    ) -> Arrival:
        """Check the credential of a socket that connects, and rotate it if it is a rotating key.

        Raises:
            DomainError: as `identify`.
        """
        text = _text(token)
        if not text.startswith(SCOPED):
            _refuse_on_socket(text)
            accepted = await self._bearers.check(
                text, client_slug=client_slug, device_id=device_id, limbo=True
            )
            return Arrival(accepted.principal, in_limbo=accepted.in_limbo)
        key = parse_key(text)
        if key is None:
            raise AuthInvalidError(action=LOGIN)
        accepted, handed_out = await self._rotation.connect(key)
        if not accepted.in_limbo:
            self._used(accepted.principal)
        return Arrival(accepted.principal, handed_out, accepted.in_limbo)

    async def _in_rest(self, token: str, name: bytes, client_slug: str | None) -> Principal:
        drops = self._known.drops
        key = parse_key(token)
        if key is not None and key.is_master:
            accepted = await self._check_master(key, name)
        elif token.startswith(SCOPED):
            accepted = await self._check_scoped(key)
        elif len(token) <= _MAX_OPERATOR_KEY and same_secret(token, self._operator_key):
            return Principal(caller=Caller.OPERATOR)
        elif is_signed(token):
            accepted = await self._bearers.check(
                token, client_slug=client_slug, device_id=None, limbo=False
            )
        else:
            raise AuthInvalidError
        self._known.put(name, accepted.principal, at_most_s=accepted.for_s, drops=drops)
        return accepted.principal

    async def _check_scoped(self, key: Key | None) -> Accepted:
        if key is None:
            raise AuthInvalidError(action=LOGIN)
        _, accepted = await self._rotation.check(key)
        self._used(accepted.principal)
        return accepted

    async def _check_master(self, key: Key, name: bytes) -> Accepted:
        drops = self._confirmed.drops
        stored = await self._masters.find(key.kid)
        is_same = self._hasher.matches(self._hasher.mac(key), stored.mac if stored else None)
        if stored is None or not is_same:
            raise AuthInvalidError
        if stored.is_revoked or not stored.is_client_active:
            raise AuthRevokedError
        if stored.is_expired:
            raise AuthExpiredError
        principal = Principal(
            caller=Caller.MASTER,
            client_id=stored.client_id,
            client_slug=stored.client_slug,
            key_id=stored.key_id,
            kid=stored.kid,
            expires_at=stored.expires_at,
            origins=stored.origins,
        )
        if self._confirmed.get(name) is None:
            if not await self._confirm(name, key, stored.bcrypt_hash):
                raise AuthInvalidError
            self._confirmed.put(name, principal, drops=drops)
        self._used(principal)
        for_s = REMEMBERED_S if stored.ends_in_s is None else stored.ends_in_s
        return Accepted(principal, for_s)

    async def _confirm(self, name: bytes, key: Key, hashed: bytes) -> bool:
        # Many first requests with one key share one look; whoever gives up doesn't end it.
        running = self._confirming.get(name)
        if running is None:
            running = asyncio.create_task(self._confirm_alone(name, key, hashed))
            self._confirming[name] = running
        return await asyncio.shield(running)

    async def _confirm_alone(self, name: bytes, key: Key, hashed: bytes) -> bool:
        try:
            return await self._slow.confirms(key.secret, hashed)
        finally:
            del self._confirming[name]

    def forget(self, closing: Closing) -> None:
        """Forget the keys that a closing concerns. Call it for every closing, of every node."""
        self._known.drop(closing.concerns)
        self._confirmed.drop(closing.concerns)

    async def dead_among(self, kids: Collection[str]) -> set[str]:
        """Tell which keys of open sockets have ended: revoked, expired, or of a disabled client.

        An open socket is use: the others don't expire for idling.

        Raises:
            UnavailableError: it can't be told right now.
        """
        if not kids:
            return set()
        living = await self._scoped.living(kids, stale=STALE)
        for kid, is_stale in living.items():
            if is_stale:
                self._used(Principal(caller=Caller.USER, kid=kid))
        return set(kids) - living.keys()


def _text(token: object) -> str:
    if token is None or token == "":
        raise AuthMissingError
    if not isinstance(token, str):
        raise AuthInvalidError("The key must be text.", action=LOGIN)
    return token


def _refuse_on_socket(token: str) -> None:
    if not is_signed(token):
        raise AuthInvalidError(
            "A socket takes a user's scoped key, as POST /users/{external_id}/login gives it,"
            " or a JWT of the client's issuer.",
            action=LOGIN,
        )


def is_signed(token: str) -> bool:
    """Tell what may be a JWT from what can't be one."""
    return token.count(".") == _DOTS and not token.startswith((SCOPED, MASTER))
