"""`check --deploy`: each rule is broken once, and found."""

from typing import Any

import pytest

from chatserver.cli import production
from chatserver.cli.findings import Finding
from chatserver.settings import Settings

GOOD: dict[str, Any] = {
    "environment": "production",
    "database_url": "postgresql://app:x@db.internal/x",
    "redis_url": "rediss://u:p@cache.example.com",
    "operator_key": "0123456789abcdef0123456789abcdef",
    "secret_keys": ("fedcba9876543210fedcba9876543210",),
    "key_pepper": "00112233445566778899aabbccddeeff",
    "public_url": "https://chat.example",
    "trusted_proxies": ("10.1.0.0/16",),
    "log_format": "json",
}


def findings(**changes: Any) -> dict[str, Finding]:
    settings = Settings(_env_file=None, **(GOOD | changes))
    return {found.part: found for found in production.of_settings(settings)}


def test_what_is_right_is_said_in_a_line_each() -> None:
    found = findings()
    assert [each for each in found.values() if not each.ok or each.mend] == []
    assert len(found) == 9


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("environment", {"environment": "staging"}),
        ("secrets", {"operator_key": "a" * 40}),
        ("secrets", {"environment": "staging", "operator_key": "short-but-varied"}),
        ("secrets", {"key_pepper": "00112233445566778899aabbccddeeff," + "ab" * 16}),
        ("secrets", {"operator_key": GOOD["key_pepper"]}),
        ("public address", {"public_url": None}),
        ("public address", {"public_url": "http://chat.example"}),
        ("trusted proxies", {"trusted_proxies": ()}),
        ("trusted proxies", {"trusted_proxies": ("0.0.0.0/0",)}),
        ("trusted proxies", {"trusted_proxies": ("10.0.0.0/8", "::/0")}),
        ("outbound requests", {"environment": "staging", "allow_private_addresses": True}),
        ("rate limits", {"rate_limits_enabled": False}),
        ("rate limits", {"environment": "staging", "limits_factor": 10}),
        ("log format", {"log_format": "console"}),
        ("log level", {"log_level": "debug"}),
        ("transport", {"redis_url": "redis://u:p@cache.example.com"}),
        ("transport", {"queue_redis_url": "redis://u:p@8.8.8.8"}),
        ("transport", {"openai_base_url": "http://api.example.com/v1"}),
    ],
)  # fmt: skip
def test_a_broken_rule_is_found_and_told_how_to_mend(part: str, changes: dict[str, Any]) -> None:
    wrong = [found for found in findings(**changes).values() if not found.ok]
    assert part in {found.part for found in wrong}
    assert all(found.mend for found in wrong)
    shown = " ".join(f"{found.detail} {found.mend}" for found in wrong)
    for name in ("operator_key", "key_pepper"):
        assert (changes.get(name) or GOOD[name]) not in shown


@pytest.mark.parametrize(
    "url", ["redis://cache", "redis://10.0.0.3", "redis://cache.prod.svc", "unix:///run/redis.sock"]
)
def test_what_stays_inside_may_be_in_the_clear(url: str) -> None:
    assert findings(redis_url=url)["transport"].ok


@pytest.mark.parametrize(
    ("changed", "ok"),
    [
        ({}, True),
        ({"fsync": "off"}, False),
        ({"synchronous_commit": "off"}, False),
        ({"synchronous_commit": "remote_apply"}, True),
        ({"full_page_writes": "off"}, False),
    ],
)
def test_a_database_that_forgets_is_found(changed: dict[str, str], ok: bool) -> None:
    shown = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"} | changed
    found = production._durability(shown)
    assert found.ok is ok
    assert all(f"{name} = on" in found.mend for name in changed if not ok)


@pytest.mark.parametrize(
    ("processes", "places", "ok"), [(1, 97, True), (2, 97, False), (3, 197, True), (4, 197, False)]
)
def test_too_few_places_for_all_pools_are_found(processes: int, places: int, ok: bool) -> None:
    settings = Settings(_env_file=None, **(GOOD | {"processes": processes}))
    assert production._places(settings, places).ok is ok
