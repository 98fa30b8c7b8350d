"""Which addresses the server may be sent to by someone else's word."""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, TypeAlias
from urllib.parse import urlsplit

Address: TypeAlias = IPv4Address | IPv6Address

_LONGEST_URL: Final = 2048
_LONGEST_HOST: Final = 253
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# The last label of a name has a letter; numbers there are addresses in one of many notations.
_LAST: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PORTS: Final = {"https": 443, "http": 80}
# Ranges that carry an IPv4 address inside, or that no public server has: what they lead to is
# decided by somebody's translator and not by us.
_NEVER_4: Final = tuple(
    IPv4Network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's own service, at an address that looks public
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_NEVER_6: Final = tuple(
    IPv6Network(each)
    for each in (
        "::/96",
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_GLOBAL: Final = IPv6Network("2000::/3")


class AddressRefusedError(Exception):
    """The server does not go there. The text says why, without quoting what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far outgoing requests may reach.

    `private`: anywhere, any port, also without TLS; for development on one machine only.
    `plain_http`: port 80 as well as 443.
    """

    private: bool = False
    plain_http: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A URL that may be asked for, as far as its text tells."""

    url: str
    host: str
    port: int


# The same few addresses are sent to again and again; only their text is looked at here.
@lru_cache(maxsize=4096)
def target_of(url: str, reach: Reach) -> Target:
    """Check the text of a URL.

    Raises:
        AddressRefusedError: it is none, or the server does not go there.
    """
    if len(url) > _LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise AddressRefusedError("must be plain ASCII of at most 2048 characters")
    if "\\" in url:
        raise AddressRefusedError("must not contain a backslash")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise AddressRefusedError("must be a URL like https://example.com/path") from error
    if parts.scheme not in _PORTS or not host:
        raise AddressRefusedError("must be a URL like https://example.com/path")
    if "@" in parts.netloc:
        raise AddressRefusedError("must not carry a user or a password")
    if "[" in parts.netloc and ":" not in host:
        raise AddressRefusedError("must name a host by an ordinary name")
    if parts.fragment or "#" in url:
        raise AddressRefusedError("must not carry a fragment")
    if parts.scheme == "http" and not (reach.plain_http or reach.private):
        raise AddressRefusedError("must begin with https://")
    usual = _PORTS[parts.scheme]
    if port is not None and port != usual and not reach.private:
        raise AddressRefusedError(f"must not name a port other than {usual}")
    _check_host(host, reach)
    return Target(url, host, port or usual)


def _check_host(host: str, reach: Reach) -> None:
    literal = _literal(host)
    if literal is not None:
        check_address(literal, reach)
        return
    labels = host.split(".")
    if len(host) > _LONGEST_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise AddressRefusedError("must name a host by an ordinary name")
    if _LAST.fullmatch(labels[-1]) is None:
        raise AddressRefusedError("must name a host by an ordinary name, not by a number")
    local = labels[-1] in {"localhost", "local", "internal", "localdomain"} or len(labels) == 1
    if local and not reach.private:
        raise AddressRefusedError("must name a public host")


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def check_address(address: Address | str, reach: Reach) -> None:
    """Let a public unicast address pass, and no other.

    Raises:
        AddressRefusedError: it is private, local, reserved, multicast, or leads to such a one.
    """
    if isinstance(address, str):
        found = _literal(address)
        if found is None:
            raise AddressRefusedError("is not an address")
        address = found
    if reach.private:
        return
    if isinstance(address, IPv4Address):
        is_public = not any(address in network for network in _NEVER_4)
    else:
        is_public = (
            address.scope_id is None
            and address in _GLOBAL
            and not any(address in network for network in _NEVER_6)
        )
    if not is_public:
        raise AddressRefusedError("leads to an address that is not public")
