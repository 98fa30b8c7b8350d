"""Every kind of job in one table: its queue, its lease, how often it may be tried."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class JobKind:
    """A kind of job: its queue (at most five in all), its lease and how often it may be tried.

    `lease_s`: a worker that does not renew for so long is taken for dead. `deadline_s`: one attempt
    that takes longer is cut off. `retry_s` is the first pause between attempts, doubled each time.
    """

    name: str
    queue: str
    lease_s: float = 30.0
    deadline_s: float = 600.0
    max_attempts: int = 3
    retry_s: float = 5.0
    # How often dead workers of this kind are looked for: after a kill a job waits for lease + this.
    sweep_s: float = 5.0


DEACTIVATE_ROOMS: Final = JobKind("rooms.deactivate", "sweep")
RECHECK_ROOMS: Final = JobKind("rooms.recheck", "sweep")
PURGE_ROOM: Final = JobKind("rooms.purge", "sweep", max_attempts=20)
TRIM_RECORDS: Final = JobKind("records.trim", "sweep")
# Goes on where it stood: tried for days rather than given up.
ERASE_USER: Final = JobKind("users.erase", "sweep", deadline_s=3600.0, max_attempts=1000)
RETAIN: Final = JobKind("messages.retain", "sweep", deadline_s=3600.0)
CHECK_FILE: Final = JobKind("files.check", "sweep", deadline_s=300.0, max_attempts=20)
SWEEP_FILES: Final = JobKind("files.sweep", "sweep")
# How often an event is tried is the runner's to say: it also tells what was wrong.
RUN_INBOUND: Final = JobKind(
    "webhooks.inbound", "webhook", deadline_s=120.0, max_attempts=1000, retry_s=2.0
)
REPLAY_EVENTS: Final = JobKind("webhooks.replay", "webhook", max_attempts=20)
TRIM_DELIVERIES: Final = JobKind("deliveries.trim", "sweep", deadline_s=3600.0)
# Waits for the client's next quota, if need be for a day.
SEND_BATCH: Final = JobKind("notifications.batch", "mail", max_attempts=1000)
WATCH_DELIVERIES: Final = JobKind("deliveries.watch", "sweep")
ASK_FOR_EVENTS: Final = JobKind("notifications.events", "mail", deadline_s=540.0)
# Taken over within 15 s of a kill. How often it is tried is the answer's own affair: `generation`.
WRITE_ANSWER: Final = JobKind(
    "assistant.answer",
    "llm",
    lease_s=10.0,
    deadline_s=3600.0,
    max_attempts=1000,
    retry_s=1.0,
    sweep_s=2.0,
)
CONSIDER_ANSWER: Final = JobKind("assistant.consider", "llm", max_attempts=20, retry_s=1.0)
# A large document takes minutes on two cores; whoever takes over embeds only what is missing.
PROCESS_DOCUMENT: Final = JobKind(
    "documents.process", "ingest", lease_s=10.0, deadline_s=3600.0, max_attempts=5
)
PURGE_DOCUMENTS: Final = JobKind("documents.purge", "ingest", max_attempts=1000)
REEMBED_BOT: Final = JobKind("documents.reembed", "ingest", deadline_s=86_400.0, max_attempts=20)
SETTLE_DOCUMENTS: Final = JobKind("documents.settle", "sweep")
# Reads all messages of a client: begun anew it does the same again, so it may be tried often.
REINDEX: Final = JobKind("search.reindex", "sweep", deadline_s=3600.0, max_attempts=20)
DISPATCH_OUTBOX: Final = "outbox.dispatch"
# No job: deliveries are rows of their own, and this bell only says that there are some.
SEND_DELIVERIES: Final = "deliveries.send"
SEND_NOTIFICATIONS: Final = "notifications.send"
KINDS: Final = {
    kind.name: kind
    for kind in (
        DEACTIVATE_ROOMS,
        RECHECK_ROOMS,
        PURGE_ROOM,
        TRIM_RECORDS,
        ERASE_USER,
        RETAIN,
        CHECK_FILE,
        SWEEP_FILES,
        RUN_INBOUND,
        REPLAY_EVENTS,
        TRIM_DELIVERIES,
        WATCH_DELIVERIES,
        ASK_FOR_EVENTS,
        SEND_BATCH,
        WRITE_ANSWER,
        CONSIDER_ANSWER,
        PROCESS_DOCUMENT,
        PURGE_DOCUMENTS,
        REEMBED_BOT,
        SETTLE_DOCUMENTS,
        REINDEX,
    )
}
