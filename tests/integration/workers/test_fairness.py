"""One client's thousand jobs don't keep another's waiting."""

from collections import Counter
from uuid import UUID

from chatserver.infra import jobs
from chatserver.infra.database import Database
from chatserver.infra.job_kinds import JobKind
from chatserver.infra.jobs import Claim
from chatserver.kernel.ids import uuid7

KIND = JobKind("test.fair", "sweep")


async def plan(database: Database, client_id: UUID | None, count: int) -> None:
    async with database.transaction() as session:
        for number in range(count):
            await jobs.plan(
                session, KIND, dedupe=f"{client_id} {number}", client_id=client_id, delay_s=-60
            )


async def claim(database: Database, limit: int) -> list[Claim]:
    async with database.transaction() as session:
        return await jobs.claim(session, KIND, limit=limit)


async def test_a_late_client_gets_its_turn_at_once(database: Database) -> None:
    noisy, quiet = uuid7(), uuid7()
    await plan(database, noisy, 300)
    await plan(database, quiet, 3)
    claimed = Counter(each.client_id for each in await claim(database, 8))
    assert claimed == {noisy: 5, quiet: 3}
    assert Counter(each.client_id for each in await claim(database, 8)) == {noisy: 8}


async def test_four_clients_share_evenly_and_so_does_what_belongs_to_none(
    database: Database,
) -> None:
    clients = [uuid7() for _ in range(3)]
    await plan(database, clients[0], 200)
    for client in (*clients[1:], None):
        await plan(database, client, 20)
    counted = Counter(each.client_id for each in await claim(database, 16))
    expected: dict[UUID | None, int] = {**dict.fromkeys(clients, 4), None: 4}
    assert counted == expected


async def test_of_one_client_the_oldest_come_first(database: Database) -> None:
    client = uuid7()
    async with database.transaction() as session:
        for age in (10, 30, 20):
            await jobs.plan(session, KIND, dedupe=f"{age}", client_id=client, delay_s=-age)
    first = await claim(database, 1)
    async with database.transaction() as session:
        await jobs.end(session, first[0], state="done")
    rest = await claim(database, 5)
    assert len(first) == 1
    assert len(rest) == 2
    assert {each.id for each in first}.isdisjoint({each.id for each in rest})


async def test_everything_is_claimed_exactly_once(database: Database) -> None:
    for _ in range(12):
        await plan(database, uuid7(), 10)
    claimed: list[UUID] = []
    while some := await claim(database, 7):
        claimed += [each.id for each in some]
    assert len(claimed) == len(set(claimed)) == 120
