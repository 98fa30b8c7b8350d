"""The statements of an import: set-based, so that a million rows are a few thousand."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from chatserver.kernel.ids import uuid7

Row: TypeAlias = dict[str, Any]

# As `chat_store` writes them; what differs is who decides about the places.
_MESSAGES: Final = text("""
insert into message (id, client_id, room_id, seq, msg_no, sender, sender_id, sender_key,
  client_msg_id, body_hash, content, status, partial_content, error_message, context, reply_to,
  thread_id, reply_count, attachments, mentions, details, silent, pinned, pinned_at, version,
  changed_seq, reactions, edited_at, deleted_at, created_at)
select id, cast(:client as uuid), cast(:room as uuid), seq, msg_no, sender, sender_id,
  sender_key, client_msg_id,
  decode(hash, 'hex'), content, status, partial_content, error_message,
  nullif(context, 'null'::jsonb), reply_to, thread_id, reply_count, attachments, mentions, details,
  silent, pinned, pinned_at, version, changed_seq, '[]', edited_at, deleted_at, created_at
from jsonb_to_recordset(cast(:rows as jsonb)) as r (id uuid, seq bigint, msg_no bigint, sender text,
  sender_id text, sender_key text, client_msg_id text, hash text, content text, status text,
  partial_content text, error_message text, context jsonb, reply_to uuid, thread_id uuid,
  reply_count int, attachments jsonb, mentions jsonb, details jsonb, silent boolean, pinned boolean,
  pinned_at timestamptz, version int, changed_seq bigint, edited_at timestamptz,
  deleted_at timestamptz, created_at timestamptz)
""")
_MENTIONS: Final = text("""
insert into mention (room_id, target, seq, client_id)
select distinct cast(:room as uuid), t.target, r.seq, cast(:client as uuid)
from jsonb_to_recordset(cast(:rows as jsonb)) as r (seq bigint, mentions jsonb, silent boolean)
cross join lateral jsonb_array_elements_text(r.mentions) t (target)
where not r.silent and length(t.target) <= 128
on conflict do nothing
""")
_EVENTS: Final = text("""
insert into room_event (room_id, seq, client_id, id, type, actor_type, actor_id, message_id, data,
  created_at)
select cast(:room as uuid), seq, cast(:client as uuid), id, type, actor_type, actor_id,
  message_id,
  nullif(data, 'null'::jsonb), created_at
from jsonb_to_recordset(cast(:rows as jsonb)) as r (seq bigint, id uuid, type text, actor_type text,
  actor_id text, message_id uuid, data jsonb, created_at timestamptz)
""")
_REACTIONS: Final = text("""
insert into reaction (message_id, user_id, emoji, client_id, created_at)
select m.id, u.id, r.emoji, cast(:client as uuid), coalesce(r.created_at, clock_timestamp())
from jsonb_to_recordset(cast(:rows as jsonb)) as r (message_id uuid, user_id text, emoji text,
  created_at timestamptz)
join message m on m.id = r.message_id and m.client_id = cast(:client as uuid)
  and m.room_id = cast(:room as uuid)
join app_user u on u.client_id = cast(:client as uuid) and u.external_id = r.user_id
on conflict do nothing returning message_id
""")
_COUNT_REACTIONS: Final = text("""
update message m set reactions = (
  select coalesce(jsonb_agg(jsonb_build_object('emoji', c.emoji, 'count', c.n)
    order by c.first, c.emoji), '[]')
  from (select emoji, count(*) as n, min(created_at) as first from reaction
    where message_id = m.id group by emoji) c)
where m.client_id = :client and m.id = any (:ids)
""")
_MEMBERS: Final = text("""
insert into member (room_id, user_id, client_id, role, joined_at, joined_seq, min_seq, read_seq,
  read_msg_no, is_muted, is_favorite, notification_level, marked_unread, muted_until)
select cast(:room as uuid), u.id, cast(:client as uuid), r.role,
  coalesce(r.joined_at, clock_timestamp()),
  r.joined_seq,
  r.min_seq, coalesce(r.read_seq, o.last_seq), coalesce(r.read_msg_no, o.msg_no), r.is_muted,
  r.is_favorite, r.notification_level, r.marked_unread, r.muted_until
from jsonb_to_recordset(cast(:rows as jsonb)) as r (user_id text, role text, joined_at timestamptz,
  joined_seq bigint, min_seq bigint, read_seq bigint, read_msg_no bigint, is_muted boolean,
  is_favorite boolean, notification_level text, marked_unread boolean, muted_until timestamptz)
join app_user u on u.client_id = cast(:client as uuid) and u.external_id = r.user_id
join room o on o.id = cast(:room as uuid) and o.client_id = cast(:client as uuid)
on conflict (room_id, user_id) do nothing returning user_id
""")
_SEATED: Final = (
    text(
        "update room set members_count = (select count(*) from member where room_id = :room)"
        " where id = :room and client_id = :client"
    ),
    text("select id from app_user where id = any (:users) order by id for no key update"),
    text(
        "update app_user set rooms_version = rooms_version + 1,"
        " rooms_changed_at = clock_timestamp() where id = any (:users)"
    ),
    text("delete from departure where room_id = :room and user_id = any (:users)"),
    # Two people have one direct room, and find it again; unless they have another one already.
    text("""
update room r set pair = p.pair
from (select string_agg(user_id::text, ':' order by user_id) as pair, count(*) as n
  from member where room_id = :room) p
where r.id = :room and r.client_id = :client and r.type = 'direct' and r.pair is null and p.n = 2
  and not exists (select from room o
    where o.client_id = :client and o.pair = p.pair and o.deleted_at is null)
"""),
)
_CARRY: Final = text("""
insert into message_file (file_id, message_id, client_id)
select distinct f.id, m.id, m.client_id
from message m cross join lateral jsonb_array_elements(m.attachments) a
join file f on f.client_id = m.client_id and f.id::text = a ->> 'file_id'
where m.client_id = :client and m.id = any (:ids) and jsonb_typeof(a) = 'object'
on conflict do nothing
""")
_EDITS: Final = text("""
insert into message_edit (message_id, version, client_id, content, replaced_at)
select m.id, r.version, cast(:client as uuid), r.content,
  coalesce(r.replaced_at, clock_timestamp())
from jsonb_to_recordset(cast(:rows as jsonb)) as r (message_id uuid, version int, content text,
  replaced_at timestamptz)
join message m on m.id = r.message_id and m.client_id = cast(:client as uuid)
  and m.room_id = cast(:room as uuid) and m.deleted_at is null
on conflict do nothing returning message_id
""")
_BANS: Final = text("""
insert into room_ban (room_id, user_id, client_id, until, reason, created_at)
select cast(:room as uuid), u.id, cast(:client as uuid), r.until, r.reason,
  coalesce(r.created_at, clock_timestamp())
from jsonb_to_recordset(cast(:rows as jsonb)) as r (user_id text, until timestamptz, reason text,
  created_at timestamptz)
join app_user u on u.client_id = cast(:client as uuid) and u.external_id = r.user_id
on conflict do nothing returning user_id
""")
_USERS: Final = text("""
insert into app_user (id, client_id, external_id, display_name, avatar_url, details, created_at)
select id, cast(:client as uuid), user_id, display_name, avatar_url, details,
  coalesce(created_at, clock_timestamp())
from jsonb_to_recordset(cast(:rows as jsonb)) as r (id uuid, user_id text, display_name text,
  avatar_url text, details jsonb, created_at timestamptz)
on conflict (client_id, external_id) do nothing returning id
""")
_USER_IDS: Final = text(
    "select external_id, id from app_user where client_id = :client and external_id = any (:names)"
)
_ROOM: Final = text("""
insert into room (id, client_id, type, title, external_id, history, details, is_active, epoch,
  min_seq, last_seq, members_count, slow_mode_s, post_role, archived_at, assignee, closed_at,
  deactivated_at, created_by, created_at, updated_at, last_activity_at, deactivation_check_at)
values (:id, :client, :type, :title, :external_id, :history, cast(:details as jsonb),
  cast(:is_active as boolean), 1,
  cast(:min_seq as bigint), cast(:min_seq as bigint) - 1, 0, :slow_mode_s, :post_role,
  :archived_at, :assignee, :closed_at, :deactivated_at, :created_by,
  coalesce(cast(:created_at as timestamptz), clock_timestamp()),
  coalesce(cast(:updated_at as timestamptz), cast(:created_at as timestamptz), clock_timestamp()),
  coalesce(cast(:last_activity_at as timestamptz), cast(:created_at as timestamptz),
    clock_timestamp()),
  case when cast(:is_active as boolean) then clock_timestamp() + interval '7 days' end)
""")
_LOCK: Final = text("""
select id, client_id, last_seq, msg_no, epoch, deleted_at is not null as is_deleted
from room where id = :id for no key update
""")
_BY_NAME: Final = text(
    "select id from room where client_id = :client and external_id = :name and deleted_at is null"
)
# The epoch rises when a log changes that somebody may have read.
_MOVE: Final = text("""
update room set last_seq = greatest(last_seq, cast(:last_seq as bigint)),
  msg_no = greatest(msg_no, cast(:msg_no as bigint)),
  last_activity_at = case when last_seq < min_seq
    then coalesce(cast(:at as timestamptz), last_activity_at)
    else greatest(last_activity_at, cast(:at as timestamptz)) end,
  last_event_at = clock_timestamp(), epoch = epoch + cast(:raised as integer)
where id = :room and client_id = :client
""")
_KNOWN: Final = text("""
select id, client_id, room_id from message where id = any (:ids)
""")
_KNOWN_KEYS: Final = text("""
select sender_key, client_msg_id from message
where room_id = :room and (sender_key, client_msg_id) in (
  select * from unnest(cast(:keys as text[]), cast(:names as text[])))
""")
_TAKEN: Final = text("select seq, id from room_event where room_id = :room and seq = any (:seqs)")
_HOLES: Final = text("""
select s.seq, (select e.created_at from room_event e where e.room_id = r.id and e.seq < s.seq
  order by e.seq desc limit 1) as at
from room r cross join lateral generate_series(r.min_seq, r.last_seq) s (seq)
where r.id = :room and not exists (
  select from room_event e where e.room_id = r.id and e.seq = s.seq)
order by s.seq limit :limit
""")


# Nobody is told of what was said long ago, elsewhere.
_QUIETLY: Final = text("select set_config('chatserver.importing', 'on', true)")


class ImportRepository:
    """What one transaction of an import does, for one client."""

    def __init__(self, session: AsyncSession, client_id: UUID) -> None:
        self._session = session
        self._client_id = client_id

    async def users(self, rows: Sequence[dict[str, Any]]) -> int:
        """Make those who aren't there; how many. Whoever is there stays as he is."""
        made = await self._session.execute(
            _USERS, self._of(rows=[{"id": str(uuid7()), **row} for row in rows])
        )
        return len(made.all())

    async def user_ids(self, names: Sequence[str]) -> dict[str, UUID]:
        """Give server ids by external id, making who is unknown."""
        plain: Row = {"display_name": None, "avatar_url": None, "details": {}, "created_at": None}
        if names:
            await self.users([{"user_id": name, **plain} for name in names])
        found = await self._session.execute(_USER_IDS, self._of(names=list(names)))
        return {row.external_id: row.id for row in found}

    async def lock(self, room_id: UUID) -> dict[str, Any] | None:
        found = (await self._session.execute(_LOCK, {"id": room_id})).mappings().one_or_none()
        return None if found is None else dict(found)

    async def room_called(self, name: str) -> UUID | None:
        found = (await self._session.execute(_BY_NAME, self._of(name=name))).scalar_one_or_none()
        return None if found is None else UUID(str(found))

    async def add_room(self, row: dict[str, Any]) -> None:
        details = orjson.dumps(row.pop("details")).decode()
        await self._session.execute(_ROOM, self._of(**row, details=details))

    async def known(self, ids: Sequence[UUID]) -> dict[UUID, tuple[UUID, UUID]]:
        """Tell which messages there are, and of which client and room."""
        found = await self._session.execute(_KNOWN, {"ids": list(ids)})
        return {row.id: (row.client_id, row.room_id) for row in found}

    async def known_keys(
        self, room_id: UUID, keys: Sequence[tuple[str, str]]
    ) -> set[tuple[str, str]]:
        """Tell which (sender key, client_msg_id) are taken in a room."""
        found = await self._session.execute(
            _KNOWN_KEYS,
            {"room": room_id, "keys": [key for key, _ in keys], "names": [it for _, it in keys]},
        )
        return {(row.sender_key, row.client_msg_id) for row in found}

    async def taken(self, room_id: UUID, seqs: Sequence[int]) -> dict[int, UUID]:
        """Tell which places of a log are taken, and by which fact."""
        found = await self._session.execute(_TAKEN, {"room": room_id, "seqs": list(seqs)})
        return {row.seq: row.id for row in found}

    async def messages(self, room_id: UUID, rows: Sequence[dict[str, Any]]) -> None:
        values = self._of(room=room_id, rows=rows)
        await self._session.execute(_QUIETLY)
        await self._session.execute(_MESSAGES, values)
        await self._session.execute(_MENTIONS, values)

    async def events(self, room_id: UUID, rows: Sequence[dict[str, Any]]) -> None:
        await self._session.execute(_EVENTS, self._of(room=room_id, rows=rows))

    async def move(
        self, room_id: UUID, *, last_seq: int, msg_no: int, at: object, raised: bool
    ) -> None:
        """Let a room end where its log does now."""
        await self._session.execute(_QUIETLY)
        await self._session.execute(
            _MOVE,
            self._of(room=room_id, last_seq=last_seq, msg_no=msg_no, at=at, raised=int(raised)),
        )

    async def reactions(self, room_id: UUID, rows: Sequence[dict[str, Any]]) -> int:
        made = await self._session.execute(_REACTIONS, self._of(room=room_id, rows=rows))
        ids = list(made.scalars())
        if ids:
            await self._session.execute(_COUNT_REACTIONS, self._of(ids=ids))
        return len(ids)

    async def carry(self, message_ids: Sequence[UUID]) -> None:
        """Note which files messages carry, as is done when they are stored."""
        await self._session.execute(_CARRY, self._of(ids=list(message_ids)))

    async def edits(self, room_id: UUID, rows: Sequence[dict[str, Any]]) -> int:
        made = await self._session.execute(_EDITS, self._of(room=room_id, rows=rows))
        return len(made.all())

    async def bans(self, room_id: UUID, rows: Sequence[dict[str, Any]]) -> int:
        made = await self._session.execute(_BANS, self._of(room=room_id, rows=rows))
        return len(made.all())

    async def members(self, room_id: UUID, rows: Sequence[dict[str, Any]]) -> int:
        made = await self._session.execute(_MEMBERS, self._of(room=room_id, rows=rows))
        users = list(made.scalars())
        if users:
            for statement in _SEATED:
                await self._session.execute(statement, self._of(room=room_id, users=users))
        return len(users)

    async def holes(self, room_id: UUID, limit: int) -> list[tuple[int, Any]]:
        """Give places of a log that have no fact, and the time of the fact before."""
        found = await self._session.execute(_HOLES, {"room": room_id, "limit": limit})
        return [(row.seq, row.at) for row in found]

    def _of(self, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - parameters of any type
        if "rows" in values:
            values["rows"] = orjson.dumps(values["rows"], default=str).decode()
        return {"client": self._client_id, **values}
