"""Every query that changes a message, within a transaction that holds its room's lock."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from chatserver.chat.models import Message
from chatserver.chat.rows import MESSAGE, message_of

_FIND: Final = text("select room_id from message where client_id = :client and id = :id")
_ONE: Final = text(
    f"select {MESSAGE} from message m where m.client_id = :client and m.id = :id"  # noqa: S608
)
_SETTINGS: Final = text(
    "select settings -> 'chat' as chat, clock_timestamp() as now from client where id = :client"
)
_KEEP: Final = text("""
insert into message_edit (message_id, version, client_id, content)
values (:id, :version, :client, :content)
""")
_FORGET_OLDEST: Final = text(
    "delete from message_edit where message_id = :id and version <= :version"
)
_FORGET_EDITS: Final = text("delete from message_edit where message_id = :id")
_EDITS: Final = text(
    "select version, content, replaced_at from message_edit"
    " where client_id = :client and message_id = :id order by version"
)
_REACT: Final = text("""
insert into reaction (message_id, user_id, emoji, client_id)
values (:id, :user, :emoji, :client) on conflict do nothing
""")
_OWN_REACTIONS: Final = text(
    "select count(*) from reaction where message_id = :id and user_id = :user"
)
_UNREACT: Final = text(
    "delete from reaction where message_id = :id and user_id = :user and emoji = :emoji"
)
_FORGET_REACTIONS: Final = text("delete from reaction where message_id = :id")
_REACTED: Final = text("""
select u.external_id, x.emoji, x.created_at from reaction x join app_user u on u.id = x.user_id
where x.client_id = :client and x.message_id = :id
  and (cast(:emoji as text) is null or x.emoji = :emoji)
order by x.created_at, u.external_id, x.emoji offset :offset limit :limit
""")
_MENTION: Final = text("""
insert into mention (room_id, target, seq, client_id)
select :room, t, :seq, :client from unnest(cast(:targets as text[])) t on conflict do nothing
""")
_UNMENTION: Final = text(
    "delete from mention where room_id = :room and seq = :seq and target = any (:targets)"
)
_PINS: Final = text("select count(*) from message where room_id = :room and pinned")


class MessageRepository:
    """Messages of one transaction. Whoever changes one holds the lock of its room."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def room_of(self, client_id: UUID, message_id: UUID) -> UUID | None:
        """Tell which room a message is in; messages don't move."""
        found = await self._session.execute(_FIND, {"client": client_id, "id": message_id})
        room_id: UUID | None = found.scalar_one_or_none()
        return room_id

    async def get(self, message_id: UUID) -> Message | None:
        """Read a message as it is now; the caller holds its room."""
        return await self._session.get(Message, message_id, populate_existing=True)

    async def rules(self, client_id: UUID) -> tuple[dict[str, Any], datetime]:
        """Read what the client has set for conversations, and PostgreSQL's clock."""
        found = (await self._session.execute(_SETTINGS, {"client": client_id})).one()
        rules: dict[str, Any] = found.chat or {}
        return rules, found.now

    async def shown(self, message: Message) -> dict[str, Any]:
        """Write what was changed and give the message as facts carry it."""
        await self._session.flush()
        found = await self._session.execute(_ONE, {"client": message.client_id, "id": message.id})
        return message_of(found.mappings().one())

    async def keep_version(self, message: Message, kept: int) -> None:
        """Keep the present text as a version of the past; of very many the newest `kept`."""
        values = {"id": message.id, "client": message.client_id, "version": message.version}
        await self._session.execute(_KEEP, values | {"content": message.content})
        if message.version > kept:
            oldest = {"id": message.id, "version": message.version - kept}
            await self._session.execute(_FORGET_OLDEST, oldest)

    async def edits(self, client_id: UUID, message_id: UUID) -> list[dict[str, Any]]:
        found = await self._session.execute(_EDITS, {"client": client_id, "id": message_id})
        return [dict(row) for row in found.mappings()]

    async def forget(self, message: Message) -> None:
        """Delete what hangs on a message that is deleted: versions, reactions, mentions."""
        await self._session.execute(_FORGET_EDITS, {"id": message.id})
        await self._session.execute(_FORGET_REACTIONS, {"id": message.id})
        await self.unmention(message, message.mentions)

    async def mention(self, message: Message, targets: Sequence[str]) -> None:
        values = {"room": message.room_id, "seq": message.seq, "client": message.client_id}
        await self._session.execute(_MENTION, values | {"targets": list(targets)})

    async def unmention(self, message: Message, targets: Sequence[str]) -> None:
        if targets:
            values = {"room": message.room_id, "seq": message.seq, "targets": list(targets)}
            await self._session.execute(_UNMENTION, values)

    async def react(self, message: Message, user_id: UUID, emoji: str) -> bool:
        """Add a reaction; False when it was there."""
        values = {"id": message.id, "client": message.client_id, "user": user_id, "emoji": emoji}
        return await self._changed(_REACT, values)

    async def unreact(self, message: Message, user_id: UUID, emoji: str) -> bool:
        """Take a reaction back; False when there was none."""
        return await self._changed(_UNREACT, {"id": message.id, "user": user_id, "emoji": emoji})

    async def own_reactions(self, message: Message, user_id: UUID) -> int:
        found = await self._session.execute(_OWN_REACTIONS, {"id": message.id, "user": user_id})
        return int(found.scalar_one())

    async def reacted(
        self, client_id: UUID, message_id: UUID, *, emoji: str | None, offset: int, limit: int
    ) -> list[dict[str, Any]]:
        """Read who reacted, in the order in which they did."""
        values = {"client": client_id, "id": message_id, "emoji": emoji}
        found = await self._session.execute(_REACTED, values | {"offset": offset, "limit": limit})
        return [dict(row) for row in found.mappings()]

    async def pins(self, room_id: UUID) -> int:
        found = await self._session.execute(_PINS, {"room": room_id})
        return int(found.scalar_one())

    async def _changed(self, statement: Any, values: dict[str, Any]) -> bool:  # noqa: ANN401
        done = await self._session.execute(statement, values)
        return bool(done.rowcount)  # type: ignore[attr-defined]  # of an insert or a delete
