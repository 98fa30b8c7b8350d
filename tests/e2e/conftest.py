"""Two nodes that all gentle tests share, and clusters of one's own for the rough ones."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from tests.support.javascript import JavaScript
from tests.support.nodes import Cluster, Node
from tests.support.scene import Scene, on_stage
from tests.support.servers import Database, Servers, run

MakeCluster = Callable[..., Cluster]


@pytest.fixture(scope="session")
def shared_database(servers: Servers) -> Iterator[Database]:
    made = servers.fresh_database()
    yield made
    servers.drop(made)


@pytest.fixture(scope="session")
def pair(shared_database: Database) -> Iterator[Cluster]:
    """Two nodes for tests that hurt nobody: each makes a tenant of its own."""
    cluster = Cluster(shared_database)
    try:
        run(cluster.nodes("a", "b"))
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def nodes(pair: Cluster) -> list[Node]:
    return [process for process in pair.processes if isinstance(process, Node)]


@pytest.fixture
async def scene(pair: Cluster, nodes: list[Node]) -> AsyncIterator[Scene]:
    async with on_stage(nodes, pair.database.secrets.operator_key) as made:
        yield made


@pytest.fixture
def cluster(database: Database) -> Iterator[MakeCluster]:
    """Make a cluster on this test's own database, with settings of its own."""
    made: list[Cluster] = []

    def make(**environment: str) -> Cluster:
        made.append(Cluster(database, **environment))
        return made[-1]

    make.made = made  # type: ignore[attr-defined]
    yield make
    for each in made:
        each.close()


@pytest.fixture
async def js() -> AsyncIterator[JavaScript]:
    async with JavaScript() as driver:
        yield driver


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the servers said, next to why a test failed."""
    report = yield
    if report.failed:
        for cluster in _clusters_of(getattr(item, "funcargs", {})):
            for name, words in cluster.last_words():
                report.sections.append((f"log of {name}", words))
    return report


def _clusters_of(arguments: dict[str, Any]) -> list[Cluster]:
    found = [each for each in arguments.values() if isinstance(each, Cluster)]
    for each in arguments.values():
        found += getattr(each, "made", [])
    return found
