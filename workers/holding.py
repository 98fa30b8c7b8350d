"""One claimed job: run it, keep its lease, record how it ended."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import structlog

from chatserver.infra import jobs, tracing
from chatserver.infra.database import Database
from chatserver.infra.job_kinds import JobKind
from chatserver.infra.jobs import Claim
from chatserver.kernel.errors import DomainError, UnavailableError
from workers.outcome import DONE, GIVEN_BACK, Outcome, after

# What the machinery may wait for a cancelled handler, and between tries when PostgreSQL is away.
CANCEL_S: Final = 1.0
AGAIN_S: Final = 0.5

Handler: TypeAlias = Callable[[Claim], Awaitable[None]]
# Told of each attempt: the kind, how it ended, and how many seconds it took.
Measured: TypeAlias = Callable[[str, str, float], None]
log = structlog.get_logger()


def unmeasured(_kind: str, _outcome: str, _seconds: float) -> None:
    """Measure nothing."""


@dataclass(frozen=True, slots=True)
class Handling:
    """Who does the jobs of a kind, and how many of them at a time in this process."""

    kind: JobKind
    handle: Handler
    concurrency: int = 1


class DeadlineError(Exception):
    """An attempt took longer than its kind allows."""


class Holding:
    """Holds a job from claim to outcome. No connection is kept while the handler runs.

    `asked_at` is when the claim was sent (monotonic seconds): counted from there our idea of the
    lease ends before PostgreSQL's does.
    """

    def __init__(
        self,
        database: Database,
        handling: Handling,
        claim: Claim,
        *,
        asked_at: float,
        measured: Measured = unmeasured,
    ) -> None:
        self._database = database
        self._handling = handling
        self._claim = claim
        self._ours_until = asked_at + claim.lease_s
        self._deadline = asked_at + handling.kind.deadline_s
        self._given_back = asyncio.Event()
        self._measured = measured

    def give_back(self) -> None:
        """Stop the work; the job goes back to the queue, its attempt counted."""
        self._given_back.set()

    async def run(self) -> None:
        """Do the whole of it. Never raises but for cancellation."""
        claim = self._claim
        with (
            structlog.contextvars.bound_contextvars(
                job=claim.kind, job_id=str(claim.id), attempt=claim.attempt, fence=claim.fence
            ),
            tracing.span(
                f"job {claim.kind}",
                parent=claim.traceparent,
                kind="consumer",
                attempt=claim.attempt,
            ) as span,
        ):
            began = time.monotonic()
            work = asyncio.ensure_future(self._handling.handle(claim))
            try:
                outcome = await self._attend(work)
            finally:
                if not work.done():
                    work.cancel()
            took_s = time.monotonic() - began
            if outcome is None:
                log.warning("job_lost")
                self._measured(claim.kind, "lost", took_s)
            elif await self._record(outcome):
                log.debug("job_ended", state=outcome.state)
                self._measured(claim.kind, _ended(outcome), took_s)
                if outcome is not DONE:
                    span.fails(_ended(outcome))
            else:
                self._measured(claim.kind, "lost", took_s)

    async def _attend(self, work: asyncio.Future[None]) -> Outcome | None:
        """Keep the lease until the work ends. None: the lease is lost, nothing may be recorded."""
        pause = self._claim.lease_s / 3
        stopping = asyncio.create_task(self._given_back.wait())
        either: tuple[asyncio.Future[Any], ...] = (work, stopping)
        try:
            while True:
                now = time.monotonic()
                await asyncio.wait(
                    either,
                    timeout=max(0.0, min(pause, self._deadline - now, self._ours_until - now)),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if work.done():
                    return self._judge(work)
                if stopping.done():
                    await _cancel(work)
                    return GIVEN_BACK
                if time.monotonic() >= self._deadline:
                    await _cancel(work)
                    return self._failure(
                        DeadlineError(f"it took longer than {self._handling.kind.deadline_s:g} s")
                    )
                kept = await self._renew()
                if kept is False or time.monotonic() >= self._ours_until:
                    await _cancel(work)
                    return None
                pause = self._claim.lease_s / 3 if kept else AGAIN_S
        finally:
            stopping.cancel()

    def _judge(self, work: asyncio.Future[None]) -> Outcome:
        if work.cancelled():
            return self._failure(RuntimeError("the handler cancelled itself"))
        error = work.exception()
        return DONE if error is None else self._failure(error)

    def _failure(self, error: BaseException) -> Outcome:
        outcome = after(self._handling.kind, self._claim, error)
        trace = None if isinstance(error, DomainError) else error
        if outcome.state == "failed":
            log.error("job_failed", error=outcome.error, exc_info=trace)
        else:
            again_in_s = round(outcome.delay_s, 1)
            log.warning(
                "job_attempt_failed", error=outcome.error, again_in_s=again_in_s, exc_info=trace
            )
        return outcome

    async def _renew(self) -> bool | None:
        """Prolong the lease. False: it is lost. None: PostgreSQL is away, it stays as it was."""
        asked_at = time.monotonic()
        try:
            async with (
                asyncio.timeout(max(0.0, self._ours_until - asked_at)),
                self._database.transaction() as session,
            ):
                kept = await jobs.renew(session, self._claim)
        except (UnavailableError, TimeoutError):
            return None
        if kept:
            self._ours_until = asked_at + self._claim.lease_s
        return kept

    async def _record(self, outcome: Outcome) -> bool:
        """Write the outcome while the job is ours; after that the sweeper gives it to another."""
        while (left := self._ours_until - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(left), self._database.transaction() as session:
                    recorded = await jobs.end(
                        session,
                        self._claim,
                        state=outcome.state,
                        error=outcome.error,
                        delay_s=outcome.delay_s,
                    )
            except (UnavailableError, TimeoutError):
                await asyncio.sleep(AGAIN_S)
                continue
            if not recorded:
                log.warning("job_lost")
            return recorded
        log.warning("job_outcome_lost", state=outcome.state)
        return False


def _ended(outcome: Outcome) -> str:
    if outcome is GIVEN_BACK:
        return "given_back"
    return "retried" if outcome.state == "queued" else outcome.state


async def _cancel(work: asyncio.Future[None]) -> None:
    work.cancel()
    await asyncio.wait({work}, timeout=CANCEL_S)
    if not work.done():
        log.error("handler_ignores_cancellation")
    elif not work.cancelled():
        work.exception()  # it is known that it did not end well; asyncio need not tell
