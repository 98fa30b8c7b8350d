"""`python -m workers [worker | scheduler]`: settings in, a process out."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Final

import structlog
from asyncpg import PostgresError

from chatserver.assistant.retrieval.indexing import Indexer
from chatserver.bootstrap import Container
from chatserver.infra import logging
from chatserver.infra.database import Database
from chatserver.infra.job_kinds import SEND_DELIVERIES, SEND_NOTIFICATIONS
from chatserver.infra.jobs import Doorbell
from chatserver.kernel.clock import utc_now
from chatserver.kernel.errors import OperatorError
from chatserver.kernel.tasks import end
from chatserver.observing import redis_uses, reporting
from chatserver.reactions import LATER
from chatserver.settings import Settings, load
from chatserver.webhooks.endpoints.models import CHANNEL
from workers.absences import AbsenceLane
from workers.assistant import AnswerJobs
from workers.batches import BatchJobs
from workers.condition import Condition
from workers.deliveries import Lane
from workers.documents import DocumentJobs
from workers.figures import SchedulerFigures, WorkFigures
from workers.files import FileJobs
from workers.mail_events import MailEventJobs
from workers.notifications import NotificationLanes
from workers.observing import ClaimProbe, PartObservation
from workers.privacy import PrivacyJobs
from workers.records import RecordJobs
from workers.rooms import RoomJobs
from workers.runtime import Worker, run
from workers.scheduler import Scheduler
from workers.search import SearchJobs
from workers.sources import SourceJobs
from workers.standing import Standing
from workers.watching import DeliveryWatch
from workers.webhooks import WebhookJobs

INDEX_EVERY_S: Final = 60.0

log = structlog.get_logger()


def main(arguments: Sequence[str]) -> None:
    """Run one process until it is told to stop; leaves with a message when it can't begin."""
    part = " ".join(arguments) or "worker"
    if part not in PARTS:
        sys.exit("usage: python -m workers [worker | scheduler]")
    try:
        settings = load()
        logging.configure(settings.log_level, settings.log_format, settings.log_file)
    except OperatorError as error:
        sys.exit(str(error))
    with reporting(settings, part):
        run(lambda stopping: PARTS[part](settings, stopping))


async def worker(settings: Settings, stopping: asyncio.Event) -> None:
    """Do jobs and dispatch the outbox."""
    container = Container(settings, name="chatserver worker")
    await container.start()
    await container.assistant.start_working()
    try:
        handlings = (
            *RoomJobs(
                open_rooms=container.open_rooms, is_held=container.privacy.is_room_held
            ).handlings(),
            *PrivacyJobs(
                eraser=container.privacy.eraser, keeper=container.privacy.keeper
            ).handlings(),
            *FileJobs(service=container.files.service, janitor=container.files.janitor).handlings(),
            *AnswerJobs(
                handler=container.assistant.handler,
                open_answers=container.assistant.open_answers,
                at_once=settings.answers_per_worker,
            ).handlings(),
            *DocumentJobs(
                trainer=container.documents.trainer,
                purger=container.documents.purger,
                reembedder=container.documents.reembedder,
                settler=container.documents.settler,
            ).handlings(),
            *SearchJobs(indexer=container.search.indexer).handlings(),
            *RecordJobs(database=container.database).handlings(),
            *SourceJobs(container.sources.runner).handlings(),
            *BatchJobs(container.sending.open_batches).handlings(),
            *MailEventJobs(
                container.sending.open_callbacks,
                mailgun=container.providers.mailgun,
                lost=container.sending.lost,
                clock=utc_now,
            ).handlings(),
            *DeliveryWatch(container.database, container.webhooks.open_failures).handlings(),
            *WebhookJobs(container.webhooks.open_replays, container.database).handlings(),
        )
        hooks = container.webhooks
        lane = Lane(
            channel=CHANNEL,
            queue=hooks.queue,
            sender=hooks.sender,
            notes=hooks.notes,
            slots=settings.webhooks.slots,
        )
        hooks.wake_here = lane.wake
        notifications = NotificationLanes(
            queue=container.sending.queue,
            senders=container.sending.senders,
            notes=container.sending.notes,
            slots=settings.webhooks.slots,
        )
        container.sending.wake_here = notifications.wake
        indexing = asyncio.create_task(container.search.indexer.run(container.search.leader))
        lanes = {
            SEND_DELIVERIES: lane,
            **{f"{SEND_NOTIFICATIONS}.{at}": each for at, each in enumerate(notifications.lanes)},
        }
        observed = PartObservation(
            settings,
            part="worker",
            database=container.database,
            doorbell=container.doorbell,
            redis=dict(redis_uses(container)),
        )
        figures = WorkFigures(observed.figures, container)
        absences = AbsenceLane(
            notices=container.absences.lookup,
            open_absences=container.absences.open_absences,
            present=container.absences.present,
        )
        looking = asyncio.create_task(absences.run())
        try:
            running = Worker(
                database=container.database,
                handlings=handlings,
                open_work=container.open(lambda work: work),
                later=LATER,
                together=(hooks.plan,),
                lanes=lanes,
                bells={SEND_NOTIFICATIONS: notifications.wake},
                queue_url=settings.queue_url,
                grace_s=settings.worker_grace_s,
                measured=figures.attempted,
            )
            figures.attach(running, list(lanes.values()))
            async with observed.serving(look=_nothing, probes=[ClaimProbe(running.claimer)]):
                await running.run(stopping)
        finally:
            await end(indexing, looking)
    finally:
        await container.stop()


async def scheduler(settings: Settings, stopping: asyncio.Event) -> None:
    """Plan periodic jobs and sweep, or stand by for whoever does."""
    database = Database(
        settings.database_url.get_secret_value(), name="chatserver scheduler", pool_size=1
    )
    doorbell = Doorbell(settings.queue_url)
    role = Scheduler(database, doorbell)
    observed = PartObservation(settings, part="scheduler", database=database, doorbell=doorbell)
    SchedulerFigures(observed.figures, role)
    standing = Standing(observed.figures, database=database, scheduler=role)
    announcing = asyncio.create_task(_announce(role))
    serving = asyncio.create_task(role.run())
    indexing = asyncio.create_task(_index(settings))
    try:
        async with observed.serving(look=standing.look):
            await stopping.wait()
            log.info("scheduler_stopping")
            role.stop()
            await asyncio.wait([serving], timeout=8)
    finally:
        await end(announcing, serving, indexing)
        await doorbell.close()
        await database.close()


async def _nothing() -> None:
    """Look at nothing: all figures of a worker are kept up to date."""


async def _announce(role: Scheduler) -> None:
    await role.ready.wait()
    log.info("scheduler_ready")


async def _index(settings: Settings) -> None:
    """Build the vector indexes of large bots, where the migrator's rights are at hand."""
    if settings.migrator_database_url is None:
        return
    indexer = Indexer(settings.migrator_database_url.get_secret_value())
    condition = Condition("vector indexes", outages=(OSError, TimeoutError, PostgresError))
    while True:
        await asyncio.sleep(INDEX_EVERY_S)
        try:
            await indexer.build_due()
        except Exception as error:  # noqa: BLE001 - told once; searches are exact meanwhile
            condition.fails(error)
        else:
            condition.works()


PARTS: Final = {"worker": worker, "scheduler": scheduler}
