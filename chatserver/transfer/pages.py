"""What an export reads, page by page."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_USERS_OUT: Final = text("""
select external_id as user_id, display_name, avatar_url, details as metadata, created_at, id
from app_user where client_id = :client and erasing_at is null
  and (cast(:after as uuid) is null or id > :after) order by id limit :limit
""")
_ROOMS_OUT: Final = text("""
select id, type as room_type, external_id, title, history, details as metadata, is_active,
  slow_mode_s, post_role, archived_at, assignee, closed_at, deactivated_at, last_activity_at,
  updated_at, created_by, min_seq, last_seq, created_at
from room where client_id = :client and deleted_at is null
  and (cast(:after as uuid) is null or id > :after) order by id limit :limit
""")
_MESSAGES_OUT: Final = text("""
select m.room_id, m.id, m.seq, m.msg_no, e.id as event_id, m.sender, m.sender_id,
  case when m.sender <> 'user' then m.sender_key end as origin, m.client_msg_id,
  encode(m.body_hash, 'hex') as hash, m.content, m.status, m.partial_content, m.error_message,
  m.context, m.reply_to, m.thread_id, m.reply_count, m.attachments, m.mentions,
  m.details as metadata, m.silent, m.pinned, m.pinned_at, m.version, m.changed_seq, m.edited_at,
  m.deleted_at, m.created_at
from message m left join room_event e on e.room_id = m.room_id and e.seq = m.seq
where m.room_id = :room and m.client_id = :client and m.seq > 0 and m.seq > :after
  and m.seq <= :up_to order by m.seq limit :limit
""")
_EVENTS_OUT: Final = text("""
select room_id, seq, id, type as event, actor_type, actor_id, message_id, data, created_at
from room_event where room_id = :room and client_id = :client and seq > :after and seq <= :up_to
  and type <> 'message.created' order by seq limit :limit
""")
_REACTIONS_OUT: Final = text("""
select m.room_id, m.seq, r.message_id, u.external_id as user_id, r.emoji, r.created_at
from message m join reaction r on r.message_id = m.id join app_user u on u.id = r.user_id
where m.room_id = :room and m.client_id = :client and m.seq > 0 and m.seq = any (
  array(select q.seq from message q where q.room_id = :room and q.seq > :after and q.seq > 0
    and q.seq <= :up_to order by q.seq limit :limit))
order by m.seq, r.created_at
""")
_MEMBERS_OUT: Final = text("""
select m.room_id, u.external_id as user_id, m.role, m.joined_at, m.joined_seq, m.min_seq,
  m.read_seq, m.read_msg_no, m.is_muted, m.is_favorite, m.notification_level, m.marked_unread,
  m.muted_until, m.user_id as id
from member m join app_user u on u.id = m.user_id
where m.room_id = :room and m.client_id = :client
  and (cast(:after as uuid) is null or m.user_id > :after) order by m.user_id limit :limit
""")


_EDITS_OUT: Final = text("""
select m.room_id, m.seq, d.message_id, d.version, d.content, d.replaced_at
from message m join message_edit d on d.message_id = m.id
where m.room_id = :room and m.client_id = :client and m.seq > 0 and m.seq = any (
  array(select q.seq from message q where q.room_id = :room and q.seq > :after and q.seq > 0
    and q.seq <= :up_to order by q.seq limit :limit))
order by m.seq, d.version
""")
_BANS_OUT: Final = text("""
select b.room_id, u.external_id as user_id, b.until, b.reason, b.created_at, b.user_id as id
from room_ban b join app_user u on u.id = b.user_id
where b.room_id = :room and b.client_id = :client
  and (cast(:after as uuid) is null or b.user_id > :after) order by b.user_id limit :limit
""")
_FILES_OUT: Final = text("""
select f.id, f.name, f.content_type, f.size, f.sha256, u.external_id as uploader_id, f.created_at
from file f left join app_user u on u.id = f.uploader_id
where f.client_id = :client and f.state = 'ready'
  and (cast(:after as uuid) is null or f.id > :after) order by f.id limit :limit
""")


class ExportRepository:
    """Pages of what a client has."""

    def __init__(self, session: AsyncSession, client_id: UUID) -> None:
        self._session = session
        self._client_id = client_id

    async def users(self, after: UUID | None, limit: int) -> list[dict[str, Any]]:
        return await self._page(_USERS_OUT, after=after, limit=limit)

    async def rooms(self, after: UUID | None, limit: int) -> list[dict[str, Any]]:
        return await self._page(_ROOMS_OUT, after=after, limit=limit)

    async def messages(
        self, room_id: UUID, after: int, up_to: int, limit: int
    ) -> list[dict[str, Any]]:
        return await self._page(_MESSAGES_OUT, room=room_id, after=after, up_to=up_to, limit=limit)

    async def reactions(
        self, room_id: UUID, after: int, up_to: int, limit: int
    ) -> list[dict[str, Any]]:
        """Give the reactions of the same messages as `messages` gives."""
        return await self._page(_REACTIONS_OUT, room=room_id, after=after, up_to=up_to, limit=limit)

    async def edits(
        self, room_id: UUID, after: int, up_to: int, limit: int
    ) -> list[dict[str, Any]]:
        """Give the past versions of the same messages as `messages` gives."""
        return await self._page(_EDITS_OUT, room=room_id, after=after, up_to=up_to, limit=limit)

    async def bans(self, room_id: UUID, after: UUID | None, limit: int) -> list[dict[str, Any]]:
        return await self._page(_BANS_OUT, room=room_id, after=after, limit=limit)

    async def files(self, after: UUID | None, limit: int) -> list[dict[str, Any]]:
        return await self._page(_FILES_OUT, after=after, limit=limit)

    async def events(
        self, room_id: UUID, after: int, up_to: int, limit: int
    ) -> list[dict[str, Any]]:
        return await self._page(_EVENTS_OUT, room=room_id, after=after, up_to=up_to, limit=limit)

    async def members(self, room_id: UUID, after: UUID | None, limit: int) -> list[dict[str, Any]]:
        return await self._page(_MEMBERS_OUT, room=room_id, after=after, limit=limit)

    async def total(self) -> int:
        found = await self._session.execute(
            text(
                "select coalesce(sum(last_seq - min_seq + 1), 0) from room"
                " where client_id = :client and deleted_at is null"
            ),
            {"client": self._client_id},
        )
        return int(found.scalar_one())

    async def _page(self, statement: Any, **values: Any) -> list[dict[str, Any]]:  # noqa: ANN401
        found = await self._session.execute(statement, {"client": self._client_id, **values})
        return [dict(row) for row in found.mappings()]
