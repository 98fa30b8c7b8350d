import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from chatserver.infra import jobs
from chatserver.infra.database import Database
from chatserver.infra.job_kinds import JobKind
from chatserver.infra.jobs import Doorbell
from tests.integration.workers.conftest import Eventually, Rows, running
from tests.support.servers import Database as Address
from tests.support.servers import Servers
from workers.schedule import Periodic
from workers.scheduler import Scheduler

# Locks are listed for the whole cluster; other tests run servers on other databases of it.
HERE = "database = (select oid from pg_database where datname = current_database())"

OFTEN = JobKind("test.often", "sweep")
BRIEF = JobKind("test.brief", "sweep", lease_s=0.05)

Read = Callable[[str], Awaitable[Rows]]
Make = Callable[..., Scheduler]


@pytest.fixture
async def make(database: Database, address: Address) -> AsyncIterator[Make]:
    doorbell = Doorbell(address.redis_url)

    def scheduler(*periodic: Periodic) -> Scheduler:
        return Scheduler(
            database,
            doorbell,
            periodic=periodic,
            kinds=(BRIEF,),
            sweep_every_s=0.1,
            standby_s=0.2,
        )

    yield scheduler
    await doorbell.close()


async def test_a_job_that_still_waits_is_not_planned_again(
    make: Make, read: Read, eventually: Eventually
) -> None:
    scheduler = make(Periodic(OFTEN, every_s=0.05))
    async with running(scheduler.run(), scheduler.stop):
        await eventually(lambda: read("select 1 from job"))
        await asyncio.sleep(0.5)
    assert len(await read("select 1 from job")) == 1


async def test_it_is_planned_again_once_the_last_one_has_ended(
    make: Make, database: Database, read: Read, eventually: Eventually
) -> None:
    scheduler = make(Periodic(OFTEN, every_s=0.1))
    async with running(scheduler.run(), scheduler.stop):
        for _ in range(3):
            await eventually(lambda: _do_one(database))
    assert len(await read("select 1 from job where state = 'done'")) == 3


async def test_of_two_schedulers_one_plans(
    make: Make, database: Database, read: Read, eventually: Eventually
) -> None:
    # Each plans at once when it takes the role, and then not for an hour: two would plan twice.
    first, second = (make(Periodic(OFTEN, every_s=3600)) for _ in range(2))
    async with running(first.run(), first.stop), running(second.run(), second.stop):
        await asyncio.gather(first.ready.wait(), second.ready.wait())
        await eventually(lambda: _do_one(database))
        await asyncio.sleep(0.8)
        assert [first.is_active, second.is_active].count(True) == 1
        assert len(await read("select 1 from job")) == 1


async def test_whoever_stands_by_takes_over(
    make: Make, database: Database, eventually: Eventually
) -> None:
    first, second = (make(Periodic(OFTEN, every_s=3600)) for _ in range(2))
    async with running(second.run(), second.stop):
        await _is(second, eventually)
        async with running(first.run(), first.stop):
            await first.ready.wait()
            assert not first.is_active
            await eventually(lambda: _do_one(database))
            second.stop()
            await _is(first, eventually)
            await eventually(lambda: _do_one(database))


async def test_losing_the_connection_is_losing_the_role(
    make: Make, servers: Servers, address: Address, read: Read, eventually: Eventually
) -> None:
    scheduler = make()
    async with running(scheduler.run(), scheduler.stop):
        await _is(scheduler, eventually)
        holder = f"select pid from pg_locks where locktype = 'advisory' and granted and {HERE}"
        (before,) = await read(holder)
        servers.sql(f"select pg_terminate_backend({before['pid']})", database=address.name)
        after = await eventually(lambda: read(f"{holder} and pid <> {before['pid']}"))
        assert len(after) == 1
        await _is(scheduler, eventually)


async def test_a_dead_worker_s_job_is_given_back(
    make: Make, database: Database, read: Read, eventually: Eventually
) -> None:
    async with database.transaction() as session:
        await jobs.plan(session, BRIEF, dedupe="one")
        assert len(await jobs.claim(session, BRIEF, limit=1)) == 1
    scheduler = make()
    async with running(scheduler.run(), scheduler.stop):
        await eventually(lambda: read("select 1 from job where state = 'queued'"))
    (job,) = await read("select attempt, fence, error from job")
    assert job == {"attempt": 1, "fence": 1, "error": "its worker died"}


async def test_one_failing_duty_leaves_the_others_done(
    make: Make, read: Read, eventually: Eventually
) -> None:
    unplannable = JobKind("x" * 100, "sweep")  # too long for its column
    scheduler = make(Periodic(unplannable, every_s=0.1), Periodic(OFTEN, every_s=0.1))
    async with running(scheduler.run(), scheduler.stop):
        await eventually(lambda: read("select 1 from job"))
        assert scheduler.is_active


async def test_it_leaves_no_lock_behind(make: Make, read: Read, eventually: Eventually) -> None:
    scheduler = make()
    async with running(scheduler.run(), scheduler.stop):
        await _is(scheduler, eventually)
    await eventually(
        lambda: read(
            "select 1 where not exists"
            f" (select from pg_locks where locktype = 'advisory' and {HERE})"
        )
    )


async def _is(scheduler: Scheduler, eventually: Eventually) -> None:
    async def active() -> bool:
        return scheduler.is_active

    await eventually(active)


async def _do_one(database: Database) -> bool:
    async with database.transaction() as session:
        claims = await jobs.claim(session, OFTEN, limit=1)
        for claim in claims:
            assert await jobs.end(session, claim, state="done")
    return bool(claims)
