"""Rows of messages and rooms as they stand on the wire: one shape, whichever query reads them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import asyncpg
import orjson

from chatserver.chat.schemas import MessageOut, ReactionCount
from chatserver.kernel.clock import rfc3339
from chatserver.rooms.events import support_of

# What `message_of` reads of a row of `message m`.
MESSAGE: Final = """
  m.id as m_id, m.seq as m_seq, m.msg_no as m_msg_no, m.sender as m_sender,
  m.sender_id as m_sender_id, m.content as m_content, m.status as m_status,
  m.partial_content as m_partial_content, m.error_message as m_error_message,
  m.context as m_context, m.reply_to as m_reply_to, m.attachments as m_attachments,
  m.mentions as m_mentions, m.details as m_details, m.pinned as m_pinned,
  m.edited_at as m_edited_at, m.deleted_at as m_deleted_at, m.created_at as m_created_at,
  m.client_msg_id as m_client_msg_id, m.room_id as m_room_id, m.reactions as m_reactions,
  m.version as m_version, m.changed_seq as m_changed_seq, m.silent as m_silent,
  m.thread_id as m_thread_id, m.reply_count as m_reply_count
"""
# What `room_of` reads of a row of `room r`.
ROOM: Final = """
  r.id as r_id, r.type as r_type, r.title as r_title, r.external_id as r_external_id,
  r.history as r_history, r.details as r_details, r.is_active as r_is_active,
  r.members_count as r_members_count, r.slow_mode_s as r_slow_mode_s, r.post_role as r_post_role,
  r.archived_at as r_archived_at, r.created_by as r_created_by, r.epoch as r_epoch,
  r.min_seq as r_min_seq, r.last_activity_at as r_last_activity_at,
  r.deactivates_at as r_deactivates_at, r.deactivated_at as r_deactivated_at,
  r.created_at as r_created_at, r.updated_at as r_updated_at,
  r.assignee as r_assignee, r.closed_at as r_closed_at
"""


def loaded(value: Any) -> Any:  # noqa: ANN401 - JSON
    # Sessions give what is stored; raw connections its text. None of our columns holds a text.
    return orjson.loads(value) if isinstance(value, str) else value


def _time(value: datetime | None) -> str | None:
    return None if value is None else rfc3339(value)


def shaped(members: dict[str, Any]) -> MessageOut:
    """Give a message that is known to have the right shape: no second validation on a hot path."""
    reactions = [ReactionCount.model_construct(**each) for each in members["reactions"]]
    return MessageOut.model_construct(**(members | {"reactions": reactions}))


def message_of(
    row: Mapping[Any, Any] | asyncpg.Record, *, with_context: bool = False
) -> dict[str, Any]:
    """Give a stored message as it stands on the wire; facts leave an AI's context out."""
    context = loaded(row["m_context"])
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
        "attachments": loaded(row["m_attachments"]),
        "mentions": loaded(row["m_mentions"]),
        "metadata": loaded(row["m_details"]),
        "reactions": loaded(row["m_reactions"]),
        "pinned": row["m_pinned"],
        "version": row["m_version"],
        "silent": row["m_silent"],
        "thread_id": None if row["m_thread_id"] is None else str(row["m_thread_id"]),
        "reply_count": row["m_reply_count"],
        "edited_at": _time(row["m_edited_at"]),
        "deleted_at": _time(row["m_deleted_at"]),
        "created_at": rfc3339(row["m_created_at"]),
        "client_msg_id": row["m_client_msg_id"],
    }


def room_of(row: asyncpg.Record, generation: int) -> dict[str, Any]:
    """Give the room of a row as `room.*` facts carry it."""
    support = support_of(row["r_type"], row["r_assignee"], _time(row["r_closed_at"]))
    return {
        "id": str(row["r_id"]),
        "type": row["r_type"],
        "title": row["r_title"],
        "external_id": row["r_external_id"],
        "history": row["r_history"],
        "metadata": loaded(row["r_details"]),
        "is_active": row["r_is_active"],
        "members_count": row["r_members_count"],
        "slow_mode_s": row["r_slow_mode_s"],
        "post_role": row["r_post_role"],
        "archived_at": _time(row["r_archived_at"]),
        "created_by": row["r_created_by"],
        "epoch": f"{generation}.{row['r_epoch']}",
        "min_seq": row["r_min_seq"],
        "last_activity_at": rfc3339(row["r_last_activity_at"]),
        "deactivates_at": _time(row["r_deactivates_at"]),
        "deactivated_at": _time(row["r_deactivated_at"]),
        "created_at": rfc3339(row["r_created_at"]),
        "updated_at": rfc3339(row["r_updated_at"]),
        **({} if support is None else {"support": support}),
    }
