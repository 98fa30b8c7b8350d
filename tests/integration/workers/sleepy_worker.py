"""A worker process whose only kind of job sleeps, as long as its payload says for each attempt."""

import asyncio
import sys
from typing import Final

from chatserver.infra import logging
from chatserver.infra.database import Database
from chatserver.infra.job_kinds import JobKind
from chatserver.infra.jobs import Claim
from chatserver.infra.unit_of_work import Units
from workers.holding import Handling
from workers.runtime import Worker, run

SLEEP: Final = JobKind("test.sleep", "sweep", lease_s=1.0, max_attempts=5, retry_s=0.1)


async def sleep(claim: Claim) -> None:
    await asyncio.sleep(claim.payload["seconds"][claim.attempt - 1])


async def main(stopping: asyncio.Event) -> None:
    _, database_url, queue_url, grace_s = sys.argv
    logging.configure("info", "json")
    database = Database(database_url, name="sleepy worker", pool_size=5)
    units = Units(
        database,
        generation=lambda: 1,
        publish=lambda _: None,
        has_later=lambda _: False,
        ring=lambda: None,
    )
    await Worker(
        database=database,
        handlings=[Handling(SLEEP, sleep)],
        open_work=units.open(lambda work: work),
        later={},
        queue_url=queue_url,
        poll_s=0.1,
        grace_s=float(grace_s),
    ).run(stopping)
    await database.close()


if __name__ == "__main__":
    run(main)
