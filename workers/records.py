"""What rows age out, and their removal: in slices, so that no statement is long and none waits."""

from typing import Final

from sqlalchemy import text

from chatserver.infra.database import Database
from chatserver.infra.job_kinds import TRIM_RECORDS
from chatserver.infra.jobs import Claim
from workers.holding import Handling

SLICE: Final = 1000

# Each finds its rows by an index on their age, and passes by those that somebody holds.
_AGED: Final = (
    # Contract: an `Idempotency-Key` is remembered for 24 hours.
    text(
        "delete from idempotency where ctid = any(array("
        "select ctid from idempotency"
        " where created_at < statement_timestamp() - interval '24 hours'"
        " limit :limit for update skip locked))"
    ),
    # Contract: `sync` tells for 90 days which rooms a user is no longer in.
    text(
        "delete from departure where ctid = any(array("
        "select ctid from departure where at < statement_timestamp() - interval '90 days'"
        " limit :limit for update skip locked))"
    ),
    # Whoever needs the audit log for longer reads it out: it names people.
    text(
        "delete from audit where ctid = any(array("
        "select ctid from audit where at < clock_timestamp() - interval '400 days'"
        " limit :limit for update skip locked))"
    ),
    # An invite ended for everyone long ago; a settled flag, and one whose message never came.
    text(
        "delete from invite where ctid = any(array("
        "select ctid from invite where expires_at < statement_timestamp() - interval '90 days'"
        " limit :limit for update skip locked))"
    ),
    text(
        "delete from flag where ctid = any(array("
        "select ctid from flag f where created_at < statement_timestamp() - interval '1 day'"
        " and (not exists (select from message m where m.id = f.message_id)"
        "   or (state <> 'open' and created_at < statement_timestamp() - interval '400 days'))"
        " limit :limit for update skip locked))"
    ),
    text(
        "delete from client_usage where ctid = any(array("
        "select ctid from client_usage where starts_at < clock_timestamp() - interval '90 days'"
        " limit :limit for update skip locked))"
    ),
    # By then no token of that name can live any more.
    text(
        "delete from revoked_token where ctid = any(array("
        "select ctid from revoked_token where kept_until < clock_timestamp()"
        " limit :limit for update skip locked))"
    ),
    text(
        "delete from in_app_notification where ctid = any(array("
        "select ctid from in_app_notification"
        " where created_at < statement_timestamp() - interval '90 days'"
        " limit :limit for update skip locked))"
    ),
    # The room is gone, or a fault has kept it for a day.
    text(
        "delete from message_notice where ctid = any(array("
        "select ctid from message_notice"
        " where due_at < statement_timestamp() - interval '1 day'"
        " limit :limit for update skip locked))"
    ),
    # What was said is of no use a day after the last of it may be sent.
    text(
        "delete from notification_content where ctid = any(array("
        "select ctid from notification_content where purge_at < statement_timestamp()"
        " limit :limit for update skip locked))"
    ),
    # Then nothing needs its files any more.
    text(
        "delete from notification_file where ctid = any(array("
        "select ctid from notification_file where purge_at < statement_timestamp()"
        " limit :limit for update skip locked))"
    ),
    text(
        "delete from suppression where ctid = any(array("
        "select ctid from suppression where expires_at < statement_timestamp()"
        " limit :limit for update skip locked))"
    ),
    # Older ones do not count any more.
    text(
        "delete from soft_bounce where ctid = any(array("
        "select ctid from soft_bounce where at < statement_timestamp() - interval '14 days'"
        " limit :limit for update skip locked))"
    ),
    # Contract: ids of inbound webhooks are kept for 90 days.
    text(
        "delete from inbound_event where ctid = any(array("
        "select ctid from inbound_event"
        " where received_at < statement_timestamp() - interval '90 days'"
        " limit :limit for update skip locked))"
    ),
    # Its reactions failed again and again; by then nobody will try once more. There are few.
    text(
        "delete from outbox where ctid = any(array("
        "select ctid from outbox where set_aside_at < statement_timestamp() - interval '30 days'"
        " limit :limit for update skip locked))"
    ),
    # A row for each day, bot and model.
    text(
        "delete from ai_usage where ctid = any(array("
        "select ctid from ai_usage where day < current_date - interval '400 days'"
        " limit :limit for update skip locked))"
    ),
    text(
        "delete from job where ctid = any(array("
        "select ctid from job where ended_at < statement_timestamp() - interval '7 days'"
        " limit :limit for update skip locked))"
    ),
)
# A family's last 64 generations tell reuse from a mistake; none lives longer than 90 days. Of a
# family that ended for good nobody asks after so long: its keys are unknown then, and not revoked.
_RETIRED: Final = text(
    "with page as materialized (select kid, cur_gen from key_family where kid > :after"
    "   order by kid limit :limit),"
    " gone as (delete from key_retired using page where key_retired.kid = page.kid"
    "   and (key_retired.gen < page.cur_gen - 64"
    "     or key_retired.retired_at < statement_timestamp() - interval '90 days')),"
    " ended as (delete from key_family using page where key_family.kid = page.kid"
    "   and key_family.abs_expires_at < statement_timestamp() - interval '90 days')"
    " select max(kid) from page"
)


class RecordJobs:
    def __init__(self, *, database: Database) -> None:
        self._database = database

    def handlings(self) -> tuple[Handling, ...]:
        return (Handling(TRIM_RECORDS, self.trim),)

    async def trim(self, _: Claim) -> None:
        for statement in _AGED:
            removed = SLICE
            while removed == SLICE:
                async with self._database.transaction() as session:
                    done = await session.execute(statement, {"limit": SLICE})
                    removed = done.rowcount  # type: ignore[attr-defined]  # of a delete
        # Walked family by family: found by age, all of them would have to be read every hour.
        kid: str | None = ""
        while kid is not None:
            async with self._database.transaction() as session:
                page = await session.execute(_RETIRED, {"after": kid, "limit": SLICE})
                kid = page.scalar_one()
