"""What a person asked of bots, was answered by them, and reported: for the person's own copy.

Apart from `repository`, which is about what was written to others.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

_DOCUMENTS: Final = text("""
select id, bot_id, kind, name, title, url, created_at from document
where client_id = :client and uploaded_by = :user and deleted_at is null order by created_at, id
""")
_SEARCHES: Final = text("""
select id, cast(bot_ids as text[]) as bot_ids, query, created_at from retrieval
where client_id = :client and user_id = :user order by created_at, id
""")
# What bots answered the person, with what was given to them for it.
_ANSWERED: Final = text("""
select m.room_id, m.seq, m.id, g.bot_id, m.content, m.context, m.status, m.created_at
from generation g join message m on m.client_id = g.client_id and m.id = g.message_id
where g.client_id = :client and g.asked_by = :user order by m.created_at, m.id
""")
_FLAGGED: Final = text("""
select id, room_id, message_id, reason, state, created_at from flag
where client_id = :client and flagged_by = :name order by created_at, id
""")
_KINDS: Final[Sequence[tuple[str, TextClause]]] = (
    ("document", _DOCUMENTS),
    ("search", _SEARCHES),
    ("answer", _ANSWERED),
    ("flag", _FLAGGED),
)


async def everything(
    session: AsyncSession, client_id: UUID, user_id: UUID, name: str
) -> list[tuple[str, dict[str, Any]]]:
    """Read documents, questions, answers and reports, each with the kind of its line."""
    values = {"client": client_id, "user": user_id, "name": name}
    return [
        (kind, dict(row))
        for kind, statement in _KINDS
        for row in (await session.execute(statement, values)).mappings()
    ]
