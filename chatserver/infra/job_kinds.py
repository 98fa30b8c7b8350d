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


DEACTIVATE_ROOMS: Final = JobKind("rooms.deactivate", "sweep")
RECHECK_ROOMS: Final = JobKind("rooms.recheck", "sweep")
PURGE_ROOM: Final = JobKind("rooms.purge", "sweep", max_attempts=20)
TRIM_RECORDS: Final = JobKind("records.trim", "sweep")
# Goes on where it stood: tried for days rather than given up.
ERASE_USER: Final = JobKind("users.erase", "sweep", deadline_s=3600.0, max_attempts=1000)
RETAIN: Final = JobKind("messages.retain", "sweep", deadline_s=3600.0)
# How often an event is tried is the runner's to say: it also tells what was wrong.
RUN_INBOUND: Final = JobKind(
    "webhooks.inbound", "webhook", deadline_s=120.0, max_attempts=1000, retry_s=2.0
)
REPLAY_EVENTS: Final = JobKind("webhooks.replay", "webhook", max_attempts=20)
TRIM_DELIVERIES: Final = JobKind("deliveries.trim", "sweep", deadline_s=3600.0)
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
        RUN_INBOUND,
        REPLAY_EVENTS,
        TRIM_DELIVERIES,
    )
}
