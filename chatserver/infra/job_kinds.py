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
CHECK_FILE: Final = JobKind("files.check", "sweep", deadline_s=300.0, max_attempts=20)
SWEEP_FILES: Final = JobKind("files.sweep", "sweep")
# Reads all messages of a client: begun anew it does the same again, so it may be tried often.
REINDEX: Final = JobKind("search.reindex", "sweep", deadline_s=3600.0, max_attempts=20)
DISPATCH_OUTBOX: Final = "outbox.dispatch"
KINDS: Final = {
    kind.name: kind
    for kind in (
        *(DEACTIVATE_ROOMS, RECHECK_ROOMS, PURGE_ROOM, TRIM_RECORDS, ERASE_USER, RETAIN),
        *(CHECK_FILE, SWEEP_FILES, REINDEX),
    )
}
