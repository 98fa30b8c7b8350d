"""What everyone asks who connects is planned once by PostgreSQL, and not each time anew."""

from collections.abc import AsyncIterator

import pytest

from chatserver.chat.catch_up import OVERLAP
from chatserver.infra.secrets import new_scoped_key
from tests.support.keys import KeyHouse
from tests.support.servers import Database

_PLANS = """
select generic_plans, custom_plans from pg_prepared_statements where statement like $1
"""


@pytest.fixture
async def house(database: Database) -> AsyncIterator[KeyHouse]:
    made = KeyHouse(database)
    yield made
    await made.close()


async def test_keys_rooms_and_sync_are_planned_once(house: KeyHouse) -> None:
    master, _ = await house.new_client()
    ann = await house.person(master, "ann")
    await house.room(ann)
    log = house.container.log
    for _ in range(8):
        await house.container.credentials.scoped.find(new_scoped_key().kid, 1)
        await log.subscriptions(ann.user_id)
        await house.container.messages.changed_rooms(
            ann.user_id, since=None, overlap=OVERLAP, after=None, named=[], limit=10
        )
    arriving = await house.container.database.arriving()
    for asked in ("%join key_family f on%", "%left join member m%", "%with s as materialized%"):
        # One at a time, they were all on the connection that was used last.
        plans = await arriving.fetch(_PLANS, asked)
        assert [(row["generic_plans"] >= 8, row["custom_plans"]) for row in plans] == [(True, 0)]
