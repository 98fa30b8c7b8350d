"""Two nodes that all gentle tests share, and clusters of one's own for the rough ones."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.houses import House
from tests.support.javascript import JavaScript
from tests.support.lines import Line
from tests.support.nodes import Cluster, Node
from tests.support.proxy import Proxy
from tests.support.scene import Scene, on_stage
from tests.support.servers import Database, Servers, run

MakeCluster = Callable[..., Cluster]
HERE = Path(__file__).parent
LONGEST_S = 180


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
async def theirs(scene: Scene) -> House:
    return await House(scene, f"canary-{secrets.token_hex(8)}").furnish("onlya")


@pytest.fixture
async def mine(pair: Cluster, scene: Scene) -> AsyncIterator[House]:
    async with on_stage(scene.nodes, pair.database.secrets.operator_key) as other:
        yield await House(other, f"own-{secrets.token_hex(8)}").furnish("onlyb")


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


@pytest.fixture(scope="module")
def own_servers() -> Iterator[Servers]:
    """A PostgreSQL and a Valkey that a module may stop and kill."""
    with Servers(tcp=True) as started:
        yield started


@pytest.fixture
def own_cluster(own_servers: Servers) -> Iterator[Cluster]:
    """Nothing runs yet; the database is this test's own."""
    database = own_servers.fresh_database()
    made = Cluster(database)
    yield made
    made.close()
    own_servers.drop(database)


@pytest.fixture
async def line(own_cluster: Cluster) -> AsyncIterator[Line]:
    """Two nodes; the first has its Redis through a proxy."""
    redis = urlsplit(own_cluster.database.redis_url)
    async with Proxy("127.0.0.1", redis.port or 0) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        made = [own_cluster.node("a", REDIS_URL=url, QUEUE_REDIS_URL=url), own_cluster.node("b")]
        await asyncio.gather(*(node.start() for node in made))
        async with on_stage(made, own_cluster.database.secrets.operator_key) as scene:
            yield Line(proxy, made, scene)


@pytest.fixture
async def js() -> AsyncIterator[JavaScript]:
    async with JavaScript() as driver:
        yield driver


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give whatever starts real processes more time than other tests: machines are busy."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(LONGEST_S))


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
