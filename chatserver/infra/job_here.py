"""Does one waiting job in a process that is no worker, such as a command with `--here`.

The job is held as a worker holds it: whoever looks after jobs sees that somebody does it, and when
this process dies another goes on.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from chatserver.infra import jobs
from chatserver.infra.database import Database
from chatserver.infra.job_kinds import JobKind
from chatserver.infra.jobs import Claim
from chatserver.kernel.errors import UnavailableError
from chatserver.kernel.tasks import end


async def do_here(
    database: Database, kind: JobKind, *, dedupe: str, work: Callable[[], Coroutine[Any, Any, None]]
) -> bool:
    """Do a job that waits; False: there is none, or somebody else has it.

    What fails goes back to the queue, and its error to the caller.
    """
    async with database.transaction() as session:
        claim = await jobs.take(session, kind, dedupe=dedupe)
    if claim is None:
        return False
    working = asyncio.create_task(work())
    keeping = asyncio.create_task(_keep(database, claim))
    state = "queued"
    try:
        await asyncio.wait((working, keeping), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return False  # the lease was lost: somebody else does it now
        working.result()
        state = "done"
    finally:
        await end(working, keeping)
        async with database.transaction() as session:
            await jobs.end(session, claim, state=state)
    return True


async def _keep(database: Database, claim: Claim) -> None:
    """Prolong the lease until it is lost."""
    while True:
        await asyncio.sleep(claim.lease_s / 3)
        try:
            async with database.transaction() as session:
                if not await jobs.renew(session, claim):
                    return
        except UnavailableError:
            continue  # it stays as it was; who took it over meanwhile is seen next time
