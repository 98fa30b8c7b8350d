"""H8: which Redis and Valkey may be trusted with scripts."""

import pytest

from chatserver.cli.redis_versions import is_patched


@pytest.mark.parametrize(
    ("product", "version", "expected"),
    [
        ("redis", "6.2.19", False),
        ("redis", "6.2.20", True),
        ("redis", "7.0.15", False),
        ("redis", "7.2.10", False),
        ("redis", "7.2.11", True),
        ("redis", "7.4.6", True),
        ("redis", "8.0.3", False),
        ("redis", "8.0.4", True),
        ("redis", "8.2.1", False),
        ("redis", "8.2.2", True),
        ("redis", "8.4.0", True),
        ("valkey", "7.2.10", False),
        ("valkey", "7.2.11", True),
        ("valkey", "8.0.5", False),
        ("valkey", "8.1.4", True),
        ("valkey", "9.0.0", True),
        ("valkey", "9.1.0-rc1", True),
        ("redis", "unknown", False),
    ],
)
def test_a_version_before_the_mends_is_found(product: str, version: str, expected: bool) -> None:
    assert is_patched(product, version) is expected
