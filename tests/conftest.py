"""Fixtures for everything that touches a real server."""

from collections.abc import Iterator

import pytest

from tests.support.servers import Database, Servers


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """One PostgreSQL and one Valkey for the whole run."""
    with Servers(tcp=True) as started:
        yield started


@pytest.fixture
def database(servers: Servers) -> Iterator[Database]:
    """A migrated database of one's own, as the application role."""
    made = servers.fresh_database()
    yield made
    servers.drop(made)
