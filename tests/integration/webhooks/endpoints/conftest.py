"""One database for these tests; each makes clients of its own in it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from chatserver.kernel.ids import uuid7
from chatserver.kernel.principal import Principal
from tests.support.receiver import Post, posting
from tests.support.servers import Database, Servers


@pytest.fixture(scope="session")
def posts(servers: Servers) -> Iterator[Database]:
    made = servers.fresh_database()
    yield made
    servers.drop(made)


@pytest.fixture
async def post(posts: Database) -> AsyncIterator[Post]:
    async with posting(posts) as made:
        yield made


@pytest.fixture
async def master(post: Post) -> Principal:
    return await post.talk.client(f"acme-{uuid7().hex[-8:]}")
