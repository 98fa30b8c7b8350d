"""Every query about erasures, exports and the audit log.

Of all repositories this one alone writes to other features' tables: what an erasure must reach is
one list, to be read and tested as a whole, and not a promise of each feature.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import TextClause, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from chatserver.infra.audit import AuditRow
from chatserver.privacy import reach
from chatserver.privacy.models import Erasure
from chatserver.users.models import User

_PAGE_OF_ROOMS: Final = text("""
select id, last_seq, deleted_at is null as is_live from room
where client_id = :client and (cast(:after as uuid) is null or id > :after) order by id limit :limit
""")
_MARK: Final = text("""
insert into erasure_room (erasure_id, room_id, client_id, told)
select :erasure, r.id, r.client_id, false from room r
where r.client_id = :client and r.id = any (:rooms) and r.deleted_at is null and (
  exists (select from member m where m.room_id = r.id and m.user_id = :user)
  or exists (select from message g where g.room_id = r.id and g.sender_key = :key))
on conflict do nothing
""")
_UNTOLD: Final = text("""
select room_id from erasure_room where erasure_id = :erasure and room_id = any (:rooms) and not told
order by room_id
""")
_TELL: Final = text("""
update erasure_room set told = true where erasure_id = :erasure and room_id = :room and not told
""")
_COUNT: Final = text("""
update erasure set counts = counts || jsonb_build_object(cast(:what as text),
  coalesce((counts ->> :what)::bigint, 0) + cast(:n as bigint))
where id = :erasure
""")
_SENT: Final = text("""
select room_id, seq, id, content, attachments, mentions, details, reply_to, silent, edited_at,
  deleted_at, created_at
from message where client_id = :client and room_id = any (:rooms) and sender_key = :key
  and (cast(:room as uuid) is null or (room_id, seq) > (:room, :seq))
order by room_id, seq limit :limit
""")
_FILES: Final = text("""
select id as file_id, name, content_type, size, encode(sha256, 'base64') as sha256, state, width,
  height, created_at
from file where client_id = :client and uploader_id = :user order by created_at, id
""")
_SEATS: Final = text("""
select m.room_id, r.type as room_type, r.title, m.role, m.joined_at, m.read_seq, m.is_muted,
  m.is_favorite, m.notification_level, m.marked_unread, m.muted_until, m.last_sent_at
from member m join room r on r.id = m.room_id
where m.client_id = :client and m.user_id = :user order by m.room_id
""")
_REACTED: Final = text("""
select message_id, emoji, created_at from reaction
where client_id = :client and user_id = :user
  and (cast(:message as uuid) is null or (message_id, emoji) > (:message, :emoji))
order by message_id, emoji limit :limit
""")
_EDITED: Final = text("""
select e.message_id, e.version, e.content, e.replaced_at from message_edit e
where e.message_id = any (:messages) order by e.message_id, e.version
""")
_BANS: Final = text("""
select room_id, until, reason, created_at from room_ban
where client_id = :client and user_id = :user order by room_id
""")
_KEYS: Final = text("""
select kid, device_id, scopes, status, created_at, last_seen_at, abs_expires_at
from key_family where client_id = :client and user_id = :user order by created_at, kid
""")


class PrivacyRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, erasure: Erasure) -> Erasure:
        made = await self._session.execute(
            insert(Erasure)
            .values(
                id=erasure.id,
                client_id=erasure.client_id,
                user_id=erasure.user_id,
                external_id=erasure.external_id,
                state=erasure.state,
                requested_by=erasure.requested_by,
            )
            .returning(Erasure)
        )
        return made.scalar_one()

    async def hide(self, user_id: UUID) -> None:
        """Let a person be gone for every caller; the profile goes at once."""
        await self._session.execute(
            update(User)
            .where(col(User.id) == user_id)
            .values(
                erasing_at=text("clock_timestamp()"), display_name=None, avatar_url=None, details={}
            )
        )

    async def latest(self, client_id: UUID, external_id: str) -> Erasure | None:
        found = await self._session.execute(
            select(Erasure)
            .where(col(Erasure.client_id) == client_id, col(Erasure.external_id) == external_id)
            .order_by(col(Erasure.requested_at).desc())
            .limit(1)
        )
        return found.scalar_one_or_none()

    async def begin(self, erasure_id: UUID) -> Erasure | None:
        """Take up an erasure, or go on with it; None when it is done."""
        begun = await self._session.execute(
            update(Erasure)
            .where(col(Erasure.id) == erasure_id, col(Erasure.state) != "done")
            .values(state="running")
            .returning(Erasure)
            .execution_options(populate_existing=True)
        )
        return begun.scalar_one_or_none()

    async def rooms(
        self, client_id: UUID, after: UUID | None, limit: int
    ) -> list[tuple[UUID, int]]:
        """Read a page of all rooms of a client, deleted ones too: (id, last seq)."""
        found = await self._session.execute(
            _PAGE_OF_ROOMS, {"client": client_id, "after": after, "limit": limit}
        )
        return [(row.id, row.last_seq) for row in found]

    async def mark(self, erasure: Erasure, rooms: Sequence[UUID]) -> None:
        """Note which of these rooms the person is in or wrote in: they must be told."""
        await self._session.execute(_MARK, self._of(erasure) | {"rooms": list(rooms)})

    async def untold(self, erasure: Erasure, rooms: Sequence[UUID]) -> list[UUID]:
        found = await self._session.execute(_UNTOLD, {"erasure": erasure.id, "rooms": list(rooms)})
        return list(found.scalars())

    async def tell(self, erasure_id: UUID, room_id: UUID) -> bool:
        """Note that a room is told; False when it was told before."""
        return await self._done(_TELL, {"erasure": erasure_id, "room": room_id}) > 0

    async def scrub_messages(self, erasure: Erasure, rooms: Sequence[UUID], limit: int) -> int:
        """Overwrite up to `limit` of the person's messages; the row and its place stay."""
        values = self._of(erasure) | {"rooms": list(rooms), "limit": limit}
        found = await self._session.execute(reach.FIND_MESSAGES, values)
        values["messages"] = list(found.scalars())
        for statement in reach.OF_MESSAGES:
            await self._session.execute(statement, values)
        return await self._counted(erasure.id, "messages", reach.MESSAGES, values)

    async def reacted(self, erasure: Erasure, limit: int) -> list[tuple[UUID, list[UUID]]]:
        """Find up to `limit` messages that the person reacted to, by room."""
        found = await self._session.execute(reach.REACTED, self._of(erasure) | {"limit": limit})
        return [(row.room_id, row.messages) for row in found]

    async def scrub_reactions(
        self, erasure: Erasure, messages: Sequence[UUID]
    ) -> dict[UUID, list[dict[str, Any]]]:
        """Take back the person's reactions to some messages; what each of them has left."""
        values = self._of(erasure) | {"messages": list(messages)}
        found = (await self._session.execute(reach.REACTIONS, values)).all()
        await self.count(erasure.id, "reactions", len(found))
        return {row.id: row.reactions for row in found}

    async def scrub_answers(self, erasure: Erasure, rooms: Sequence[UUID], limit: int) -> int:
        """Overwrite up to `limit` answers that bots gave the person."""
        values = self._of(erasure) | {"rooms": list(rooms), "limit": limit}
        return await self._counted(erasure.id, "bot_answers", reach.ANSWERS, values)

    async def scrub_slice(
        self, erasure: Erasure, rooms: Sequence[UUID], low: int, high: int
    ) -> None:
        """Take the name out of mentions and log rows of a slice; whose log had it must be told."""
        values = self._of(erasure) | {"rooms": list(rooms), "low": low, "high": high}
        await self._counted(erasure.id, "mentions", reach.MENTIONS, values)
        done = (await self._session.execute(reach.EVENTS, values)).scalar_one()
        if done:
            await self.count(erasure.id, "log_rows", done)

    async def scrub_rooms(self, erasure: Erasure, rooms: Sequence[UUID]) -> None:
        values = self._of(erasure) | {"rooms": list(rooms)}
        await self._counted(erasure.id, "rooms_created", reach.ROOMS, values)
        await self._session.execute(reach.NAMED, values)

    async def pass_room(self, erasure_id: UUID, room_id: UUID) -> None:
        await self._session.execute(
            update(Erasure).where(col(Erasure.id) == erasure_id).values(after_room=room_id)
        )

    async def begin_again(self, erasure_id: UUID) -> None:
        await self._session.execute(
            update(Erasure).where(col(Erasure.id) == erasure_id).values(after_room=None)
        )

    async def scrub_records(self, erasure: Erasure) -> None:
        """Take the person out of the audit log and out of what waits for later reactions."""
        values = self._of(erasure) | {"whose": f"user:{erasure.external_id}"}
        await self._counted(erasure.id, "audit_entries", reach.AUDIT, values)
        await self._session.execute(reach.OUTBOX, values)
        await self._counted(erasure.id, "invites", reach.INVITES, values)
        await self._counted(erasure.id, "flags", reach.FLAGS, values)

    async def count(self, erasure_id: UUID, what: str, n: int) -> None:
        await self._session.execute(_COUNT, {"erasure": erasure_id, "what": what, "n": n})

    async def lock_user(self, user_id: UUID) -> bool:
        """Lock a person's row against everything that would refer to it. False: it is gone."""
        statement = text("select id from app_user where id = :user for update")
        return (await self._session.execute(statement, {"user": user_id})).first() is not None

    async def is_member(self, user_id: UUID) -> bool:
        statement = text("select 1 from member where user_id = :user limit 1")
        return (await self._session.execute(statement, {"user": user_id})).first() is not None

    async def remove_user(self, erasure: Erasure) -> None:
        """Delete the person with all that hangs on the row: keys, departures."""
        values = self._of(erasure)
        await self._counted(
            erasure.id,
            "keys",
            text("delete from key_family where client_id = :client and user_id = :user"),
            values,
        )
        await self._session.execute(
            text("delete from app_user where client_id = :client and id = :user"), values
        )
        await self._session.execute(
            text("delete from erasure_room where erasure_id = :erasure"), values
        )

    async def counts(self, erasure_id: UUID) -> dict[str, int]:
        found = await self._session.execute(
            text("select counts from erasure where id = :id"), {"id": erasure_id}
        )
        counts: dict[str, int] = found.scalar_one()
        return counts

    async def close(
        self, erasure_id: UUID, at: datetime, report: bytes, signature: bytes, key: bytes
    ) -> None:
        await self._session.execute(
            update(Erasure)
            .where(col(Erasure.id) == erasure_id)
            .values(
                state="done", completed_at=at, report=report, signature=signature, signed_by=key
            )
        )

    async def now(self) -> datetime:
        moment: datetime = (
            await self._session.execute(text("select clock_timestamp()"))
        ).scalar_one()
        return moment

    async def sent(
        self,
        client_id: UUID,
        user_id: UUID,
        rooms: Sequence[UUID],
        *,
        after: tuple[UUID | None, int],
        limit: int,
    ) -> list[dict[str, Any]]:
        """Read messages that a person wrote in some rooms, in order."""
        found = await self._session.execute(
            _SENT,
            {
                "client": client_id,
                "rooms": list(rooms),
                "key": str(user_id),
                "room": after[0],
                "seq": after[1],
                "limit": limit,
            },
        )
        return [dict(row) for row in found.mappings()]

    async def seats(self, client_id: UUID, user_id: UUID) -> list[dict[str, Any]]:
        found = await self._session.execute(_SEATS, {"client": client_id, "user": user_id})
        return [dict(row) for row in found.mappings()]

    async def files(self, client_id: UUID, user_id: UUID) -> list[dict[str, Any]]:
        """Read what a person uploaded, without the contents."""
        found = await self._session.execute(_FILES, {"client": client_id, "user": user_id})
        return [dict(row) for row in found.mappings()]

    async def reactions(
        self, client_id: UUID, user_id: UUID, *, after: tuple[UUID | None, str], limit: int
    ) -> list[dict[str, Any]]:
        """Read what a person reacted to, in some lasting order."""
        found = await self._session.execute(
            _REACTED,
            {
                "client": client_id,
                "user": user_id,
                "message": after[0],
                "emoji": after[1],
                "limit": limit,
            },
        )
        return [dict(row) for row in found.mappings()]

    async def past_versions(self, messages: Sequence[UUID]) -> list[dict[str, Any]]:
        """Read what some messages said before they were edited."""
        found = await self._session.execute(_EDITED, {"messages": list(messages)})
        return [dict(row) for row in found.mappings()]

    async def bans(self, client_id: UUID, user_id: UUID) -> list[dict[str, Any]]:
        found = await self._session.execute(_BANS, {"client": client_id, "user": user_id})
        return [dict(row) for row in found.mappings()]

    async def keys(self, client_id: UUID, user_id: UUID) -> list[dict[str, Any]]:
        """Read a person's keys, without anything that authenticates."""
        found = await self._session.execute(_KEYS, {"client": client_id, "user": user_id})
        return [dict(row) for row in found.mappings()]

    async def audit(
        self,
        client_id: UUID,
        *,
        action: str | None,
        subject: str | None,
        since: datetime | None,
        until: datetime | None,
        before: int | None,
        limit: int,
    ) -> list[AuditRow]:
        """Read the audit log, the newest first."""
        where = [col(AuditRow.client_id) == client_id]
        if action is not None:
            group = col(AuditRow.action).startswith(f"{action}.", autoescape=True)
            where.append((col(AuditRow.action) == action) | group)
        if subject is not None:
            where.append(col(AuditRow.subject) == subject)
        if since is not None:
            where.append(col(AuditRow.at) >= since)
        if until is not None:
            where.append(col(AuditRow.at) < until)
        if before is not None:
            where.append(col(AuditRow.id) < before)
        rows = await self._session.scalars(
            select(AuditRow).where(*where).order_by(col(AuditRow.id).desc()).limit(limit)
        )
        return list(rows)

    def _of(self, erasure: Erasure) -> dict[str, Any]:
        return {
            "erasure": erasure.id,
            "client": erasure.client_id,
            "user": erasure.user_id,
            "key": str(erasure.user_id),
            "name": erasure.external_id,
        }

    async def _counted(
        self,
        erasure_id: UUID,
        what: str,
        statement: TextClause,
        values: dict[str, Any],
    ) -> int:
        done = await self._done(statement, values)
        if done:
            await self.count(erasure_id, what, done)
        return done

    async def _done(self, statement: TextClause, values: dict[str, Any]) -> int:
        result = await self._session.execute(statement, values)
        return int(result.rowcount)  # type: ignore[attr-defined]  # of an update or a delete
