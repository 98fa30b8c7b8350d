"""The hot path of deliveries, on raw connections: claim what is due, write down how it went."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from chatserver.deliveries.models import Claim, Sent
from chatserver.deliveries.policies import SCHEDULE, Verdict
from chatserver.infra.database import Database, outages
from chatserver.kernel.principal import NOBODY

# Longer than whatever one try may take, with the wait for its turn in this process.
LEASE_S: Final = 60.0
# What is claimed beyond what may run at once: so that not every answer costs a walk.
AHEAD: Final = 2
SLICE: Final = 500
# Channels whose receivers can't tell a repeat from something new; how long one of them waits.
TOLD_ONCE: Final = ("email", "sms")
NEVER_TWICE: Final = ("sms",)
AGAIN_S: Final = 120.0

_CLAIM: Final = (
    "select o_id as id, o_client_id as client_id, o_target_id as target_id,"
    " o_source_id as source_id, o_source_seq as source_seq, o_generation as generation,"
    " o_fence as fence, o_attempts as attempts, o_tries as tries, o_age_s as age_s,"
    " o_left_s as left_s, o_concurrency as concurrency, o_is_plain as is_plain,"
    " o_is_probe as is_probe from delivery_claim($1, $2, $3, $4, $5, $6, $7)"
)
# The row's new state and the attempt together, for many at once; a lost lease writes neither.
_RECORD: Final = """
with given as (
  select * from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::float8[],
    $6::int[], $7::text[], $8::text[], $9::text[], $10::int[], $11::int[], $12::int[],
    $13::text[], $14::text[], $15::bigint[], $16::text[], $17::int[], $18::bytea[], $19::bytea[])
  as g(id, fence, state, reason, delay_s, counts, trigger, outcome, error, status, retry_after_s,
    latency_ms, peer, url, signed_at, signature, body_bytes, body_sha256, response)
), moved as (
  update delivery d set state = g.state, reason = g.reason, lease_until = null,
    attempts = d.attempts + g.counts,
    next_at = case when g.state = 'retry_wait'
      then clock_timestamp() + make_interval(secs => g.delay_s) else d.next_at end,
    settled_at = case when g.state = 'retry_wait' then null else statement_timestamp() end
  from given g where d.id = g.id and d.fence = g.fence and d.state = 'sending'
  returning d.id, d.client_id, d.target_id, d.generation, d.tries
), kept as (
  insert into delivery_attempt (delivery_id, generation, no, client_id, target_id, trigger,
    started_at, latency_ms, outcome, error, status, retry_after_s, peer, url, signed_at, signature,
    body_bytes, body_sha256, response)
  select m.id, m.generation, m.tries, m.client_id, m.target_id, g.trigger,
    statement_timestamp() - make_interval(secs => coalesce(g.latency_ms, 0) / 1000.0), g.latency_ms,
    g.outcome, g.error, g.status, g.retry_after_s, g.peer, g.url, g.signed_at, g.signature,
    g.body_bytes, g.body_sha256, g.response
  from moved m join given g on g.id = m.id
)
select id from moved
"""
# Never tried in the end: the try that was counted before is taken back.
_GIVE_BACK: Final = """
update delivery d set lease_until = null, tries = d.tries - 1,
  state = case when d.tries > 1 then 'retry_wait' else 'queued' end
from unnest($1::uuid[], $2::bigint[]) as g(id, fence)
where d.id = g.id and d.fence = g.fence and d.state = 'sending'
"""
# Whoever held it died or was stopped: nobody knows how far the try came. It counts, so that what
# kills its worker ends some day. What a person would get twice has one more try, after a while: by
# then whoever sends it may ask what became of it, and sends nothing that must not be repeated.
_TAKE_BACK: Final = """
with lost as (
  select id, channel = any ($4::text[]) as may_repeat,
    attempts + 1 >= $2 or channel = any ($5::text[])
      or (channel = any ($4::text[]) and exists (select from delivery_attempt a
        where a.delivery_id = delivery.id and a.generation = delivery.generation
          and a.outcome = 'unknown')) as is_over
  from delivery where state = 'sending' and lease_until < clock_timestamp()
  limit $1 for update skip locked
), moved as (
  update delivery d set fence = d.fence + 1, lease_until = null, attempts = d.attempts + 1,
    state = case when lost.is_over then 'failed' else 'retry_wait' end,
    reason = case when lost.may_repeat then 'unknown_outcome'
      when lost.is_over then 'exhausted' else 'interrupted' end,
    next_at = clock_timestamp()
      + case when lost.may_repeat then make_interval(secs => $3) else interval '0' end,
    settled_at = case when lost.is_over then clock_timestamp() end
  from lost where d.id = lost.id
  returning d.id, d.client_id, d.target_id, d.generation, d.tries
), kept as (
  insert into delivery_attempt
    (delivery_id, generation, no, client_id, target_id, trigger, outcome, error)
  select id, generation, tries, client_id, target_id, 'auto', 'unknown', 'interrupted' from moved
  on conflict do nothing
)
select count(*) from moved
"""
# Where one of several addresses has it, it did not come to nothing.
_EXPIRE: Final = """
update delivery d set settled_at = clock_timestamp(),
  state = case when p.is_there then 'accepted' else 'expired' end,
  reason = case when not p.is_there then 'deadline' end
from (select x.id, exists (select from delivery_attempt_part a where a.delivery_id = x.id
    and a.generation = x.generation and a.outcome = 'accepted') as is_there
  from delivery x) p
where p.id = d.id and d.id = any (array(
  select id from delivery where state in ('scheduled', 'queued', 'retry_wait')
    and expires_at <= clock_timestamp() limit $1 for update skip locked))
"""
# What still waits for a target that is disabled or was deleted.
_SETTLE: Final = """
update delivery d set settled_at = clock_timestamp(),
  state = case when t.state = 'deleted' then 'cancelled' else 'failed' end,
  reason = 'target_' || t.state
from delivery_target t
where t.id = d.target_id and d.id = any (array(
  select w.id from delivery_target x join delivery w on w.channel = x.channel
    and w.target_id = x.id and w.state in ('scheduled', 'queued', 'retry_wait')
  where x.state in ('disabled', 'deleted') limit $1 for update of w skip locked))
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """A try that is over, and what it was decided to mean for its delivery."""

    claim: Claim
    sent: Sent
    verdict: Verdict


class DeliveryQueue:
    """`drain_per_s`: how fast what gathered during a pause goes out, for each target."""

    def __init__(self, database: Database, *, drain_per_s: float) -> None:
        self._database = database
        self._drain_per_s = drain_per_s

    async def claim(
        self,
        channel: str,
        *,
        limit: int,
        after: UUID = NOBODY,
        full: Sequence[UUID] = (),
    ) -> list[Claim]:
        """Take due deliveries, of every client and target in turn, from the target after `after`.

        Clients in `full` are passed over. The try is counted before it runs.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        rows = await self._fetch(
            _CLAIM, channel, limit, AHEAD, after, list(full), LEASE_S, self._drain_per_s
        )
        return [Claim(**row) for row in rows]

    async def record(self, ended: Sequence[Ended]) -> list[bool]:
        """Write down tries with what follows; False for each whose lease was lost.

        Raises:
            UnavailableError: PostgreSQL is away; nothing was written.
        """
        rows = await self._fetch(_RECORD, *_columns(ended))
        written = {row["id"] for row in rows}
        return [each.claim.id in written for each in ended]

    async def give_back(self, claims: Sequence[Claim]) -> None:
        """Let go of what was not begun."""
        await self._execute(
            _GIVE_BACK, [claim.id for claim in claims], [claim.fence for claim in claims]
        )

    async def take_back(self) -> int:
        """Queue again what workers held that died; how many it were."""
        rows = await self._fetch(
            _TAKE_BACK, SLICE, len(SCHEDULE), AGAIN_S, list(TOLD_ONCE), list(NEVER_TWICE)
        )
        return int(rows[0][0])

    async def settle(self) -> int:
        """End what has no more time or no more target; how many it were, a slice at a time."""
        return await self._execute(_EXPIRE, SLICE) + await self._execute(_SETTLE, SLICE)

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        with outages():
            pool = await self._database.writing()
            return list(await pool.fetch(statement, *values))

    async def _execute(self, statement: str, *values: object) -> int:
        with outages():
            pool = await self._database.writing()
            done = await pool.execute(statement, *values)
        return int(done.rpartition(" ")[2])


def _columns(ended: Sequence[Ended]) -> tuple[list[object], ...]:
    rows = [
        (
            each.claim.id,
            each.claim.fence,
            each.verdict.state,
            each.verdict.reason,
            each.verdict.delay_s,
            int(each.verdict.counts),
            each.claim.trigger,
            each.sent.outcome,
            each.sent.error,
            each.sent.status,
            None if each.sent.retry_after_s is None else int(each.sent.retry_after_s),
            each.sent.latency_ms,
            each.sent.peer,
            each.sent.url,
            each.sent.signed_at,
            each.sent.signature,
            each.sent.body_bytes,
            each.sent.body_sha256,
            each.sent.response,
        )
        for each in ended
    ]
    return tuple(list(column) for column in zip(*rows, strict=True))
