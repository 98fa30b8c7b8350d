"""Redis as a doorbell: heard at once, never needed, found again when it comes back."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import dramatiq
import pytest
from redis import Redis

from chatserver.infra import jobs
from chatserver.infra.database import Database
from chatserver.infra.job_kinds import DISPATCH_OUTBOX, KINDS, JobKind
from chatserver.infra.jobs import UNHEARD_RINGS, Claim, Doorbell
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.opening import Open
from tests.integration.workers.conftest import Eventually, Rows, running
from tests.support.servers import Servers
from workers.holding import Handling
from workers.listener import Listener
from workers.runtime import Worker

WORK = JobKind("test.work", "sweep")

Read = Callable[[str], Awaitable[Rows]]


@pytest.fixture
def redis(servers: Servers) -> Iterator[Redis]:
    """The Valkey of the session: empty at the start, there again at the end."""
    with Redis.from_url(servers.valkey.url) as client:
        client.flushall()
        yield client
    servers.valkey.kill()
    servers.valkey.start()


@pytest.fixture
async def doorbell(servers: Servers, redis: Redis) -> AsyncIterator[Doorbell]:
    rung = Doorbell(servers.valkey.url)
    yield rung
    await rung.close()


@pytest.fixture
def make(
    servers: Servers, redis: Redis, database: Database, open_work: Open[UnitOfWork]
) -> Callable[[float], Worker]:
    async def work(_: Claim) -> None:
        await asyncio.sleep(0)

    def worker(poll_s: float) -> Worker:
        return Worker(
            database=database,
            handlings=[Handling(WORK, work)],
            open_work=open_work,
            later={},
            queue_url=servers.valkey.url,
            poll_s=poll_s,
        )

    return worker


async def plan(database: Database) -> None:
    async with database.transaction() as session:
        assert await jobs.plan(session, WORK, dedupe="one")


class TestWorker:
    async def test_a_ring_starts_an_idle_worker_that_never_polls(
        self,
        make: Callable[[float], Worker],
        doorbell: Doorbell,
        database: Database,
        read: Read,
        eventually: Eventually,
    ) -> None:
        worker, stopping = make(3600), asyncio.Event()
        async with running(worker.run(stopping), stopping.set):
            await worker.claimer.ready.wait()
            await plan(database)
            doorbell.ring([WORK.name])
            await eventually(lambda: read("select 1 from job where state = 'done'"))

    async def test_without_redis_it_starts_works_by_poll_and_ends(
        self,
        servers: Servers,
        make: Callable[[float], Worker],
        doorbell: Doorbell,
        database: Database,
        read: Read,
        eventually: Eventually,
    ) -> None:
        servers.valkey.kill()
        worker, stopping = make(0.1), asyncio.Event()
        async with running(worker.run(stopping), stopping.set):
            await worker.claimer.ready.wait()
            await plan(database)
            doorbell.ring([WORK.name])
            await eventually(lambda: read("select 1 from job where state = 'done'"))

    async def test_with_a_redis_that_hangs_it_works_by_poll_and_ends(
        self,
        servers: Servers,
        make: Callable[[float], Worker],
        doorbell: Doorbell,
        database: Database,
        read: Read,
        eventually: Eventually,
    ) -> None:
        worker, stopping = make(0.1), asyncio.Event()
        async with running(worker.run(stopping), stopping.set):
            await worker.claimer.ready.wait()
            servers.valkey.pause()
            await plan(database)
            doorbell.ring([WORK.name])
            await eventually(lambda: read("select 1 from job where state = 'done'"))
        servers.valkey.resume()


class TestListener:
    async def test_it_hears_again_after_redis_was_away_and_came_back_empty(
        self, servers: Servers, doorbell: Doorbell, caplog: pytest.LogCaptureFixture
    ) -> None:
        heard = threading.Event()
        servers.valkey.kill()
        listener = Listener(servers.valkey.url, {WORK.name: heard.set})
        listener.start()
        await asyncio.sleep(1)
        for _ in range(2):
            servers.valkey.restart()
            heard.clear()
            doorbell.ring([WORK.name])
            assert await asyncio.to_thread(heard.wait, 10)
        await asyncio.to_thread(listener.stop)
        # The listener tells it once per change; Dramatiq would, per try and thread.
        assert [line for line in caplog.records if line.name.startswith("dramatiq")] == []

    async def test_a_ring_for_something_unknown_disturbs_nobody(
        self, servers: Servers, redis: Redis, doorbell: Doorbell
    ) -> None:
        heard = threading.Event()
        listener = Listener(servers.valkey.url, {WORK.name: heard.set})
        listener.start()
        doorbell.ring(["no.such.kind", WORK.name])
        assert await asyncio.to_thread(heard.wait, 10)
        await asyncio.to_thread(listener.stop)


class TestDoorbell:
    async def test_rings_that_nobody_hears_do_not_fill_redis(
        self, redis: Redis, doorbell: Doorbell, eventually: Eventually
    ) -> None:
        for number in range(UNHEARD_RINGS * 2):
            doorbell.ring([f"test.{number}"])
        await asyncio.wait(doorbell._tasks)
        assert UNHEARD_RINGS <= redis.llen("dramatiq:sweep") < UNHEARD_RINGS * 1.5

    async def test_rings_under_way_are_joined_but_the_last_one_counts(
        self, redis: Redis, doorbell: Doorbell
    ) -> None:
        for _ in range(50):
            doorbell.ring([WORK.name])
        await asyncio.wait(doorbell._tasks)
        assert redis.llen("dramatiq:sweep") == 2

    async def test_ringing_into_a_dead_redis_harms_nobody(
        self, servers: Servers, doorbell: Doorbell
    ) -> None:
        servers.valkey.kill()
        doorbell.ring([WORK.name])
        done, _ = await asyncio.wait(doorbell._tasks, timeout=10)
        assert [task.exception() for task in done] == [None]


def test_every_kind_has_one_of_at_most_five_queues() -> None:
    queues = {kind.queue for kind in KINDS.values()}
    assert queues <= {"llm", "ingest", "mail", "webhook", "sweep"}


def test_every_bell_goes_to_a_queue_that_workers_listen_to() -> None:
    listener = Listener("redis://127.0.0.1:1/0", dict.fromkeys([*KINDS, DISPATCH_OUTBOX], print))
    broker = listener._broker
    for name in [*KINDS, DISPATCH_OUTBOX]:
        assert broker.get_actor(name).queue_name == jobs.message(name).queue_name
        assert jobs.message(name).queue_name in broker.get_declared_queues()
    assert broker.get_declared_delay_queues() == set()
    assert not any(isinstance(part, dramatiq.middleware.Retries) for part in broker.middleware)
