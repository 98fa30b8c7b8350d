"""Worker and scheduler as processes: how they start, end, die and take over from one another."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import UUID

import orjson
import pytest
from sqlalchemy import text

from chatserver.infra import jobs
from chatserver.infra.database import Database
from chatserver.infra.jobs import Doorbell
from tests.integration.workers.conftest import Eventually, Rows, running
from tests.integration.workers.sleepy_worker import SLEEP
from tests.support.servers import Database as Address
from workers.scheduler import Scheduler

ROOT = Path(__file__).parents[3]

Read = Callable[[str], Awaitable[Rows]]


class Process:
    def __init__(self, arguments: list[str], address: Address, log: Path) -> None:
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={**address.environment(), "LOG_FORMAT": "json"},
                stderr=output,
            )

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def said(self, event: str) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"it has ended: {self.log.read_text()}")
        return f'"{event}"' in self.log.read_text()

    async def end(self) -> int:
        return await asyncio.to_thread(self.process.wait, 30)


Start = Callable[..., Process]


@pytest.fixture
def start(address: Address, tmp_path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def begin(*arguments: str) -> Process:
        process = Process(list(arguments), address, tmp_path / f"{len(started)}.log")
        started.append(process)
        return process

    yield begin
    for process in started:
        process.process.kill()
        process.process.wait()


@pytest.fixture
def start_sleepy(start: Start, address: Address) -> Callable[[float], Process]:
    module = "tests.integration.workers.sleepy_worker"
    return lambda grace_s: start(module, address.app_url, address.redis_url, str(grace_s))


async def plan_sleep(database: Database, *seconds: float) -> None:
    async with database.transaction() as session:
        payload = orjson.dumps({"seconds": seconds}).decode()
        await jobs.plan(session, SLEEP, dedupe="one", payload=payload)


async def test_a_killed_worker_s_job_is_taken_over(
    start_sleepy: Callable[[float], Process],
    database: Database,
    address: Address,
    read: Read,
    eventually: Eventually,
) -> None:
    doorbell = Doorbell(address.redis_url)
    sweeper = Scheduler(database, doorbell, periodic=(), kinds=(SLEEP,), sweep_every_s=0.1)
    await plan_sleep(database, 3600, 0.1)
    victim = start_sleepy(10)
    await eventually(lambda: read("select 1 from job where state = 'running'"))
    victim.signal(signal.SIGKILL)
    start_sleepy(10)
    async with running(sweeper.run(), sweeper.stop):
        await eventually(lambda: read("select 1 from job where state = 'done'"))
    await doorbell.close()
    (job,) = await read("select attempt, fence from job")
    assert job == {"attempt": 2, "fence": 2}


async def test_a_worker_that_wakes_too_late_changes_nothing(
    start_sleepy: Callable[[float], Process],
    database: Database,
    address: Address,
    read: Read,
    eventually: Eventually,
) -> None:
    doorbell = Doorbell(address.redis_url)
    sweeper = Scheduler(database, doorbell, periodic=(), kinds=(SLEEP,), sweep_every_s=0.1)
    await plan_sleep(database, 0.5, 3600)
    zombie = start_sleepy(10)
    await eventually(lambda: read("select 1 from job where state = 'running'"))
    zombie.signal(signal.SIGSTOP)
    async with running(sweeper.run(), sweeper.stop):
        await eventually(lambda: read("select 1 from job where state = 'queued'"))
        heir = start_sleepy(0.1)
        await eventually(lambda: read("select 1 from job where fence = 2"))
        zombie.signal(signal.SIGCONT)
        await eventually(lambda: _any(zombie, "job_outcome_lost", "job_lost"))
    await doorbell.close()
    (job,) = await read("select state, attempt, fence, error from job")
    assert job == {"state": "running", "attempt": 2, "fence": 2, "error": "its worker died"}
    heir.signal(signal.SIGTERM)
    assert await heir.end() == 0
    assert (await read("select state from job"))[0]["state"] == "queued"


async def test_sigterm_gives_back_what_does_not_end(
    start_sleepy: Callable[[float], Process],
    database: Database,
    read: Read,
    eventually: Eventually,
) -> None:
    await plan_sleep(database, 3600)
    worker = start_sleepy(0.5)
    await eventually(lambda: read("select 1 from job where state = 'running'"))
    worker.signal(signal.SIGTERM)
    began = time.monotonic()
    assert await worker.end() == 0
    assert time.monotonic() - began < 15
    (job,) = await read("select state, attempt, error, lease_until from job")
    assert job == {
        "state": "queued",
        "attempt": 1,
        "error": "its worker was stopped",
        "lease_until": None,
    }


async def test_sigterm_lets_running_jobs_end(
    start_sleepy: Callable[[float], Process],
    database: Database,
    read: Read,
    eventually: Eventually,
) -> None:
    await plan_sleep(database, 1.5)
    worker = start_sleepy(10)
    await eventually(lambda: read("select 1 from job where state = 'running'"))
    worker.signal(signal.SIGTERM)
    assert await worker.end() == 0
    assert (await read("select state from job"))[0]["state"] == "done"


async def test_a_second_signal_ends_it_at_once(
    start_sleepy: Callable[[float], Process],
    database: Database,
    read: Read,
    eventually: Eventually,
) -> None:
    await plan_sleep(database, 3600)
    worker = start_sleepy(3600)
    await eventually(lambda: read("select 1 from job where state = 'running'"))
    worker.signal(signal.SIGTERM)
    await eventually(lambda: worker.said("worker_stopping"))
    worker.signal(signal.SIGINT)
    assert await worker.end() == 128 + signal.SIGINT


async def test_the_real_ones_deactivate_a_room_that_is_due_and_purge_one_that_is_deleted(
    start: Start, database: Database, read: Read, eventually: Eventually
) -> None:
    client, due, deleted = UUID(int=1), UUID(int=2), UUID(int=3)
    async with database.transaction() as session:
        for statement in (
            f"insert into client (id, slug, name, status) values ('{client}', 'a', 'A', 'active')",
            (
                "insert into room (id, client_id, type, history, is_active, epoch, members_count,"
                " last_activity_at, deactivation_check_at)"
                f" values ('{due}', '{client}', 'support', 'all', true, 1, 0,"
                " now() - interval '1 year', now())"
            ),
            (
                "insert into room (id, client_id, type, history, is_active, epoch, members_count,"
                " deleted_at)"
                f" values ('{deleted}', '{client}', 'group', 'all', false, 1, 0, now())"
            ),
            (
                "insert into outbox (client_id, room_id, fact_id, type)"
                f" values ('{client}', '{deleted}', gen_random_uuid(), 'room.deleted')"
            ),
        ):
            await session.execute(text(statement))
    worker, scheduler = start("workers"), start("workers", "scheduler")
    await eventually(lambda: worker.said("worker_ready"))
    await eventually(lambda: scheduler.said("scheduler_ready"))
    await eventually(lambda: read(f"select 1 from room where id = '{due}' and not is_active"))
    await eventually(
        lambda: read("select 1 from job where kind = 'rooms.purge' and state = 'done'")
    )
    assert [row["type"] for row in await read("select type from room_event")] == [
        "room.deactivated"
    ]
    assert await read("select 1 from outbox") == []
    for process in (worker, scheduler):
        process.signal(signal.SIGTERM)
    for process in (worker, scheduler):
        assert await process.end() == 0
    assert '"error"' not in worker.log.read_text() + scheduler.log.read_text()


def test_it_says_how_it_is_called() -> None:
    called = subprocess.run(
        [sys.executable, "-m", "workers", "sheduler"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (called.returncode, called.stderr) == (
        1,
        "usage: python -m workers [worker | scheduler]\n",
    )


async def _any(process: Process, *events: str) -> bool:
    return any([await process.said(event) for event in events])
