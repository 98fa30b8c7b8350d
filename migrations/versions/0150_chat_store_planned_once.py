"""The group commit is planned once per connection, not at every call.

Revision ID: 0150
Revises: 0148
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0150"
down_revision: str | None = "0148"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# The function of 0002, 0020, 0031 and 0100, whose comments say why it is built this way, as a whole
# once more; nothing that it does is new. PostgreSQL knows how long the lists of a call are only when
# it plans for that call alone, takes such a plan for the cheaper one, and so planned every time:
# 1.5 ms of the 2.1 ms of CPU that one message cost (measured). Now it plans once, until the next
# ANALYZE, but not while the tables are as good as empty: of these, an index that is read from end
# to end is as cheap as one that is asked for a row, and such a plan would be kept while they grow.
# For the same reason rows are looked up by their keys alone, in subqueries with `limit 1`, which
# can't become a join; threads are updated one by one; and `offset 0` keeps an `exists` from reading
# a whole table.
CHAT_STORE = """
create or replace function chat_store(
  p_client uuid[], p_room uuid[], p_message uuid[], p_event uuid[], p_wake uuid[],
  p_user uuid[], p_sender text[], p_sender_id text[], p_sender_key text[], p_client_msg_id text[],
  p_hash bytea[], p_content text[], p_reply_to uuid[], p_attachments jsonb[], p_mentions jsonb[],
  p_details jsonb[], p_silent boolean[], p_wait boolean, p_more boolean)
returns table (
  o_ord bigint, o_outcome text, o_message_id uuid, o_seq bigint, o_msg_no bigint,
  o_ts timestamptz, o_epoch integer, o_woke_seq bigint, o_later boolean, o_thread_id uuid,
  o_reply_count integer, o_wait_ms bigint)
language plpgsql volatile security definer
set search_path = public, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_locked uuid[];
  v_now timestamptz;
  v_thread record;
  v_ranks constant text[] := '{guest,member,moderator,admin,owner}';
begin
  -- Where ANALYZE saw as good as nothing, the planner takes every room for one of one message;
  -- where it never was (-1), the size in pages says enough.
  if pg_relation_size('message') >= 16 * 8192 and pg_relation_size('member') >= 4 * 8192
    and (select bool_and(c.reltuples not between 0 and 199) from pg_class c
      where c.oid in ('message'::regclass, 'member'::regclass)) then
    perform set_config('plan_cache_mode', 'force_generic_plan', true);
  end if;

  if p_wait then
    select array_agg(l.id) into v_locked from (
      select r.id from room r
      where r.id = any (array(
        select s.room_id from unnest(p_room, p_user) s (room_id, user_id)
        left join lateral (
          select x.user_id from member x
          where x.room_id = s.room_id and x.user_id = s.user_id limit 1) m on true
        where s.user_id is null or m.user_id is not null))
      order by r.id for no key update) l;
  else
    select array_agg(l.id) into v_locked from (
      select r.id from room r
      where r.id = any (array(
        select s.room_id from unnest(p_room, p_user) s (room_id, user_id)
        left join lateral (
          select x.user_id from member x
          where x.room_id = s.room_id and x.user_id = s.user_id limit 1) m on true
        where s.user_id is null or m.user_id is not null))
      order by r.id
      for no key update skip locked) l;
  end if;
  v_now := clock_timestamp();

  return query
  with draft as (
    select * from unnest(
      p_client, p_room, p_message, p_event, p_wake, p_user, p_sender, p_sender_id, p_sender_key,
      p_client_msg_id, p_hash, p_content, p_reply_to, p_attachments, p_mentions, p_details,
      p_silent)
    with ordinality as d (
      client_id, room_id, message_id, event_id, wake_id, user_id, sender, sender_id, sender_key,
      client_msg_id, hash, content, reply_to, attachments, mentions, details, silent, ord)
  ), judged as (
    select d.*, r.epoch, r.last_seq, r.msg_no, r.is_active, r.bots, old.id as old_id,
      coalesce(q.thread_id, q.id) as thread_id, m.muted_until,
      case when m.role in ('guest', 'member') then r.slow_mode_s else 0 end as pace_s,
      m.last_sent_at,
      case
        when r.id is null and not d.room_id = any (coalesce(v_locked, '{}')) and exists (
          select 1 from (
            select x.client_id, x.deleted_at from room x where x.id = d.room_id limit 1) x
          where x.client_id = d.client_id and x.deleted_at is null offset 0)
          then case
            when d.user_id is null or m.user_id is not null then 'busy'
            when old.id is not null and old.body_hash = d.hash then 'duplicate'
            when (select x.type from room x where x.id = d.room_id) = 'channel'
              or exists (
                select 1 from departure g
                where g.room_id = d.room_id and g.user_id = d.user_id offset 0)
              then 'room.not_member'
            else 'room.not_found'
          end
        when r.id is null or r.deleted_at is not null then 'room.not_found'
        -- First of all what is stored: a refusal says that nothing is, also to who left since.
        when old.id is not null and old.body_hash = d.hash then 'duplicate'
        when d.user_id is not null and m.user_id is null and (r.type = 'channel' or exists (
          select 1 from departure g
          where g.room_id = d.room_id and g.user_id = d.user_id offset 0))
          then 'room.not_member'
        when d.user_id is not null and m.user_id is null then 'room.not_found'
        when old.id is not null then 'idempotency.conflict'
        when r.archived_at is not null then 'room.archived'
        when m.muted_until > v_now then 'room.muted'
        when r.post_role <> 'guest'
          and array_position(v_ranks, m.role::text) < array_position(v_ranks, r.post_role::text)
          then 'room.read_only'
        when d.reply_to is not null
          and (q.id is null or q.seq < greatest(r.min_seq, coalesce(m.min_seq, 1)))
          then 'message.not_found'
        when r.slow_mode_s > 0 and m.role in ('guest', 'member')
          and m.last_sent_at + make_interval(secs => r.slow_mode_s) > v_now
          then 'message.slow_mode'
        else 'stored'
      end as outcome
    from draft d
    left join lateral (
      select x.* from room x where x.id = d.room_id and d.room_id = any (v_locked)
      limit 1) r on r.client_id = d.client_id
    left join lateral (
      select x.* from member x where x.room_id = d.room_id and x.user_id = d.user_id
      limit 1) m on true
    left join lateral (
      select x.id, x.body_hash from message x
      where x.room_id = d.room_id and x.sender_key = d.sender_key
        and x.client_msg_id = d.client_msg_id
      limit 1) old on true
    left join lateral (
      select x.id, x.room_id, x.thread_id, x.seq from message x where x.id = d.reply_to
      limit 1) q on q.room_id = d.room_id
  ), numbered as (
    select j.*, row_number() over (partition by j.room_id order by j.ord) as n,
      count(*) filter (where not j.silent) over (partition by j.room_id order by j.ord) as counted,
      case when j.is_active then 0 else 1 end as wakes
    from judged j
    where j.outcome = 'stored'
      -- Of several in one batch, slow mode lets the first of each member pass.
      and not (j.pace_s > 0 and exists (
        select 1 from judged e
        where e.room_id = j.room_id and e.user_id = j.user_id and e.outcome = 'stored'
          and e.ord < j.ord))
  ), placed as (
    select n.*, n.last_seq + n.wakes + n.n as new_seq, n.msg_no + n.counted as new_no,
      case when n.wakes = 1 and n.n = 1 then n.last_seq + 1 end as woke_seq,
      n.bots > 0 or 'message.created' = any (c.followed) as later,
      n.wakes = 1 and n.n = 1 and 'room.reactivated' = any (c.followed) as woke_later
    from numbered n join client c on c.id = n.client_id
  ), bumped as (
    update room r set
      last_seq = c.last_seq, msg_no = c.msg_no, last_activity_at = v_now,
      last_event_at = v_now,
      is_active = true, deactivated_at = null, deactivates_at = null,
      -- Unchanged while the room is active, so that the update stays off the index.
      deactivation_check_at = case when r.is_active then r.deactivation_check_at else v_now end
    from (
      select room_id, max(new_seq) as last_seq, max(new_no) as msg_no from placed group by room_id
    ) c
    where r.id = c.room_id
  ), messages as (
    insert into message (
      id, client_id, room_id, seq, msg_no, sender, sender_id, sender_key, client_msg_id, body_hash,
      content, status, reply_to, attachments, mentions, details, pinned, created_at, silent,
      thread_id)
    select message_id, client_id, room_id, new_seq, new_no, sender, sender_id, sender_key,
      client_msg_id, hash, content, 'complete', reply_to, attachments, mentions, details, false,
      v_now, silent, thread_id
    from placed order by room_id, new_seq
  ), events as (
    insert into room_event (
      room_id, seq, client_id, id, type, actor_type, actor_id, message_id, created_at)
    select room_id, woke_seq, client_id, wake_id, 'room.reactivated', sender, sender_id, null, v_now
    from placed where woke_seq is not null
    union all
    select room_id, new_seq, client_id, event_id, 'message.created', sender, sender_id, message_id,
      v_now
    from placed
  ), reactions as (
    insert into outbox (
      client_id, room_id, fact_id, type, data, seq, message_id, actor_type, actor_id)
    select client_id, room_id, fact_id, type, '{}', seq, message_id, sender, sender_id from (
      select ord, 0 as place, client_id, room_id, wake_id as fact_id, 'room.reactivated' as type,
        woke_seq as seq, null::uuid as message_id, sender, sender_id
      from placed where woke_later
      union all
      select ord, 1, client_id, room_id, event_id, 'message.created', new_seq, message_id, sender,
        sender_id
      from placed where later) f
    order by ord, place
  ), pointers as (
    update member m set read_seq = p.new_seq, read_msg_no = p.new_no, marked_unread = false,
      last_sent_at = v_now
    from (
      select room_id, user_id, max(new_seq) as new_seq, max(new_no) as new_no
      from placed where user_id is not null group by room_id, user_id
    ) p
    where m.room_id = p.room_id and m.user_id = p.user_id
  )
  select j.ord,
    case when j.outcome = 'stored' and p.ord is null then 'message.slow_mode' else j.outcome end,
    coalesce(p.message_id, j.old_id), p.new_seq, p.new_no, v_now, j.epoch,
    p.woke_seq, coalesce(p.later or p.woke_later, false), p.thread_id, null::integer,
    case
      when j.outcome = 'message.slow_mode' then ceil(1000 * extract(
        epoch from j.last_sent_at + make_interval(secs => j.pace_s) - v_now))::bigint
      when j.outcome = 'stored' and p.ord is null then 1000 * j.pace_s::bigint
      when j.outcome = 'room.muted' and j.muted_until < '9999-01-01 00:00:00+00' then
        ceil(1000 * extract(epoch from j.muted_until - v_now))::bigint
    end
  from judged j left join placed p on p.ord = j.ord
  order by j.ord;

  if p_more then
    insert into mention (room_id, target, seq, client_id)
    select distinct m.room_id, t.target, m.seq, m.client_id
    from unnest(p_message) i (id)
    cross join lateral (
      select x.* from message x where x.id = i.id and not x.silent limit 1) m
    cross join lateral jsonb_array_elements_text(m.mentions) t (target);

    for v_thread in
      select m.thread_id as id, count(*)::integer as replies
      from unnest(p_message) i (id)
      cross join lateral (
        select x.thread_id from message x where x.id = i.id and x.thread_id is not null limit 1) m
      group by m.thread_id order by m.thread_id
    loop
      return query
      update message t set reply_count = t.reply_count + v_thread.replies
      where t.id = v_thread.id
      returning null::bigint, 'thread', null::uuid, null::bigint, null::bigint, v_now,
        null::integer, null::bigint, false, t.id, t.reply_count, null::bigint;
    end loop;
  end if;
end
$$
"""


def upgrade() -> None:
    op.execute(CHAT_STORE)


def downgrade() -> None:
    environment = op.get_context().environment_context
    assert environment is not None  # noqa: S101 - migrations/env.py has made it
    environment.script.get_revision("0100").module.upgrade()
