import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from chatserver.infra import jobs
from chatserver.infra.database import Database
from chatserver.infra.job_kinds import JobKind
from chatserver.infra.jobs import Claim
from chatserver.kernel.errors import RouteNotFoundError
from tests.integration.workers.conftest import Eventually, Rows, running
from tests.support.servers import Servers
from workers.claimer import Claimer
from workers.holding import Handling

WORK = JobKind("test.work", "sweep", lease_s=30.0, max_attempts=3, retry_s=0.05)
SHORT = JobKind("test.short", "sweep", lease_s=0.9, max_attempts=3, retry_s=0.05)

Read = Callable[[str], Awaitable[Rows]]


async def plan(database: Database, kind: JobKind, *, count: int = 1) -> None:
    async with database.transaction() as session:
        for number in range(count):
            assert await jobs.plan(session, kind, dedupe=str(number))


class Handler:
    """Notes what it is given, and then does as it is told."""

    def __init__(self, act: Callable[[Claim], Awaitable[None]] | None = None) -> None:
        self.seen: list[Claim] = []
        self.ended = 0
        self.most_at_once = 0
        self._at_once = 0
        self._act = act

    async def __call__(self, claim: Claim) -> None:
        self.seen.append(claim)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if self._act is not None:
                await self._act(claim)
            self.ended += 1
        finally:
            self._at_once -= 1


class TestClaiming:
    async def test_a_job_is_done_once_by_poll_alone(
        self, database: Database, read: Read, eventually: Eventually
    ) -> None:
        handler = Handler()
        claimer = Claimer(database, [Handling(WORK, handler)], poll_s=0.05)
        await plan(database, WORK)
        async with running(claimer.run(), lambda: claimer.stop(grace_s=5)):
            await eventually(lambda: read("select 1 from job where state = 'done'"))
        (job,) = await read("select attempt, fence, error, lease_until, ended_at from job")
        assert len(handler.seen) == 1
        assert (job["attempt"], job["fence"], job["error"]) == (1, 1, None)
        assert job["lease_until"] is None
        assert job["ended_at"] is not None

    async def test_waking_it_from_another_thread_is_enough(
        self, database: Database, read: Read, eventually: Eventually
    ) -> None:
        handler = Handler()
        claimer = Claimer(database, [Handling(WORK, handler)], poll_s=3600)
        async with running(claimer.run(), lambda: claimer.stop(grace_s=5)):
            await claimer.ready.wait()
            await plan(database, WORK)
            await asyncio.to_thread(claimer.wake, WORK.name)
            await eventually(lambda: read("select 1 from job where state = 'done'"))
        assert len(handler.seen) == 1

    async def test_no_more_run_at_once_than_there_are_places(
        self, database: Database, read: Read, eventually: Eventually
    ) -> None:
        handler = Handler(lambda _: asyncio.sleep(0.02))
        claimer = Claimer(database, [Handling(WORK, handler, concurrency=3)], poll_s=3600)
        await plan(database, WORK, count=10)
        async with running(claimer.run(), lambda: claimer.stop(grace_s=5)):
            await eventually(lambda: _all_done(read, 10))
        assert handler.most_at_once == 3
        assert len({claim.id for claim in handler.seen}) == 10

    async def test_two_claimers_share_and_never_do_a_job_twice(
        self, database: Database, read: Read, eventually: Eventually
    ) -> None:
        handlers = [Handler(lambda _: asyncio.sleep(0.005)) for _ in range(2)]
        first, second = (
            Claimer(database, [Handling(WORK, handler, concurrency=4)], poll_s=0.02)
            for handler in handlers
        )
        await plan(database, WORK, count=60)
        async with (
            running(first.run(), lambda: first.stop(grace_s=5)),
            running(second.run(), lambda: second.stop(grace_s=5)),
        ):
            await eventually(lambda: _all_done(read, 60))
        seen = [claim.id for handler in handlers for claim in handler.seen]
        assert len(seen) == len(set(seen)) == 60
        assert all(handler.seen for handler in handlers)

    async def test_a_job_planned_for_later_waits(self, database: Database) -> None:
        async with database.transaction() as session:
            await jobs.plan(session, WORK, dedupe="later", delay_s=3600)
            assert await jobs.due(session, [WORK.name]) == []
            assert await jobs.claim(session, WORK, limit=10) == []

    async def test_only_kinds_with_something_to_claim_are_due(self, database: Database) -> None:
        await plan(database, WORK)
        async with database.transaction() as session:
            assert await jobs.due(session, [SHORT.name, WORK.name]) == [WORK.name]

    async def test_planning_twice_makes_one_row_until_it_has_ended(
        self, database: Database, read: Read
    ) -> None:
        await plan(database, WORK)
        async with database.transaction() as session:
            assert not await jobs.plan(session, WORK, dedupe="0")
            (claim,) = await jobs.claim(session, WORK, limit=1)
            assert not await jobs.plan(session, WORK, dedupe="0")
            assert await jobs.end(session, claim, state="done")
            assert await jobs.plan(session, WORK, dedupe="0")
        assert [row["state"] for row in await read("select state from job order by id")] == [
            "done",
            "queued",
        ]

    async def test_it_goes_on_when_postgresql_comes_back(
        self, servers: Servers, database: Database, read: Read, eventually: Eventually
    ) -> None:
        handler = Handler()
        claimer = Claimer(database, [Handling(WORK, handler)], poll_s=0.1)
        async with running(claimer.run(), lambda: claimer.stop(grace_s=5)):
            await claimer.ready.wait()
            # In this thread: the server dies with the one that started it.
            servers.postgres.kill()
            await asyncio.sleep(0.5)
            servers.postgres.start()
            await eventually(lambda: _plans(database))
            await eventually(lambda: read("select 1 from job where state = 'done'"))
        assert len(handler.seen) == 1


class TestFailing:
    async def test_a_poison_job_is_tried_so_often_and_then_failed_with_its_error(
        self, database: Database, read: Read, eventually: Eventually
    ) -> None:
        async def fail(claim: Claim) -> None:
            raise ValueError(f"poisoned {claim.attempt}")

        handler = Handler(fail)
        claimer = Claimer(database, [Handling(WORK, handler)], poll_s=0.05)
        await plan(database, WORK)
        async with running(claimer.run(), lambda: claimer.stop(grace_s=5)):
            await eventually(lambda: read("select 1 from job where state = 'failed'"))
            await asyncio.sleep(0.3)
        (job,) = await read("select state, attempt, fence, error from job")
        assert [claim.attempt for claim in handler.seen] == [1, 2, 3]
        assert [claim.fence for claim in handler.seen] == [1, 2, 3]
        assert job == {
            "state": "failed",
            "attempt": 3,
            "fence": 3,
            "error": "ValueError: poisoned 3",
        }

    async def test_between_two_attempts_it_waits(
        self, database: Database, read: Read, eventually: Eventually
    ) -> None:
        async def fail(_: Claim) -> None:
            raise ValueError("not now")

        patient = JobKind("test.patient", "sweep", max_attempts=3, retry_s=100.0)
        handler = Handler(fail)
        claimer = Claimer(database, [Handling(patient, handler)], poll_s=0.02)
        await plan(database, patient)
        async with running(claimer.run(), lambda: claimer.stop(grace_s=5)):
            await eventually(lambda: read("select 1 from job where error is not null"))
            await asyncio.sleep(0.2)
        (job,) = await read(
            "select state, extract(epoch from run_at - clock_timestamp()) as left_s from job"
        )
        assert len(handler.seen) == 1
        assert job["state"] == "queued"
        assert 90 < job["left_s"] < 126

    async def test_a_refusal_ends_it_at_once(
        self, database: Database, read: Read, eventually: Eventually
    ) -> None:
        async def refuse(_: Claim) -> None:
            raise RouteNotFoundError

        handler = Handler(refuse)
        claimer = Claimer(database, [Handling(WORK, handler)], poll_s=0.05)
        await plan(database, WORK)
        async with running(claimer.run(), lambda: claimer.stop(grace_s=5)):
            await eventually(lambda: read("select 1 from job where state = 'failed'"))
        assert len(handler.seen) == 1

    async def test_an_attempt_beyond_its_deadline_is_cut_off(
        self, database: Database, read: Read, eventually: Eventually
    ) -> None:
        hasty = JobKind("test.hasty", "sweep", deadline_s=0.1, max_attempts=1)
        handler = Handler(lambda _: asyncio.sleep(3600))
        claimer = Claimer(database, [Handling(hasty, handler)], poll_s=0.05)
        await plan(database, hasty)
        async with running(claimer.run(), lambda: claimer.stop(grace_s=5)):
            await eventually(lambda: read("select 1 from job where state = 'failed'"))
        (job,) = await read("select error from job")
        assert job["error"] == "DeadlineError: it took longer than 0.1 s"
        assert handler.ended == 0


class TestLease:
    async def test_it_is_renewed_while_the_job_runs(
        self, database: Database, read: Read, eventually: Eventually
    ) -> None:
        handler = Handler(lambda _: asyncio.sleep(SHORT.lease_s * 3))
        claimer = Claimer(database, [Handling(SHORT, handler)], poll_s=0.05)
        await plan(database, SHORT)
        async with running(claimer.run(), lambda: claimer.stop(grace_s=5)):
            began = time.monotonic()
            while not await read("select 1 from job where state = 'done'"):
                assert time.monotonic() - began < 30
                async with database.transaction() as session:
                    assert await jobs.sweep(session, SHORT) == {}
                await asyncio.sleep(0.05)
        assert len(handler.seen) == handler.ended == 1

    async def test_whoever_lost_it_is_stopped_and_records_nothing(
        self, database: Database, read: Read, eventually: Eventually
    ) -> None:
        cancelled = asyncio.Event()

        async def work(_: Claim) -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        claimer = Claimer(database, [Handling(SHORT, Handler(work))], poll_s=3600)
        await plan(database, SHORT)
        async with running(claimer.run(), lambda: claimer.stop(grace_s=5)):
            await eventually(lambda: read("select 1 from job where state = 'running'"))
            await _steal(database)
            async with asyncio.timeout(10):
                await cancelled.wait()
            await asyncio.sleep(0.2)
            (job,) = await read("select state, fence, error from job")
        assert job == {"state": "running", "fence": 99, "error": None}

    async def test_a_zombie_s_late_word_is_refused(self, database: Database, read: Read) -> None:
        await plan(database, SHORT)
        async with database.transaction() as session:
            (zombie,) = await jobs.claim(session, SHORT, limit=1)
        await asyncio.sleep(SHORT.lease_s + 0.1)
        async with database.transaction() as session:
            assert await jobs.sweep(session, SHORT) == {"queued": 1}
            (heir,) = await jobs.claim(session, SHORT, limit=1)
        assert (heir.attempt, heir.fence) == (zombie.attempt + 1, zombie.fence + 1)
        async with database.transaction() as session:
            assert not await jobs.renew(session, zombie)
            assert not await jobs.end(session, zombie, state="done")
        assert (await read("select state from job"))[0]["state"] == "running"
        async with database.transaction() as session:
            assert await jobs.renew(session, heir)
            assert await jobs.end(session, heir, state="done")

    async def test_the_sweeper_ends_what_killed_its_worker_too_often(
        self, database: Database, read: Read
    ) -> None:
        deadly = JobKind("test.deadly", "sweep", lease_s=0.05, max_attempts=2)
        await plan(database, deadly)
        for expected in ({"queued": 1}, {"failed": 1}):
            async with database.transaction() as session:
                assert len(await jobs.claim(session, deadly, limit=1)) == 1
            await asyncio.sleep(0.1)
            async with database.transaction() as session:
                assert await jobs.sweep(session, deadly) == expected
        (job,) = await read("select state, attempt, error, ended_at is not null as ended from job")
        assert job == {"state": "failed", "attempt": 2, "error": "its worker died", "ended": True}


class TestStopping:
    async def test_running_jobs_may_end_and_nothing_more_is_claimed(
        self, database: Database, read: Read, eventually: Eventually
    ) -> None:
        handler = Handler(lambda _: asyncio.sleep(0.4))
        claimer = Claimer(database, [Handling(WORK, handler)], poll_s=0.05)
        await plan(database, WORK, count=2)
        async with running(claimer.run(), lambda: claimer.stop(grace_s=10)):
            await eventually(lambda: read("select 1 from job where state = 'running'"))
        states = await read("select state, attempt from job order by state")
        assert states == [{"state": "done", "attempt": 1}, {"state": "queued", "attempt": 0}]

    async def test_what_does_not_end_in_time_is_given_back_with_its_attempt_counted(
        self, database: Database, read: Read, eventually: Eventually
    ) -> None:
        handler = Handler(lambda _: asyncio.sleep(3600))
        claimer = Claimer(database, [Handling(WORK, handler)], poll_s=0.05)
        await plan(database, WORK)
        async with running(claimer.run(), lambda: claimer.stop(grace_s=0.1)):
            await eventually(lambda: read("select 1 from job where state = 'running'"))
        (job,) = await read("select state, attempt, run_at <= clock_timestamp() as is_due from job")
        assert job == {"state": "queued", "attempt": 1, "is_due": True}
        assert handler.ended == 0

    @pytest.mark.parametrize("grace_s", [0.0, 0.2])
    async def test_a_handler_that_will_not_be_cancelled_holds_nobody_up(
        self, database: Database, read: Read, eventually: Eventually, grace_s: float
    ) -> None:
        released = asyncio.Event()

        async def cling(_: Claim) -> None:
            while not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    continue

        claimer = Claimer(database, [Handling(WORK, Handler(cling))], poll_s=0.05)
        await plan(database, WORK)
        async with running(claimer.run(), lambda: claimer.stop(grace_s=grace_s)):
            await eventually(lambda: read("select 1 from job where state = 'running'"))
        assert (await read("select state from job"))[0]["state"] == "queued"
        released.set()
        await asyncio.sleep(0)


async def _all_done(read: Read, count: int) -> bool:
    (found,) = await read("select count(*) as done from job where state = 'done'")
    return bool(found["done"] == count)


async def _plans(database: Database) -> bool:
    try:
        await plan(database, WORK)
    except Exception:  # noqa: BLE001 - not back yet
        return False
    return True


async def _steal(database: Database) -> None:
    """As if the sweeper had given the job to somebody else."""
    await (await database.fast()).execute(
        "update job set fence = 99, lease_until = now() + interval '1 hour'"
    )
