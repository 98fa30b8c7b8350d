"""Searching and indexing read no more than they need, whatever the size of the tables."""

import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest

from chatserver.search.policies import Lexemes, any_of
from chatserver.search.repository import SETTINGS, Look, statement_of
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
@pytest.mark.parametrize("asker", ["the application", "a member"])
async def test_a_search_reads_the_index_and_the_rows_that_fit(
    seeded: Seeded,
    connection: "asyncpg.Connection[asyncpg.Record]",
    words: str,
    scope: str,
    asker: str,
) -> None:
    lexemes = Lexemes(seeded.client_id)
    now = datetime.now(UTC)
    more = {
        "nothing": (),
        "room": (any_of([lexemes.room(seeded.room_id)]),),
        "days": (any_of(next(lexemes.windows(now, None))),),
    }
    look = Look(
        client_id=seeded.client_id,
        keys=(f"({words})", *more[scope]),
        words=words,
        since=None,
        before=(now, LAST_ID),
        room_id=None,
        reader=seeded.user_id if asker == "a member" else None,
    )
    statement, *values = statement_of(look, most=1000, wanted=100)
    plan = "\n".join(row[0] for row in await connection.fetch(f"explain {statement}", *values))
    # One walk through the index for all conditions together, not one for each.
    assert plan.count("Bitmap Index Scan on ix_message_search_search") == 1
    assert "BitmapAnd" not in plan
    assert "Seq Scan" not in plan
    rows = await connection.fetch(statement, *values)
    assert rows[0]["looked_at"] > 0 or scope == "room"


async def test_seats_are_looked_up_once_and_not_at_every_hit(
    seeded: Seeded, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    look = Look(
        client_id=seeded.client_id,
        keys=("'hi'",),
        words="'hi'",
        since=None,
        before=(datetime.now(UTC), LAST_ID),
        room_id=None,
        reader=seeded.user_id,
    )
    statement, *values = statement_of(look, most=100_000, wanted=1000)
    rows = await connection.fetch(f"explain (analyze) {statement}", *values)
    plan = "\n".join(row[0] for row in rows)
    looked_up = re.findall(r"CTE Scan on seat .*loops=(\d+)\)", plan)
    assert looked_up == ["1"], plan


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
