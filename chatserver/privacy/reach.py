"""What an erasure must reach, table by table: one list, to be read and tested as a whole."""

from typing import Final

from sqlalchemy import text

# Everything that a person left in others' reach, table by table. A test holds this list against the
# schema: a new column that may hold something of a person has to be decided about.
MESSAGES: Final = text("""
update message set content = '', partial_content = null, error_message = null, context = null,
  attachments = '[]', mentions = '[]', details = '{"erased": true}', sender_id = null,
  sender_key = 'erased', client_msg_id = id::text, body_hash = '', reply_to = null, pinned = false,
  pinned_at = null, reactions = '[]', edited_at = null,
  deleted_at = coalesce(deleted_at, clock_timestamp())
where id = any (:messages)
""")
FIND_MESSAGES: Final = text("""
select id from message
where client_id = :client and room_id = any (:rooms) and sender_key = :key limit :limit
""")
# What a bot answered a person may quote the person: its text goes, too, while its place stays.
ANSWERS: Final = text("""
with mine as materialized (
  select message_id from generation
  where client_id = :client and asked_by = :user and room_id = any (:rooms) limit :limit),
forgotten as (
  update generation g set asked_by = null, sources = null,
    status = case when g.status in ('pending', 'in_progress') then 'cancelled' else g.status end,
    generation = g.generation + 1
  from mine where g.client_id = :client and g.message_id = mine.message_id)
update message m set content = '', partial_content = null, error_message = null, context = null,
  attachments = '[]', mentions = '[]', details = '{"erased": true}',
  status = case when m.status in ('pending', 'in_progress') then 'cancelled' else m.status end,
  edited_at = null, deleted_at = coalesce(m.deleted_at, clock_timestamp())
from mine where m.client_id = :client and m.id = mine.message_id
""")
# What hangs on messages that are scrubbed.
OF_MESSAGES: Final = (
    text("delete from message_edit where message_id = any (:messages)"),
    text("delete from reaction where message_id = any (:messages)"),
    text("""
delete from mention n using message m
where m.id = any (:messages) and n.room_id = m.room_id and n.seq = m.seq
  and n.target in (select jsonb_array_elements_text(m.mentions))
"""),
)
# What the person gave others' messages; the counts are made anew of what is left.
REACTED: Final = text("""
select m.room_id, array_agg(m.id order by m.seq) as messages from (
  select distinct message_id from reaction
  where client_id = :client and user_id = :user limit :limit) mine
join message m on m.id = mine.message_id group by m.room_id order by m.room_id
""")
REACTIONS: Final = text("""
with gone as (
  delete from reaction
  where client_id = :client and user_id = :user and message_id = any (:messages)
  returning message_id)
update message m set reactions = coalesce((
  select jsonb_agg(jsonb_build_object('emoji', k.emoji, 'count', k.n) order by k.first, k.emoji)
  from (
    select emoji, count(*) as n, min(created_at) as first from reaction x
    where x.message_id = m.id and x.user_id <> :user group by emoji) k), '[]')
where m.id in (select message_id from gone) returning m.id, m.reactions
""")
NAMED: Final = text("""
delete from mention where client_id = :client and room_id = any (:rooms) and target = :name
""")
MENTIONS: Final = text("""
update message set mentions = mentions - cast(:name as text)
where client_id = :client and room_id = any (:rooms) and seq between :low and :high
  and mentions ? cast(:name as text)
""")
# `messages.erased` keeps the name: without it no device would know what to purge.
# Who was in a room and left it is named by its log alone: there, too, devices must be told whom it
# does not name any more, or one that was away would keep him for ever.
EVENTS: Final = text("""
with scrubbed as (update room_event e set
  actor_id = case when e.actor_type = 'user' and e.actor_id = :name then null else e.actor_id end,
  data = case when e.data is null then null else
    e.data
    || case when e.data ->> 'user_id' = :name then '{"user_id": null}'::jsonb else '{}' end
    -- An emoji may be a short name of one's own making.
    || case when e.data ->> 'user_id' = :name and e.type = 'reaction.changed'
         then '{"emoji": ""}'::jsonb else '{}' end
    || case when e.data -> 'user_ids' ? cast(:name as text)
         then jsonb_build_object('user_ids', (e.data -> 'user_ids') - cast(:name as text))
         else '{}' end
    end
where client_id = :client and room_id = any (:rooms) and seq between :low and :high
  and type <> 'messages.erased'
  and ((actor_type = 'user' and actor_id = :name) or data ->> 'user_id' = :name
    or data -> 'user_ids' ? cast(:name as text))
returning e.room_id
), told_of as (
  insert into erasure_room (erasure_id, room_id, client_id, told)
  select distinct cast(:erasure as uuid), s.room_id, r.client_id, false
  from scrubbed s join room r on r.id = s.room_id and r.deleted_at is null
  on conflict do nothing
)
select count(*) from scrubbed
""")
ROOMS: Final = text("""
update room set
  created_by = case when created_by = :name then null else created_by end,
  assignee = case when assignee = :name then null else assignee end
where client_id = :client and id = any (:rooms) and (created_by = :name or assignee = :name)
""")
OUTBOX: Final = text("""
update outbox set
  data = case when data ->> 'user_id' <> :name then data
    when type = 'reaction.changed' then data || '{"user_id": null, "emoji": "", "counts": {}}'
    when data ->> 'user_id' = :name then data || '{"user_id": null}' else data end,
  actor_id = case when actor_type = 'user' and actor_id = :name then null else actor_id end
where client_id = :client
  and (data ->> 'user_id' = :name or (actor_type = 'user' and actor_id = :name))
""")
AUDIT: Final = text("""
update audit set
  actor = case when actor = :whose then 'user:erased' else actor end,
  address = case when actor = :whose then null else address end,
  subject = case when subject = :whose then 'user:erased' else subject end,
  details = case when actor = :whose or subject = :whose then '{}' else details end
where client_id = :client and (actor = :whose or subject = :whose)
""")
INVITES: Final = text("""
update invite set created_by = null where client_id = :client and created_by = :name
""")
FLAGS: Final = text("""
update flag set
  source = case when flagged_by = :name then 'erased:' || id else source end,
  reason = case when flagged_by = :name then null else reason end,
  flagged_by = case when flagged_by = :name then null else flagged_by end,
  resolved_by = case when resolved_by = :name then null else resolved_by end
where client_id = :client and (flagged_by = :name or resolved_by = :name)
""")
