"""What changed for somebody since a cursor was made: the statements that `sync` asks."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

# Each name by which a member may be mentioned is a range of an index: nothing is scanned, and what
# is read grows with what is unread alone. More than 1,000 are 1,000.
UNREAD_MENTIONS: Final = """(select count(*) from (select distinct n.seq from mention n
    where n.room_id = r.id and n.seq > x.read_seq
      and n.target = any (array[u.external_id, '!here', '!everyone', '!role:' || x.role])
    limit 1000) named)"""
# Of so many rooms of one answer it says who has read how far: as text, since of a thousand members
# nobody should make objects one by one.
READS_OF: Final = 50
# Who has read how far is told by itself for so long after a room's last fact, then with the next.
READS_LATELY: Final = timedelta(days=1)
_READ: Final = """'[' || string_agg('{"user_id":' || to_json(o.external_id)::text
    || ',"read_seq":' || n.read_seq || '}', ',' order by o.external_id collate "C") || ']'"""
# Is a row's version one that the cursor's statement may not have seen? A transaction that was open
# then may commit with an earlier time; its number is not below the horizon, the oldest number that
# was not over yet. Numbers have 32 bits and go round.
_UNSEEN: Final = "(a.horizon is null or (({row}) - a.horizon) & 4294967295 < 2147483648)"
# Of several users at once: each line of the question is one sync. Rooms are looked up one by one
# (`offset 0`), and a step later those that are deleted are left out (0109); what several lines ask
# of one is read once.
# `since` is before the cursor's time, for transactions that were open then; `at` is that time.
# Whoever has read how far also brings a room in which something happened lately.
CHANGED: Final = f"""
with s as materialized (
  select a.ord, a.since, statement_timestamp() as now, u.rooms_version, f.*,
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint & 4294967295 as horizon,
    f.is_small and f.small_no <= $6 as is_told
  from unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::integer[],
      $9::timestamptz[], $10::bigint[])
    with ordinality a (user_id, since, after, named, most, at, horizon, ord)
  join app_user u on u.id = a.user_id
  left join lateral (
    select r.*, x.role, x.joined_at, x.min_seq, x.read_seq, x.read_msg_no, x.is_muted,
      x.joined_at > a.at
        or x.joined_at > a.since and {_UNSEEN.format(row="x.xmin::text::bigint")} as has_joined,
      x.is_favorite, x.notification_level, x.marked_unread,
      case when r.r_msg_no > x.read_msg_no then {UNREAD_MENTIONS} else 0 end as mentions,
      count(*) filter (where r.is_small) over (order by r.id) as small_no
    from member x cross join lateral (
      select r.id, r.id as r_id, r.epoch as r_epoch, r.min_seq as r_min_seq,
        r.last_seq as r_last_seq, r.msg_no as r_msg_no, r.last_event_at,
        r.deleted_at as r_deleted_at, r.xmin::text::bigint as r_number,
        r.members_count <= $7 and r.type = any ($8) as is_small
      from room r where r.id = x.room_id offset 0
    ) r
    where x.user_id = u.id and r.r_deleted_at is null
      and (a.after is null or r.id > a.after or r.id = any (a.named::uuid[]))
      and (a.since is null or r.last_event_at > a.at or x.updated_at > a.at or x.joined_at > a.at
        or r.last_event_at > a.since and {_UNSEEN.format(row="r.r_number")}
        or greatest(x.updated_at, x.joined_at) > a.since
          and {_UNSEEN.format(row="x.xmin::text::bigint")}
        or r.is_small and r.last_event_at > a.since - $11::interval and exists (
          select from member n where n.room_id = r.id and n.user_id <> u.id and (n.updated_at > a.at
            or n.updated_at > a.since and {_UNSEEN.format(row="n.xmin::text::bigint")}))
        or r.id = any (a.named::uuid[]))
    order by r.id limit a.most
  ) f on true
), told as (
  select n.room_id, {_READ} as reads from member n join app_user o on o.id = n.user_id
  where n.room_id = any (array(select distinct r_id from s where is_told and since is null))
  group by n.room_id
)
select s.*, case when s.is_told and s.since is not null then (
    select {_READ} from member n join app_user o on o.id = n.user_id
    where n.room_id = s.r_id and n.updated_at > s.since)
  when s.is_told then told.reads end as reads
from s left join told on told.room_id = s.r_id
order by s.ord, s.r_id
"""  # noqa: S608 - constants of this file
REMOVED: Final = f"""
select d.room_id, d.reason, d.at
from departure d cross join (select $3::timestamptz as at, $4::bigint as horizon) a
where d.user_id = $1 and d.at > $2
  and (d.at > a.at or {_UNSEEN.format(row="d.xmin::text::bigint")})
order by d.at limit $5
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of the database: what was committed before it has been told.

    `horizon` tells apart what was open then (`_UNSEEN`); without one, all of shortly before is told
    again. `version` is the user's `rooms_version` by then.
    """

    at: datetime
    horizon: int | None = None
    version: int | None = None
