"""Every query about messages and the log, on raw connections: no session, no transaction held."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import orjson

from chatserver.chat.events import Draft, LogEntry, Outcome
from chatserver.infra.database import Database, outages
from chatserver.kernel.clock import rfc3339
from chatserver.kernel.events import Actor, Committed, Effect
from chatserver.realtime.ports import Changes, Seat, Subscriptions

_STORE: Final = (
    "select o_outcome, o_message_id, o_seq, o_msg_no, o_ts, o_epoch, o_woke_seq, o_later"
    " from chat_store($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
)
_MESSAGE: Final = """
  m.id as m_id, m.seq as m_seq, m.msg_no as m_msg_no, m.sender as m_sender,
  m.sender_id as m_sender_id, m.content as m_content, m.status as m_status,
  m.partial_content as m_partial_content, m.error_message as m_error_message,
  m.context as m_context, m.reply_to as m_reply_to, m.attachments as m_attachments,
  m.mentions as m_mentions, m.details as m_details, m.pinned as m_pinned,
  m.edited_at as m_edited_at, m.deleted_at as m_deleted_at, m.created_at as m_created_at,
  m.client_msg_id as m_client_msg_id, m.room_id as m_room_id
"""
# For whoever writes messages of its own and tells of them as this feature does.
MESSAGE: Final = _MESSAGE
_ROOM: Final = """
  r.id as r_id, r.type as r_type, r.title as r_title, r.external_id as r_external_id,
  r.history as r_history, r.details as r_details, r.is_active as r_is_active,
  r.members_count as r_members_count, r.created_by as r_created_by, r.epoch as r_epoch,
  r.min_seq as r_min_seq, r.last_activity_at as r_last_activity_at,
  r.deactivates_at as r_deactivates_at, r.deactivated_at as r_deactivated_at,
  r.created_at as r_created_at, r.updated_at as r_updated_at
"""
_ENTRIES: Final = f"""
select e.client_id, e.room_id, e.seq, e.id, e.type, e.created_at, e.actor_type, e.actor_id, e.data,
  e.effect, {_ROOM}, {_MESSAGE}
from room_event e join room r on r.id = e.room_id
left join message m on m.id = e.message_id
where e.room_id = $1 and e.seq > $2 order by e.seq limit $3
"""  # noqa: S608 - constants of this file

# The newest 100 unread messages are looked through for mentions: enough for a badge, and bounded.
_CHANGED: Final = f"""
select {_ROOM}, r.last_seq as r_last_seq, r.msg_no as r_msg_no, x.role, x.joined_at, x.joined_seq,
  x.min_seq, x.read_seq, x.read_msg_no, x.is_muted, x.is_favorite, x.notification_level,
  case when r.msg_no > x.read_msg_no then (
    select count(*) from (
      select q.mentions from message q
      where q.room_id = r.id and q.seq > x.read_seq and q.seq > 0
      order by q.seq desc limit 100) n
    where n.mentions ? u.external_id) else 0 end as mentions
from member x join room r on r.id = x.room_id join app_user u on u.id = x.user_id
where x.user_id = $1 and r.deleted_at is null
  and ($3::uuid is null or r.id > $3 or r.id = any ($4))
  and ($2::timestamptz is null or r.last_event_at > $2 or x.updated_at > $2 or x.joined_at > $2
    or r.id = any ($4))
order by r.id limit $5
"""  # noqa: S608 - constants of this file


class ChatRepository:
    """Messages and the log. Its reads are single statements; `chat_store` is the one write."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, drafts: Sequence[Draft], *, wait: bool) -> list[Outcome]:
        """Store drafts by one call of `chat_store`; raw errors of asyncpg pass to the writer."""
        pool = await self._database.writing()
        rows = await pool.fetch(
            _STORE,
            [draft.client_id for draft in drafts],
            [draft.room_id for draft in drafts],
            [draft.message_id for draft in drafts],
            [draft.event_id for draft in drafts],
            [draft.wake_id for draft in drafts],
            [draft.user_id for draft in drafts],
            [draft.sender for draft in drafts],
            [draft.sender_id for draft in drafts],
            [draft.sender_key for draft in drafts],
            [draft.client_msg_id for draft in drafts],
            [draft.body_hash for draft in drafts],
            [draft.content for draft in drafts],
            [draft.reply_to for draft in drafts],
            [_json(draft.attachments) for draft in drafts],
            [_json(draft.mentions) for draft in drafts],
            [_json(draft.metadata) for draft in drafts],
            wait,
        )
        return [Outcome(*row) for row in rows]

    async def entries(
        self, room_id: UUID, *, after_seq: int, limit: int, generation: int
    ) -> list[LogEntry]:
        """Read the log of a room after a seq, in order; messages and the room as they are now."""
        rows = await self._fetch(_ENTRIES, room_id, after_seq, limit)
        return [_entry(row, generation) for row in rows]

    async def message(self, client_id: UUID, message_id: UUID) -> dict[str, Any] | None:
        """Read one message, with its context."""
        rows = await self._fetch(
            f"select {_MESSAGE} from message m where m.client_id = $1 and m.id = $2",  # noqa: S608
            client_id,
            message_id,
        )
        return message_of(rows[0], with_context=True) if rows else None

    async def messages(
        self, room_id: UUID, *, floor: int, after: int | None, before: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """Read messages in seq order: after a seq the next ones, before it (or at all) the last."""
        forward = after is not None
        rows = await self._fetch(
            f"select {_MESSAGE} from message m where m.room_id = $1 and m.seq > 0"  # noqa: S608
            " and m.seq >= $2 and m.seq > $3 and m.seq < $4"
            f" order by m.seq {'asc' if forward else 'desc'} limit $5",
            room_id,
            floor,
            after or 0,
            2**62 if before is None else before,
            limit,
        )
        found = [message_of(row, with_context=True) for row in rows]
        return found if forward else found[::-1]

    async def reads(self, room_id: UUID) -> list[dict[str, Any]]:
        """Read how far everyone of a small room has read."""
        rows = await self._fetch(
            "select u.external_id, m.read_seq from member m join app_user u on u.id = m.user_id"
            " where m.room_id = $1 order by u.external_id limit 100",
            room_id,
        )
        return [{"user_id": row[0], "read_seq": row[1]} for row in rows]

    async def changed_rooms(
        self,
        user_id: UUID,
        *,
        since: datetime | None,
        after: UUID | None,
        named: Sequence[UUID],
        limit: int,
    ) -> list[asyncpg.Record]:
        """Read a user's rooms with facts or changes since a moment, and whichever are named."""
        return await self._fetch(_CHANGED, user_id, since, after, list(named), limit)

    async def removed(self, user_id: UUID, since: datetime, *, limit: int) -> list[asyncpg.Record]:
        return await self._fetch(
            "select room_id, reason, at from departure where user_id = $1 and at > $2"
            " order by at limit $3",
            user_id,
            since,
            limit,
        )

    async def moment(self, user_id: UUID) -> tuple[datetime, int]:
        """Read PostgreSQL's now and the user's `rooms_version`, before anything else of a sync."""
        rows = await self._fetch(
            "select clock_timestamp(), rooms_version from app_user where id = $1", user_id
        )
        return rows[0][0], rows[0][1]

    async def heads(self, room_ids: Sequence[UUID]) -> dict[UUID, int]:
        rows = await self._fetch("select id, last_seq from room where id = any($1)", list(room_ids))
        return {row[0]: row[1] for row in rows}

    async def subscriptions(self, user_id: UUID) -> Subscriptions:
        """Read a user's rooms and their version, in one statement: one snapshot."""
        rows = await self._fetch(
            "select u.rooms_version, r.id, r.last_seq, m.joined_seq from app_user u"
            " left join member m on m.user_id = u.id"
            " left join room r on r.id = m.room_id and r.deleted_at is null where u.id = $1",
            user_id,
        )
        if not rows:
            return Subscriptions(0)
        return Subscriptions(rows[0][0], {row[1]: Seat(row[2], row[3]) for row in rows if row[1]})

    async def changes(self, within_s: float) -> Changes:
        """Read which rooms have new facts and whose set of rooms changed, lately."""
        rooms = await self._fetch(
            # Not `clock_timestamp()`: what changes from row to row can't be looked up in an index.
            "select room_id, max(seq) from room_event where created_at >"
            " statement_timestamp() - make_interval(secs => $1) group by room_id",
            within_s,
        )
        users = await self._fetch(
            "select id, rooms_version from app_user"
            " where rooms_changed_at > statement_timestamp() - make_interval(secs => $1)",
            within_s,
        )
        return Changes({row[0]: row[1] for row in rooms}, {row[0]: row[1] for row in users})

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        with outages():
            pool = await self._database.fast()
            return list(await pool.fetch(statement, *values))


class ChatLog:
    """The log as the realtime engine needs it: whole facts, whoever's they are."""

    def __init__(self, repository: ChatRepository, generation: Callable[[], int]) -> None:
        self._repository = repository
        self._generation = generation

    async def read(self, room_id: UUID, *, after_seq: int, limit: int) -> list[Committed]:
        entries = await self._repository.entries(
            room_id, after_seq=after_seq, limit=limit, generation=self._generation()
        )
        return [entry.committed() for entry in entries]

    async def heads(self, room_ids: Sequence[UUID]) -> dict[UUID, int]:
        return await self._repository.heads(room_ids)

    async def subscriptions(self, user_id: UUID) -> Subscriptions:
        return await self._repository.subscriptions(user_id)

    async def changes(self, *, within_s: float) -> Changes:
        return await self._repository.changes(within_s)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _loaded(value: str | None) -> Any:  # noqa: ANN401 - JSON
    return None if value is None else orjson.loads(value)


def _time(value: datetime | None) -> str | None:
    return None if value is None else rfc3339(value)


def _entry(row: asyncpg.Record, generation: int) -> LogEntry:
    superseded = False
    if row["m_id"] is not None:
        data = {"message": message_of(row)}
        superseded = row["m_edited_at"] is not None or row["m_deleted_at"] is not None
    elif row["data"] is None:
        data = {"room": room_of(row, generation)}
    else:
        data = orjson.loads(row["data"])
    return LogEntry(
        client_id=row["client_id"],
        room_id=row["room_id"],
        epoch=f"{generation}.{row['r_epoch']}",
        seq=row["seq"],
        id=row["id"],
        type=row["type"],
        ts=row["created_at"],
        actor=Actor(row["actor_type"], row["actor_id"]),
        data=data,
        effect=Effect.from_json(_loaded(row["effect"])),
        client_msg_id=row["m_client_msg_id"] if row["type"] == "message.created" else None,
        superseded=superseded,
    )


def message_of(row: asyncpg.Record, *, with_context: bool = False) -> dict[str, Any]:
    """Give a stored message as it stands on the wire; facts leave an AI's context out."""
    context = _loaded(row["m_context"])
    if context is not None and not with_context:
        context = {"omitted": True}
    return {
        "id": str(row["m_id"]),
        "room_id": str(row["m_room_id"]),
        "seq": row["m_seq"],
        "msg_no": row["m_msg_no"],
        "sender": row["m_sender"],
        "sender_id": row["m_sender_id"],
        "content": row["m_content"],
        "status": row["m_status"],
        "partial_content": row["m_partial_content"],
        "error_message": row["m_error_message"],
        "context": context,
        "reply_to": None if row["m_reply_to"] is None else str(row["m_reply_to"]),
        "attachments": _loaded(row["m_attachments"]),
        "mentions": _loaded(row["m_mentions"]),
        "metadata": _loaded(row["m_details"]),
        "reactions": [],
        "pinned": row["m_pinned"],
        "edited_at": _time(row["m_edited_at"]),
        "deleted_at": _time(row["m_deleted_at"]),
        "created_at": rfc3339(row["m_created_at"]),
        "client_msg_id": row["m_client_msg_id"],
    }


def room_of(row: asyncpg.Record, generation: int) -> dict[str, Any]:
    """Give the room of a row as `room.*` facts carry it."""
    return {
        "id": str(row["r_id"]),
        "type": row["r_type"],
        "title": row["r_title"],
        "external_id": row["r_external_id"],
        "history": row["r_history"],
        "metadata": _loaded(row["r_details"]),
        "is_active": row["r_is_active"],
        "members_count": row["r_members_count"],
        "created_by": row["r_created_by"],
        "epoch": f"{generation}.{row['r_epoch']}",
        "min_seq": row["r_min_seq"],
        "last_activity_at": rfc3339(row["r_last_activity_at"]),
        "deactivates_at": _time(row["r_deactivates_at"]),
        "deactivated_at": _time(row["r_deactivated_at"]),
        "created_at": rfc3339(row["r_created_at"]),
        "updated_at": rfc3339(row["r_updated_at"]),
    }
