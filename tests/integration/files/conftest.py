"""A process whose files are in S3, and one whose files are on the disk."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.files import Shelf
from tests.support.object_stores import ACCESS, bucket_at, s3_server
from tests.support.people import House
from tests.support.servers import Database


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
async def shelf(database: Database) -> AsyncIterator[Shelf]:
    async with _opened(House(database)) as made:
        yield made


@pytest.fixture
async def bucket(database: Database, s3: str) -> AsyncIterator[Shelf]:
    settings = {
        "s3_endpoint_url": s3,
        "s3_bucket": bucket_at(s3),
        **{f"s3_{name}": value for name, value in ACCESS.items()},
    }
    async with _opened(House(database, **settings)) as made:
        yield made


def _opened(house: House) -> Shelf:
    return Shelf(house)
