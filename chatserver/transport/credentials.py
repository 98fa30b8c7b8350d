"""What a request says of its sender: a key, an origin, an address."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Protocol, TypeAlias

from aiohttp import web

from chatserver.kernel.principal import Principal
from chatserver.transport.errors import KeyInQueryError, MalformedRequestError, OriginRefusedError

Network: TypeAlias = IPv4Network | IPv6Network

_KEY_NAMES: Final = frozenset(
    {"access_token", "api_key", "apikey", "auth", "authorization", "key", "token", "x-api-key"}
)
_KEY: Final = re.compile(r"cs[mu]_[0-9A-Za-z]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Where a request comes from. `client_slug` is `X-Client`: whose issuer a JWT may be of."""

    address: str
    origin: str | None = None
    client_slug: str | None = None


class Identify(Protocol):
    """Tells who presents a credential."""

    async def __call__(self, token: str | None, sender: Sender) -> Principal:
        """Check a credential; None means that none was presented.

        Raises:
            DomainError: `auth.*`, `unavailable` when it can't be checked now, `rate.limited`.
        """
        ...


def token_of(request: web.Request) -> str | None:
    """Take the key from `Authorization: Bearer` or `X-API-Key`.

    Raises:
        MalformedRequestError: two different keys.
    """
    given = {key.strip() for key in request.headers.getall("X-API-Key", ())}
    for header in request.headers.getall("Authorization", ()):
        scheme, _, value = header.strip().partition(" ")
        if scheme.lower() == "bearer":
            given.add(value.strip())
    given.discard("")
    if len(given) > 1:
        raise MalformedRequestError("The request carries two different keys. Send one.")
    return given.pop() if given else None


def refuse_key_in_query(request: web.Request, known: frozenset[str]) -> None:
    """Refuse a key in the address; `known` are the names that the operation gives a meaning to.

    Raises:
        KeyInQueryError: a key stands there, or something called like one.
    """
    for name, value in request.query.items():
        if (name.lower() in _KEY_NAMES and name not in known) or _KEY.match(value):
            raise KeyInQueryError(
                "Keys do not belong into an address, where logs keep them."
                " Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`. Replace this one.",
                issues=({"field": name[:64], "issue": "is not taken from the query"},),
            )


def check_origin(principal: Principal, origin: str | None) -> None:
    """Hold a browser to the origins that its client allows; servers send none.

    Raises:
        OriginRefusedError: there is a list, and the origin is not on it.
    """
    if origin is None or not principal.origins:
        return
    if origin == "null" or origin not in principal.origins:
        raise OriginRefusedError


def caller_of(request: web.Request, trusted: Sequence[Network]) -> str:
    """Tell the address of a request's caller; `Forwarded` is believed nobody."""
    forwarded_for = ",".join(request.headers.getall("X-Forwarded-For", ()))
    return address_of(request.remote, forwarded_for, trusted)


def address_of(remote: str | None, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """Tell the address of the caller: the last hop that none of our own proxies vouches for.

    `forwarded_for` is `X-Forwarded-For`; it counts only as far as trusted proxies wrote it.
    """
    address = remote or ""
    for hop in reversed([part.strip() for part in forwarded_for.split(",") if part.strip()]):
        if not _is_trusted(address, trusted):
            break
        address = hop
    return address[:64]


def _is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    try:
        known = ip_address(address)
    except ValueError:
        return False
    return any(known in network for network in trusted)
