"""Searching and indexing read no more than they need, whatever the size of the tables."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest

from chatserver.search.policies import Lexemes, any_of
from chatserver.search.repository import SEARCH, SETTINGS, Look, values_of
from tests.support.people import House
from tests.support.plans import Seeded, plan_of, recorded, seed
from tests.support.servers import Servers, run

LAST_ID = UUID(int=2**128 - 1)
_FILL = (
    "update message set content = 'hi ' || left(md5(id::text), 2)",
    """
    insert into message_search select m.id, m.client_id, m.room_id, m.seq, m.created_at,
      message_search_vector(m, 'simple') from message m
    """,
    "update search_progress set at = now() - interval '1 minute'",
    "vacuum analyze",
)


@pytest.fixture(scope="module")
def seeded(servers: Servers) -> Iterator[Seeded]:
    address = servers.fresh_database()
    made = seed(address)

    async def fill() -> None:
        connection = await asyncpg.connect(address.admin_url)
        for statement in _FILL:
            await connection.execute(statement)
        await connection.close()

    run(fill())
    yield made
    servers.drop(address)


@pytest.fixture
async def connection(seeded: Seeded) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    made = await asyncpg.connect(seeded.address.app_url, server_settings=SETTINGS)
    yield made
    await made.close()


@pytest.mark.parametrize("words", ["'hi'", "'a1'", "'hi'&'a1'", "'a':*", "'hi'<->'a1'"])
@pytest.mark.parametrize("scope", ["nothing", "room", "days"])
async def test_a_search_reads_the_index_and_the_rows_that_fit(
    seeded: Seeded,
    connection: "asyncpg.Connection[asyncpg.Record]",
    words: str,
    scope: str,
) -> None:
    lexemes = Lexemes(seeded.client_id)
    now = datetime.now(UTC)
    more = {
        "nothing": "",
        "room": "&" + any_of([lexemes.room(seeded.room_id)]),
        "days": "&" + any_of(next(lexemes.windows(now, None))),
    }
    look = Look(
        client_id=seeded.client_id,
        query=f"({words}){more[scope]}",
        words=words,
        since=None,
        before=(now, LAST_ID),
        room_id=None,
        reader=seeded.user_id,
    )
    values = values_of(look, most=1000, wanted=100)
    plan = "\n".join(row[0] for row in await connection.fetch(f"explain {SEARCH}", *values))
    assert "Bitmap Index Scan on ix_message_search_search" in plan
    assert "Seq Scan" not in plan
    rows = await connection.fetch(SEARCH, *values)
    assert rows[0]["looked_at"] > 0 or scope == "room"


async def test_the_indexer_goes_by_the_log_s_time(seeded: Seeded) -> None:
    house = House(seeded.address)
    try:
        with recorded(house.container.database) as statements:
            await house.container.search.indexer.catch_up(back_s=2)
    finally:
        await house.close()
    walks = [each for each in statements if "from given" in each[0]]
    assert walks
    for statement, values in walks:
        plan = await plan_of(seeded.address, statement, values)
        assert "ix_room_event_created_at" in plan
        assert "Sort" not in plan
        assert "Seq Scan on room_event" not in plan
