"""Fixtures for everything that touches a real server."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.recycling import Recycler
from tests.support.servers import Database, Servers

# How long an example takes says something about the machine, not about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """One PostgreSQL and one Valkey for the whole run."""
    with Servers(tcp=True) as started:
        yield started


@pytest.fixture(scope="session")
def recycler(servers: Servers) -> Recycler:
    return Recycler(servers)


@pytest.fixture
def database(recycler: Recycler) -> Iterator[Database]:
    """A migrated database of one's own, as the application role."""
    lent = recycler.lend()
    yield lent
    recycler.take_back(lent)
