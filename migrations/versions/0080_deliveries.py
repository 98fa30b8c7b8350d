"""Deliveries: what is due, where to, and every try.

Revision ID: 0080
Revises: 0070
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0080"
down_revision: str | None = "0070"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

WAITING = "state in ('scheduled', 'queued', 'retry_wait')"

# Walks through the targets that have something waiting, one client's after another's, from the one
# that had its turn last: one look into an index each. `p_full` are clients that have enough.
#
# A target that is well gets up to `p_ahead` times what it may have at once, less what is on its way
# already: so a walk need not follow each answer. One that never took anything, or is paused, gets
# one. Where a rate limits it, its tokens are counted under its lock.
CLAIM = """
create function delivery_claim(
  p_channel text, p_limit integer, p_ahead integer, p_start uuid, p_full uuid[],
  p_lease double precision, p_drain double precision)
returns table (
  o_id uuid, o_client_id uuid, o_target_id uuid, o_source_id uuid, o_source_seq bigint,
  o_generation integer, o_fence bigint, o_attempts integer, o_tries integer,
  o_age_s double precision, o_left_s double precision, o_concurrency integer, o_is_plain boolean,
  o_is_probe boolean)
language plpgsql volatile
set search_path = public, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_left integer := p_limit;
  v_most integer;
  v_take integer;
  v_done integer;
  v_busy integer;
  v_rate double precision;
  v_tokens double precision;
  t record;
begin
  for t in
    with recursive above (target_id) as (
      (select d.target_id from delivery d
       where d.channel = p_channel and d.state in ('scheduled', 'queued', 'retry_wait')
         and d.target_id > p_start order by d.target_id limit 1)
      union all
      select (select d.target_id from delivery d
        where d.channel = p_channel and d.state in ('scheduled', 'queued', 'retry_wait')
          and d.target_id > above.target_id order by d.target_id limit 1)
      from above where above.target_id is not null
    ), below (target_id) as (
      (select d.target_id from delivery d
       where d.channel = p_channel and d.state in ('scheduled', 'queued', 'retry_wait')
         and d.target_id <= p_start order by d.target_id limit 1)
      union all
      select (select d.target_id from delivery d
        where d.channel = p_channel and d.state in ('scheduled', 'queued', 'retry_wait')
          and d.target_id > below.target_id and d.target_id <= p_start
        order by d.target_id limit 1)
      from below where below.target_id is not null
    ), found as (
      select 0 as lap, above.target_id from above where above.target_id is not null
      union all
      select 1, below.target_id from below where below.target_id is not null
    )
    select x.* from found f join delivery_target x on x.id = f.target_id
      join client c on c.id = x.client_id and c.status = 'active'
    where x.state not in ('disabled', 'deleted')
      and (x.open_until is null or x.open_until <= v_now)
      and x.client_id <> all (p_full)
    order by row_number() over (partition by x.client_id order by f.lap, x.id), f.lap, x.id
  loop
    v_rate := coalesce(t.rate_per_s, case when t.is_draining then p_drain end);
    if t.state = 'paused' or v_rate is not null then
      perform from delivery_target x
        where x.id = t.id and x.state = t.state and x.tokens_at = t.tokens_at
          and x.open_until is not distinct from t.open_until
        for update skip locked;
      continue when not found;
    end if;
    v_busy := (select count(*) from delivery d where d.target_id = t.id and d.state = 'sending');
    v_most := case when t.state = 'paused' or not t.is_proven then 1
      else t.concurrency * p_ahead end;
    v_take := least(v_left, v_most - v_busy);
    -- Little by little would mean a walk for each.
    continue when v_take <= 0 or (v_take < v_left and v_take * 2 < v_most);
    if v_rate is not null and t.state <> 'paused' then
      v_tokens := least(greatest(v_rate, 1),
        t.tokens + v_rate * extract(epoch from v_now - t.tokens_at));
      v_take := least(v_take, floor(v_tokens)::integer);
      continue when v_take <= 0;
    end if;
    return query
      with due as materialized (
        select d.id from delivery d
        where d.channel = p_channel and d.target_id = t.id
          and d.state in ('scheduled', 'queued', 'retry_wait') and d.next_at <= v_now
        order by d.priority, d.next_at limit v_take for update skip locked)
      update delivery d set state = 'sending', fence = d.fence + 1, tries = d.tries + 1,
        lease_until = v_now + make_interval(secs => p_lease)
      from due where d.id = due.id
      returning d.id, d.client_id, d.target_id, d.source_id, d.source_seq, d.generation, d.fence,
        d.attempts, d.tries, extract(epoch from v_now - d.created_at)::float8,
        extract(epoch from d.expires_at - v_now)::float8, t.concurrency::integer,
        t.state = 'active' and t.failures = 0 and t.is_proven, t.state = 'paused';
    get diagnostics v_done = row_count;
    if v_rate is not null and t.state <> 'paused' then
      update delivery_target x set tokens = v_tokens - v_done, tokens_at = v_now,
        is_draining = x.is_draining and v_done = v_take
      where x.id = t.id;
    end if;
    v_left := v_left - v_done;
    exit when v_left <= 0;
  end loop;
end
$$
"""
_SIGNATURE = (
    "delivery_claim(text, integer, integer, uuid, uuid[], double precision, double precision)"
)


def _time(name: str, *, nullable: bool = True) -> "sa.Column[object]":
    default = None if nullable else sa.text("clock_timestamp()")
    return sa.Column(name, sa.DateTime(timezone=True), server_default=default, nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "delivery_target",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        _time("since", nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("rate_per_s", sa.Float(), nullable=True),
        sa.Column("is_proven", sa.Boolean(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        _time("first_failure_at"),
        sa.Column("opened", sa.Integer(), nullable=False),
        _time("open_until"),
        sa.Column("is_draining", sa.Boolean(), nullable=False),
        sa.Column("tokens", sa.Float(), server_default="0", nullable=False),
        _time("tokens_at", nullable=False),
        _time("told_at"),
        _time("warned_at"),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_delivery_target_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery_target")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_delivery_target_client_id_id")),
    )
    op.create_table(
        "delivery",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("target_id", sa.UUID(), nullable=False),
        sa.Column("source_id", sa.UUID(), nullable=False),
        sa.Column("source_seq", sa.BigInteger(), nullable=True),
        sa.Column("priority", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        _time("next_at", nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        _time("lease_until"),
        sa.Column("replayed_by", sa.String(length=160), nullable=True),
        _time("created_at", nullable=False),
        _time("settled_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.UniqueConstraint("client_id", "id", name=op.f("uq_delivery_client_id_id")),
    )
    waiting = sa.text(WAITING)
    op.create_index(
        "ix_delivery_due",
        "delivery",
        ["channel", "target_id", "priority", "next_at"],
        unique=False,
        postgresql_where=waiting,
    )
    op.create_index(
        "ix_delivery_sending",
        "delivery",
        ["target_id"],
        unique=False,
        postgresql_where=sa.text("state = 'sending'"),
    )
    op.create_index(
        "ix_delivery_expires_at",
        "delivery",
        ["expires_at"],
        unique=False,
        postgresql_where=waiting,
    )
    op.create_index(
        "uq_delivery_target_id_source_seq", "delivery", ["target_id", "source_seq"], unique=True
    )
    op.create_table(
        "delivery_attempt",
        sa.Column("delivery_id", sa.UUID(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("no", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("target_id", sa.UUID(), nullable=False),
        sa.Column("trigger", sa.String(length=16), nullable=False),
        _time("started_at", nullable=False),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("error", sa.String(length=64), nullable=True),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("retry_after_s", sa.Integer(), nullable=True),
        sa.Column("peer", sa.String(length=64), nullable=True),
        sa.Column("url", sa.String(length=2048), nullable=True),
        sa.Column("signed_at", sa.BigInteger(), nullable=True),
        sa.Column("signature", sa.String(length=1024), nullable=True),
        sa.Column("body_bytes", sa.Integer(), nullable=True),
        sa.Column("body_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("response", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint(
            "delivery_id", "generation", "no", name=op.f("pk_delivery_attempt")
        ),
    )
    op.create_index(
        "ix_delivery_attempt_started_at",
        "delivery_attempt",
        ["started_at"],
        unique=False,
        postgresql_using="brin",
    )
    op.create_table(
        "delivery_day",
        sa.Column("client_id", sa.UUID(), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("promised", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["client.id"],
            name=op.f("fk_delivery_day_client_id_client"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("client_id", "channel", "day", name=op.f("pk_delivery_day")),
    )
    op.execute(CLAIM)
    op.execute(f"revoke all on function {_SIGNATURE} from public")


def downgrade() -> None:
    op.execute(f"drop function {_SIGNATURE}")
    for table in ("delivery_day", "delivery_attempt", "delivery", "delivery_target"):
        op.drop_table(table)
