"""E1, E2 and E5 as far as texts go: where the server does not let itself be sent."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatserver.infra.addresses import AddressRefusedError, Reach, check_address, target_of
from chatserver.infra.http_client import check_headers

PUBLIC = Reach()
DEVELOPMENT = Reach(private=True)

LOCAL = (
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "169.254.169.254",
    "169.254.170.2",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "4000::1",
)
OUTSIDE = ("8.8.8.8", "1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001:80e::200e")


@pytest.mark.parametrize("address", LOCAL)
def test_no_local_or_translated_address_is_reached(address: str) -> None:
    with pytest.raises(AddressRefusedError):
        check_address(address, PUBLIC)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(AddressRefusedError):
        target_of(f"https://{host}/keys", PUBLIC)


@pytest.mark.parametrize("address", OUTSIDE)
def test_public_addresses_are_reached(address: str) -> None:
    check_address(address, PUBLIC)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_hides_in_no_ipv6_address(address: IPv4Address) -> None:
    packed = int(address)
    for wrapped in (
        packed,
        0xFFFF << 32 | packed,
        0x64_FF9B << 96 | packed,
        0x2002 << 112 | packed << 80,
        0x2001 << 112 | packed ^ 0xFFFFFFFF,
    ):
        with pytest.raises(AddressRefusedError):
            check_address(IPv6Address(wrapped), PUBLIC)


@pytest.mark.parametrize(
    "url",
    [
        "https://0",
        "https://0/",
        "https://2130706433",
        "https://0x7f.1",
        "https://0x7f000001",
        "https://0177.0.0.1",
        "https://127.1",
        "https://1.1.1",
        "https://127.0.0.1.",
        "https://example.com.",
        "https://localhost",
        "https://localhost.localdomain",
        "https://printer.local",
        "https://metadata.google.internal/computeMetadata/v1",
        "https://intranet",
        "https://①②⑦.⓪.⓪.①",
        "https://exämple.com",
        "https://example。com",
        "https://user@example.com",
        "https://user:pass@example.com",
        "https://example.com@127.0.0.1",
        "https://example.com:22",
        "https://example.com:25",
        "https://example.com:6379",
        "https://example.com:80",
        "https://example.com:0",
        "https://example.com:99999",
        "https://example.com:443#@127.0.0.1",
        "https://[fe80::1%25eth0]/",
        "https://[::1",
        "https://[v1.x]/",
        "http://example.com",
        "http://example.com:443",
        "ftp://example.com",
        "file:///etc/passwd",
        "gopher://example.com",
        "//example.com",
        "example.com",
        "https://",
        "https:///keys",
        "https://exa mple.com",
        "https://example.com\\@127.0.0.1",
        "https://example.com\r\nHost: x",
        "https://example.com/\x00",
        "https://ex%61mple.com",
        "https://-example.com",
        "https://a..example.com",
        "https://" + "a" * 250 + ".example",
        "https://example.com/" + "a" * 2100,
        "",
    ],
)
def test_no_odd_address_is_taken(url: str) -> None:
    with pytest.raises(AddressRefusedError):
        target_of(url, PUBLIC)


def test_ordinary_addresses_are_taken() -> None:
    assert target_of("https://login.example.com/keys?x=1", PUBLIC).port == 443
    assert target_of("https://LOGIN.example.com:443/", PUBLIC).host == "login.example.com"
    assert target_of("https://xn--exmple-cua.com/", PUBLIC).host == "xn--exmple-cua.com"
    assert target_of("http://example.com/", Reach(plain_http=True)).port == 80


def test_development_reaches_its_own_machine_and_still_no_odd_notation() -> None:
    assert target_of("http://127.0.0.1:8099/keys", DEVELOPMENT).port == 8099
    assert target_of("http://localhost:8099/keys", DEVELOPMENT).host == "localhost"
    for url in ("http://2130706433/", "http://u@127.0.0.1/", "file:///etc/passwd"):
        with pytest.raises(AddressRefusedError):
            target_of(url, DEVELOPMENT)


class TestHeaders:
    """E5."""

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("X-A", "b\r\nHost: evil"),
            ("X-A", "b\nc"),
            ("X-A", "b\x00"),
            ("X-A", "ü"),
            ("X-A", "x" * 1025),
            ("X A", "b"),
            ("X-A:", "b"),
            ("X-A\r\nHost", "b"),
            ("", "b"),
            ("Host", "evil"),
            ("hOsT", "evil"),
            ("Transfer-Encoding", "chunked"),
            ("Content-Length", "0"),
            ("Connection", "close"),
            ("Upgrade", "h2c"),
            ("Expect", "100-continue"),
            ("Cookie", "a=b"),
            ("webhook-signature", "v1,x"),
            ("Webhook-Id", "x"),
            ("Proxy-Authorization", "x"),
            ("X-Forwarded-For", "127.0.0.1"),
        ],
    )
    def test_fields_that_bend_a_request_are_refused(self, name: str, value: str) -> None:
        with pytest.raises(AddressRefusedError):
            check_headers({name: value})

    def test_others_pass(self) -> None:
        check_headers({"Authorization": "Bearer x", "X-Tenant": "acme 1"})
