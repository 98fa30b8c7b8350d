"""Closes readings that no worker will finish, and lets go of old records."""

from typing import Final, Protocol
from uuid import UUID

from sqlalchemy import text

from chatserver.infra.job_kinds import PROCESS_DOCUMENT, REEMBED_BOT
from chatserver.infra.unit_of_work import UnitOfWork
from chatserver.kernel.opening import Open

SLICE: Final = 200
KEPT_DAYS: Final = 30

# The worker's job was given up, or is gone: each of its tries died with its worker.
_LOST: Final = text("""
select t.client_id, t.id, t.kind from training_job t
where t.ended_at is null
  and t.created_at < clock_timestamp() - interval '30 s'
  and not exists (select from job j where j.state in ('queued', 'running')
    and j.kind = case t.kind when 'reembed' then :reembed else :process end
    and j.dedupe = t.id::text)
order by t.created_at limit :slice
""")
_OLD_JOBS: Final = text("""
delete from training_job where ctid = any (array(select ctid from training_job
  where ended_at < clock_timestamp() - make_interval(days => :days) limit :slice))
""")
_OLD_RECEIPTS: Final = text("""
delete from retrieval where ctid = any (array(select ctid from retrieval
  where created_at < clock_timestamp() - make_interval(days => :days) limit :slice))
""")


class Trainer(Protocol):
    async def give_up(self, client_id: UUID, job_id: UUID, reason: str) -> None: ...


class Settler:
    def __init__(
        self, *, open_work: Open[UnitOfWork], trainer: Trainer, reembedder: Trainer
    ) -> None:
        self._open_work = open_work
        self._trainers = {"process": trainer, "reembed": reembedder}

    async def settle(self) -> None:
        """Fail what was lost, so that nobody waits for it; drop what is older than 30 days."""
        async with self._open_work() as work:
            names = {
                "process": PROCESS_DOCUMENT.name,
                "reembed": REEMBED_BOT.name,
                "slice": SLICE,
            }
            lost = (await work.session.execute(_LOST, names)).all()
        for each in lost:
            await self._trainers[each.kind].give_up(each.client_id, each.id, "worker_lost")
        for statement in (_OLD_JOBS, _OLD_RECEIPTS):
            gone = SLICE
            while gone == SLICE:
                async with self._open_work() as work:
                    result = await work.session.execute(
                        statement, {"days": KEPT_DAYS, "slice": SLICE}
                    )
                    gone = result.rowcount  # type: ignore[attr-defined]  # of a delete
